"""Machete's and Marlin's cuts of K: plans against a walk over the thread blocks, on random shapes and SM counts."""

import re
from typing import Any

import numpy as np
import pytest

import schedule_reference as reference
from qforensics import kernels

SMS = {"h200": 132, "h100 pcie": 114, "a100": 108}


def starts(tree: dict[str, Any], tile_k: int) -> list[int]:
    return sorted({start // tile_k for leaf in tree["leaves"] for start, *_ in leaf})


def planned(plan: kernels.Plan, tile_k: int, tile_n: int, tile_m: int) -> dict[tuple[int, int], list[int]]:
    """First k-tiles of the pieces of every tile."""
    trees = [starts(tree, tile_k) for tree in plan.trees]
    return {
        (row // tile_m, column // tile_n): trees[tree]
        for row, _, begin, end, tree in plan.regions
        for column in range(begin, end, tile_n)
    }


def machete_tile(plan: kernels.Plan) -> tuple[int, int, int]:
    return tuple(int(word) for word in re.findall(r"\d+", plan.facts[0])[:3])  # type: ignore[return-value]


@pytest.mark.parametrize("device", ["h200", "h100 pcie"])
def test_machete_units(device: str) -> None:
    random, with_cuts = np.random.default_rng(1), 0
    for _ in range(1000):
        m, n, k = (int(np.exp(random.uniform(0, 7.5))), 128 * int(np.exp(random.uniform(0, 5))), 0)
        k = 64 * int(np.exp(random.uniform(0, 5)))
        plan = kernels.plan("machete", (m, n, k), group_size=-1, device=device)
        tile = machete_tile(plan)
        pieces = reference.machete(m, n, k, tile, SMS[device])
        for key, found in planned(plan, 64, tile[0], tile[1]).items():
            assert found == [first for first, _ in pieces[key]], (m, n, k, key)
            with_cuts += len(found) > 1
    assert with_cuts > 1000


@pytest.mark.parametrize("device", ["h200", "a100"])
def test_marlin_blocks(device: str) -> None:
    random, with_cuts = np.random.default_rng(2), 0
    for _ in range(1000):
        rows = int(random.integers(1, 65)) if random.random() < 0.5 else 64 * int(random.integers(1, 16))
        n, k = 64 * int(np.exp(random.uniform(0, 6))), 128 * int(np.exp(random.uniform(0, 4.5)))
        group = int(random.choice([32, 64, 128]))
        plan = kernels.plan("marlin", (rows, n, k), group_size=group, device=device)
        tile_k, tile_n = (int(x) for x in re.findall(r"tile k(\d+) n(\d+)", plan.facts[0])[0])
        pieces = reference.marlin(rows, n, k, group, (tile_k, tile_n), SMS[device])
        for key, found in planned(plan, tile_k, tile_n, 64).items():
            assert found == [first for first, _ in pieces[key]], (rows, n, k, group, key)
            with_cuts += len(found) > 1
    assert with_cuts > 1000


def test_another_device_has_other_cuts() -> None:
    """The comparison above can fail."""
    plan = kernels.plan("machete", (900, 768, 1536), group_size=128, device="h200")
    pieces = reference.machete(900, 768, 1536, machete_tile(plan), SMS["h100 pcie"])
    found = planned(plan, 64, 128, 128)
    assert any(cuts != [first for first, _ in pieces[key]] for key, cuts in found.items())
