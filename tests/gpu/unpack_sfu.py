"""Writes the shipped special-function tables as raw files for cuda_math_check: ``unpack_sfu.py DIRECTORY``."""

import lzma
import sys
from pathlib import Path


def main() -> None:
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for packed in (Path(__file__).parents[2] / "python/qforensics/data").glob("*.xz"):
        (target / packed.name.split(".")[0]).write_bytes(lzma.decompress(packed.read_bytes()))


if __name__ == "__main__":
    main()
