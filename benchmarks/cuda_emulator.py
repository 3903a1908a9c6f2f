"""Products per second of the CUDA emulator, per scheme, emulated device and number of rows; one run, one table.

python benchmarks/cuda_emulator.py [--output results.json]
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from provenance import provenance

from qforensics import _core, plans

SHAPES = {"one walk 4096x4096": ("cublas", 4096, 4096), "marlin gate_up 24576x4096": ("marlin", 24576, 4096)}
ROWS = [1, 8, 16, 64, 256, 2048]


def operands(kernel: str, m: int, n: int, k: int, device: str, dtype: str) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(1)
    number = ml_dtypes.bfloat16 if dtype == "bf16" else np.float16
    x = rng.standard_normal((m, k)).astype(number)
    options = _core.KernelOptions()
    if kernel == "cublas":
        weight = (rng.standard_normal((n, k)) * 0.02).astype(number)
        packed, group, options.dense = _core.pack_dense(weight.view(np.uint16), dtype), -1, True
    else:
        codes = rng.integers(0, 16, (k, n), dtype=np.uint8)
        scales = (rng.random((k // 128, n)) * 0.01 + 0.001).astype(number)
        zeros = np.full((k // 128, n), 8, np.uint8)
        packed, group = _core.pack_codes(codes, zeros, scales.view(np.uint16), dtype, 128, None, None), 128
    plan = plans.make_plan(kernel, (m, n, k), group, device, dtype, options)
    return plan._core_plan, packed, x.view(np.uint16)


def measure(shape: str, m: int, device: str, scheme: str | None, dtype: str) -> dict[str, Any]:
    kernel, n, k = SHAPES[shape]
    times = _core.time_gemm_cuda(*operands(kernel, m, n, k, device, dtype), scheme, 5 if m <= 256 else 3)
    median = statistics.median(times)
    return {
        "shape": shape,
        "rows": m,
        "device": device,
        "scheme": scheme or "auto",
        "dtype": dtype,
        "milliseconds": median,
        "spread": max(times) / min(times),
        "products_per_second": m * n * k / median * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows = [measure(shape, m, device, None, "fp16") for shape in SHAPES for m in ROWS for device in ("a100", "h200")]
    rows += [measure("one walk 4096x4096", 256, "a100", scheme, "fp16") for scheme in ("pinned", "definition")]
    rows += [measure("one walk 4096x4096", 256, device, None, "bf16") for device in ("a100", "h200")]
    rows.append(measure("one walk 4096x4096", 256, "v100", None, "fp16"))
    gpu = _core.gpu_info(0)
    print(f"{gpu['name']}; kernels.emulate with executor='cuda', dequantization included")
    for row in rows:
        print(f"{row['shape']:28} M {row['rows']:5} {row['device']:5} {row['dtype']} {row['scheme']:10} "
              f"{row['milliseconds']:9.3f} ms  {row['products_per_second']:.2e} products/s")  # fmt: skip
    if arguments.output:
        arguments.output.write_text(json.dumps({**provenance(), "gpu": gpu["name"], "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
