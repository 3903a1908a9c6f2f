"""Products per second of the kernel emulator, per kernel, instruction set and profile, on one core. Prints JSON.

CPU time of the calling thread, so that other work on the machine changes it little; the best and the median of several
calls, kernels interleaved. Weights are larger than the caches unless --small is given.
"""

import argparse
import json
import statistics
import time
from typing import Any

import ml_dtypes
import numpy as np

from qforensics import _core, environment, kernels, plans

ROWS = (1, 4, 40)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", nargs="+", default=[name for name in kernels.names() if name != "openvino"])
    parser.add_argument("--devices", nargs="+", default=["h200", "a100"])
    parser.add_argument("--isa", nargs="+", default=[_core.best_isa()])
    parser.add_argument("--small", action="store_true", help="1024 x 1024 instead of 4096 x 4096")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    size = 1024 if args.small else 4096
    chosen = [plans.kernel_name(name) for name in args.kernels]
    cases = {
        (k, d, i, m): prepared(k, m, size, d) for k in chosen for d in args.devices for i in args.isa for m in ROWS
    }
    runners = {isa: _core.KernelRunner(isa, 1) for isa in args.isa}
    seconds: dict[tuple[str, str, str, int], list[float]] = {case: [] for case in cases}
    for _ in range(args.repeats + 1):
        for case, (plan, weight, activations) in cases.items():
            start = time.thread_time()
            _core.emulate_gemm(plan, weight, activations, None, runners[case[2]], 0, False)
            seconds[case].append(time.thread_time() - start)
    results = []
    for (kernel, device, isa, rows), times in seconds.items():
        products, kept = rows * size * size, times[1:]  # the first call warms up
        results.append(
            {
                "kernel": kernel,
                "device": device,
                "isa": isa,
                "rows": rows,
                "size": size,
                "products_per_second": products / min(kept),
                "median_products_per_second": products / statistics.median(kept),
            }
        )
    print(
        json.dumps(
            {
                "environment": environment.capture_environment(threads=1).to_json(),
                "results": results,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
