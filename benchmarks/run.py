"""All benchmarks: products/s of the dot chains; tokens/s and memory of the engine, beside transformers'.

    python benchmarks/run.py [--output FILE.json] [--quick]

Medians over repeats, with spread; the variants compared take turns within one run. Prints tables, writes JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import chains
import engine

from qforensics.environment import capture_environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/cpu.json"))
    parser.add_argument("--quick", action="store_true", help="fewer repeats and variants")
    arguments = parser.parse_args()
    results = {
        "environment": capture_environment().to_json(),
        "chains": chains.measure(repeats=3 if arguments.quick else 9),
        "engine": engine.measure(quick=arguments.quick),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
