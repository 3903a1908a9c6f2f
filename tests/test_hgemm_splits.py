"""cublasHgemm's recorded splits of K: outputs of an H200, and neighbouring splits that must fail."""

import json
import re

import numpy as np
import pytest

from qforensics import kernels
from vector_cases import VECTORS, _load_inputs

inputs = _load_inputs()
CASES = {case["id"]: case for case in json.loads((VECTORS / "hgemm.json").read_text())["cases"]}


def differing(case: dict, split: int) -> int:
    """Wrong outputs of the recorded rows and columns; an output depends on its own row and column alone."""
    rows, columns, k, n = case["rows"], case["cols"], case["K"], case["N"]
    activations = inputs.activations(case["seed"], case["M"], k, "normal")[rows]
    codes, scales = inputs.codes(case["seed"], k, n)[:, columns], inputs.scales(case["seed"], k // 128, n)[:, columns]
    zeros = np.full(scales.shape, 8, np.uint8)
    out = kernels.emulate("hgemm", activations, codes, zeros, scales, group_size=128, device="h200", split=split)
    with np.load(VECTORS / "hgemm.npz") as recorded:
        return int((out.view(np.uint16) != recorded[case["id"]]).sum())


def next_parts(k: int, split: int) -> int:
    """The next larger split that cuts the tiles of 64 k into other parts."""
    tiles = -(-k // 64)
    return next(s for s in range(split + 1, tiles + 2) if -(-tiles // s) != -(-tiles // split))


@pytest.mark.parametrize("name", CASES)
def test_the_planned_split_gives_the_recorded_bits(name):
    case = CASES[name]
    plan = kernels.plan("hgemm", (case["M"], case["N"], case["K"]), group_size=128, device="h200", split="auto")
    assert plan.confirmed
    split = int(re.search(r"split = (\d+)", " ".join(plan.facts)).group(1))
    assert (split > 1) == any("splitKreduce" in kernel for kernel in case["kernels"])
    assert differing(case, split) == 0
    assert differing(case, next_parts(case["K"], split)) > 0
