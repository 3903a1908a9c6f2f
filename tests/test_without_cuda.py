"""A build without CUDA code lacks some names of ``_core``; everything imports there, and what needs a GPU says so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BINDINGS = Path(__file__).parents[1] / "csrc" / "bindings"

SCRIPT = """
import importlib, pkgutil, sys
from qforensics import _core
names = {}
for name in names:
    delattr(_core, name)
_core.gpu_count = lambda: 0
_core.why_no_gpu = lambda: "this build of qforensics has no CUDA code"
import qforensics
for module in pkgutil.walk_packages(qforensics.__path__, "qforensics."):
    if not module.name.endswith(("__main__", "_worker", "_engine")):
        importlib.import_module(module.name)
from qforensics._gpu import chosen_executor
try:
    chosen_executor("cuda")
except Exception as error:
    print(type(error).__name__, error)
"""


def cuda_names() -> set[str]:
    """What only a build with CUDA defines in the module."""
    found: set[str] = set()
    for path in sorted(BINDINGS.glob("core_*.cpp")):
        text = path.read_text()
        for block in re.findall(r"#ifdef QF_WITH_CUDA\n(.*?)#endif", text, re.DOTALL):
            only, _, otherwise = block.partition("#else\n")
            names = [set(re.findall(r"""\bm(?:\.def\(|, )"(\w+)\"""", part)) for part in (only, otherwise)]
            found |= names[0] - names[1]
    return found


def test_everything_imports_and_the_gpu_is_refused_by_name() -> None:
    names = cuda_names()
    assert {"DeviceOperatorRuntime", "attention_scheme", "time_gemm_cuda"} <= names
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(sorted(names))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "this build of qforensics has no CUDA code" in done.stdout
