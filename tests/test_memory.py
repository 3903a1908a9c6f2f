"""What loading and running the demo model takes beside the libraries' own pages stays within 2.5 times its checkpoint.

How much of LibTorch's file is mapped depends on the page cache: 69 MiB on one machine, 120 MiB right after an
installation. Those pages are shared and can be dropped; everything else is ours.
"""

import subprocess
import sys

import pytest

CODE = """
import sys
from pathlib import Path
import qforensics as qf
model = qf.load_model(sys.argv[1], variant=sys.argv[2], device="h200", threads=2)
model.generate(list(range(1000, 1128)), max_new_tokens=4)
fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
kib = {name: int(fields[name].split()[0]) for name in ("VmHWM", "RssFile")}
# VmHWM and not ru_maxrss, which a child inherits from the process that forked it
print((kib["VmHWM"] - kib["RssFile"]) * 1024, model.checkpoint.bytes_on_disk)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("variant", ["awq", "openvino"])  # fp16 parts and fp32; the ones nearest to the bound
def test_peak_memory(demo_model: str, variant: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, demo_model, variant], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    peak, checkpoint = map(int, done.stdout.split())
    assert peak <= 2.5 * checkpoint, f"{peak / 2**20:.0f} MiB, the checkpoint has {checkpoint / 2**20:.0f}"
