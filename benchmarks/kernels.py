"""Products per second of the kernel emulator, per kernel and profile, on one core with its best instruction set.

CPU time of the calling thread, so that other work on the machine changes it little; the kernels take turns. Weights of
4096 x 4096 are larger than the caches.
"""

from __future__ import annotations

import time
from typing import Any

import ml_dtypes
import numpy as np
from provenance import spread

from qforensics import _core, environment, kernels, plans

ROWS = (1, 4, 40)
DEVICES = ("h200", "a100")


def prepared(kernel: str, rows: int, size: int, device: str) -> tuple[Any, Any, np.ndarray]:
    rng = np.random.default_rng(0)
    dtype = ml_dtypes.bfloat16 if kernel == "tinygemm" else np.float16
    name = "bf16" if kernel == "tinygemm" else "fp16"
    codes = rng.integers(0, 16, (size, size), dtype=np.uint8)
    zeros = np.full((size // 128, size), 7, np.uint8)
    scales = ((0.5 + rng.random((size // 128, size))) / 64).astype(dtype)
    weight = _core.pack_codes(codes, zeros, scales.view(np.uint16), name, 128, None, None)
    plan = kernels.plan(kernel, (rows, size, size), group_size=128, device=device)
    return plan._core_plan, weight, rng.standard_normal((rows, size)).astype(dtype).view(np.uint16)


def cases() -> list[tuple[str, str, int]]:
    """(kernel, profile, rows); Machete is a Hopper kernel, and openvino takes float32 activations."""
    names = [plans.kernel_name(name) for name in kernels.names() if name != "openvino"]
    every = [(name, device, rows) for name in names for device in DEVICES for rows in ROWS]
    return [case for case in every if case[:2] != ("machete", "a100")]


def measure(*, quick: bool) -> dict[str, Any]:
    """Median, smallest and largest products/s of several calls per case; the first call warms up."""
    size, repeats = (1024, 3) if quick else (4096, 7)
    isa = environment.selected_isa()
    runner = _core.KernelRunner(isa, 1)
    ready = {case: prepared(case[0], case[2], size, case[1]) for case in cases()}
    rates: dict[tuple[str, str, int], list[float]] = {case: [] for case in ready}
    for _ in range(repeats + 1):
        for case, (plan, weight, activations) in ready.items():
            start = time.thread_time()
            _core.emulate_gemm(plan, weight, activations, None, runner, 0, False)
            rates[case].append(case[2] * size * size / (time.thread_time() - start))
    found = []
    print(f"{'kernel':10}{'profile':8}{'rows':>5}{'products/s':>14}{'spread':>20}")
    for (kernel, device, rows), values in rates.items():
        kept = spread(values[1:])
        print(f"{kernel:10}{device:8}{rows:5}{kept['median']:14.3g}{kept['min']:10.3g} ..{kept['max']:8.3g}")
        found.append({"kernel": kernel, "profile": device, "rows": rows, **kept})
    return {"isa": isa, "size": size, "cases": found}
