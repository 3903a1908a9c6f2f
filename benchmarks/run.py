"""All benchmarks of this CPU: products/s of the dot chains and of every kernel; tokens/s and memory of the engine.

    python benchmarks/run.py [--output FILE.json] [--quick]

Medians over repeats, with the smallest and largest; what is compared takes turns within one run (the engine beside
transformers). Prints tables, writes JSON. `demo.py` times the two commands of the README, `cuda_emulator.py` a GPU.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import chains
import engine
import kernels
from provenance import RESULTS, provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / "cpu.json")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and variants, smaller weights")
    arguments = parser.parse_args()
    results = {
        **provenance(),
        "chains": chains.measure(repeats=3 if arguments.quick else 9),
        "kernels": kernels.measure(quick=arguments.quick),
        "engine": engine.measure(quick=arguments.quick),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
