"""Products per second of the dot chains: one thread, K = 4096, 64 columns, every instruction set, A100 and H200."""

from __future__ import annotations

import time

import numpy as np
from provenance import spread

from qforensics import _core
from qforensics.devices import device

K, COLUMNS = 4096, 64
ROWS = (1, 2, 4, 6, 12)
#: kind of sums -> steps from +0 every 16 k, fp16 accumulators
KINDS = {"fp32": (False, False), "fp32 fresh": (True, False), "fp16": (False, True)}


def instruction_sets() -> list[str]:
    order = ["portable", "avx2", "avx512"]
    return order[: order.index(_core.best_isa()) + 1]


def seconds(name: str, kind: str, rows: int, isa: str, repeat: int) -> float:
    """One call that runs the chain `repeat` times."""
    rng = np.random.default_rng(rows)
    fresh, half_out = KINDS[kind]
    unit = device(name).unit("fp16", out="fp16" if half_out else "fp32").unit
    left = rng.standard_normal((rows, K)).astype(np.float16).astype(np.float32)
    right = (rng.standard_normal((K, COLUMNS)) * 0.03).astype(np.float16).astype(np.float32)
    start = time.perf_counter()
    _core.dot_chain(
        left,
        right,
        np.zeros((rows, COLUMNS), np.float32),
        products=unit.products,
        fraction_bits=unit.fraction_bits,
        half_out=half_out,
        zero_exponent=unit.zero_exponent,
        input_exponent=-14,
        fresh=fresh,
        isa=isa,
        repeat=repeat,
    )
    return time.perf_counter() - start


def measure(repeats: int) -> list[dict[str, object]]:
    """Median and spread of products/s per (profile, sums, instruction set, rows); preparation is taken off by
    difference. Other sums than plain fp32 ones are measured with the best instructions alone."""
    cases = [
        (name, kind, isa, rows)
        for name in ("a100", "h200")
        for kind in KINDS
        for isa in (instruction_sets() if kind == "fp32" else [_core.best_isa()])
        for rows in ROWS
    ]
    rates: dict[tuple[str, str, str, int], list[float]] = {case: [] for case in cases}
    for _ in range(repeats):
        for case in cases:  # the variants take turns
            name, kind, isa, rows = case
            many = 4 if isa == "portable" else 40
            work = seconds(name, kind, rows, isa, many + 1) - seconds(name, kind, rows, isa, 1)
            rates[case].append(many * rows * COLUMNS * K / work)
    print(f"{'profile':8}{'sums':12}{'isa':10}{'rows':>5}{'products/s':>14}{'spread':>20}")
    found = []
    for (name, kind, isa, rows), values in rates.items():
        kept = spread(values)
        print(f"{name:8}{kind:12}{isa:10}{rows:5}{kept['median']:14.3g}{kept['min']:10.3g} ..{kept['max']:8.3g}")
        found.append({"profile": name, "sums": kind, "isa": isa, "rows": rows, **kept})
    return found
