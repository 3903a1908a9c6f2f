"""Microseconds of the native kernels, side by side with the originals; cold weights, CUDA graphs, one run, one table.

    python benchmarks/native_kernels.py [--original PATH] [--kernels awq tinygemm ...] [--models qwen3-8b ...]
                                        [--output results.json]

PATH is vLLM 0.21's `_C` library; it runs where torch 2.11 is. tinygemm's original is in torch itself. A graph holds one
call per copy of the weight (copies together are beyond the cache); medians of its replays over the number of copies.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qforensics import _core, plans
from qforensics._arrays import DTYPES

MODELS = {  # N, K; SmolLM2-135M as qforensics pads it (hidden 576 -> 768)
    "qwen3-8b": {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (24576, 4096), "down": (4096, 12288)},
    "llama-3-8b": {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)},
    "smollm2-135m-padded": {"qkv": (1280, 768), "o": (768, 768), "gate_up": (3072, 768), "down": (768, 1536)},
}
GROUP, COLD_BYTES, REPEATS, READ_BYTES_PER_SECOND = 128, 300e6, 20, 4.0e12
MOST_COPIES = 400
DTYPE = {"awq": "fp16", "tinygemm": "bf16", "exllama": "fp16", "cublas": "fp16", "machete": "fp16",
         "machete_zeros": "fp16", "hgemm": "fp16"}  # fmt: skip
U4, U4B8 = 1 << 50 | 4 << 8, 1 << 50 | 8 << 17 | 4 << 8  # vLLM's names of its types
ROWS = {
    "awq": [1, 2, 4, 8, 16, 32, 64, 256, 1024, 4096],
    "tinygemm": [1, 2, 4, 8, 16, 32, 64],
    "exllama": [1, 2, 4, 8, 16, 32, 50],
    "cublas": [64, 256, 1024, 4096],
    "machete": [1, 16, 64, 128, 256, 1024, 4096],
    "machete_zeros": [1, 16, 64, 128, 256, 1024, 4096],
    "hgemm": [64, 128, 256, 1024, 4096],
}


def copies_of(kernel: str, n: int, k: int) -> int:
    return min(MOST_COPIES, int(COLD_BYTES // (n * k * 2 if kernel == "cublas" else n * k // 2)) + 1)


def our_weight(kernel: str, n: int, k: int) -> Any:
    rng = np.random.default_rng(1)
    if kernel == "cublas":
        return _core.pack_dense((rng.random((n, k), np.float32) - 0.5).astype(np.float16).view(np.uint16), "fp16")
    codes = rng.integers(0, 16, (k, n), dtype=np.uint8)
    zeros = rng.integers(6, 10, (k // GROUP, n), dtype=np.uint8)
    if kernel == "machete":
        zeros[:] = 8
    scales = (rng.random((k // GROUP, n), np.float32) * 0.01 + 0.001).astype(DTYPES[DTYPE[kernel]])
    return _core.pack_codes(codes, zeros, scales.view(np.uint16), DTYPE[kernel], GROUP, None, None)


def our_times(kernel: str, weight: Any, m: int, n: int, k: int) -> list[float]:
    options = _core.KernelOptions()
    options.dense, group = kernel == "cublas", -1 if kernel == "cublas" else GROUP
    dtype, options.symmetric = DTYPE[kernel], kernel == "machete"
    if kernel == "hgemm":
        options.split = 0
    if kernel == "machete_zeros":
        kernel = "machete"
    if kernel == "awq" and m >= 256:  # one walk: the rule of awq, without the splits that cuBLAS takes at some shapes
        kernel = "cublas"
    rows = np.random.default_rng(m).standard_normal((m, k)).astype(DTYPES[dtype])
    plan = plans.make_plan(kernel, (m, n, k), group, "h200", dtype, options)
    copies = copies_of("cublas" if options.dense else kernel, n, k) if m <= 256 else 2
    return list(_core.time_gemm_native(plan._core_plan, weight, rows.view(np.uint16), copies, REPEATS, True))


class Originals:
    """The calls of vLLM and torch over random bits; `awq` and `gptq` only with vLLM's library."""

    def __init__(self, library: Path | None) -> None:
        import torch

        self.torch, self.has_vllm = torch, library is not None
        if library is not None:
            torch.ops.load_library(str(library))

    def serves(self, kernel: str) -> bool:
        return kernel in ("tinygemm", "cublas") or self.has_vllm

    def weights(self, kernel: str, n: int, k: int) -> list[Any]:
        return [getattr(self, f"_{kernel}_weight")(n, k) for _ in range(copies_of(kernel, n, k))]

    def _bits(self, *shape: int) -> Any:
        return self.torch.randint(-(2**31), 2**31 - 1, shape, dtype=self.torch.int32, device="cuda")

    def _scales(self, n: int, k: int) -> Any:
        return self.torch.rand((k // GROUP, n), device="cuda").half() * 0.01 + 0.001

    def _awq_weight(self, n: int, k: int) -> Any:
        return self._bits(k, n // 8), self._scales(n, k), self._bits(k // GROUP, n // 8)

    def _exllama_weight(self, n: int, k: int) -> Any:
        weight, order = self._bits(k // 8, n), self.torch.empty(0, dtype=self.torch.int32, device="cuda")
        self.torch.ops._C.gptq_shuffle(weight, order, 4)
        return weight, self._bits(k // GROUP, n // 8), self._scales(n, k), order

    def _tinygemm_weight(self, n: int, k: int) -> Any:
        codes = self._bits(n, k // 8).view(self.torch.uint8)
        numbers = self.torch.rand((k // GROUP, n, 2), device="cuda").bfloat16()
        return self.torch.ops.aten._convert_weight_to_int4pack(codes, 8), numbers

    def _cublas_weight(self, n: int, k: int) -> Any:
        return (self.torch.rand((n, k), device="cuda") - 0.5).half().t()

    def _machete_weight(self, n: int, k: int, zeros: bool = False) -> Any:
        fp16, kind = self.torch.float16, U4 if zeros else U4B8
        codes = self._bits(n, k // 8).t()
        packed = self.torch.ops._C.machete_prepack_B(codes, fp16, kind, fp16)
        scales = self._scales(n, k)
        return packed, kind, scales, (scales * -8 if zeros else None)

    def _machete_zeros_weight(self, n: int, k: int) -> Any:
        return self._machete_weight(n, k, zeros=True)

    def _hgemm_weight(self, n: int, k: int) -> Any:
        return self._exllama_weight(n, k)

    def call(self, kernel: str, rows: Any, weight: Any) -> Any:
        if kernel == "cublas":
            return self.torch.mm(rows, weight)
        if kernel == "awq" and len(rows) >= 256:
            return self.torch.mm(rows, self.torch.ops._C.awq_dequantize(*weight, 0, 0, 0))
        if kernel == "awq":
            return self.torch.ops._C.awq_gemm(rows, *weight, 8)
        if kernel.startswith("machete"):
            packed, kind, scales, zeros = weight
            out = self.torch.float16
            return self.torch.ops._C.machete_mm(rows, packed, kind, out, scales, zeros, GROUP, None, None, None)
        if kernel in ("exllama", "hgemm"):
            return self.torch.ops._C.gptq_gemm(rows, *weight, True, False, 4)
        return self.torch.ops.aten._weight_int4pack_mm(rows, weight[0], GROUP, weight[1])

    def times(self, kernel: str, weights: list[Any], m: int, k: int) -> list[float]:
        torch = self.torch
        rows = torch.randn((m, k), device="cuda").to(torch.bfloat16 if kernel == "tinygemm" else torch.float16)
        weights = weights if m <= 256 else weights[:2]
        work: Callable[[], list[Any]] = lambda: [self.call(kernel, rows, weight) for weight in weights]  # noqa: E731
        work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        graph.replay()
        out = []
        for _ in range(REPEATS):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            out.append(begin.elapsed_time(end) * 1e3 / len(weights))
        return out


def least_bytes(kernel: str, m: int, n: int, k: int) -> float:
    return (2 * n * k if kernel == "cublas" else n * k / 2 + n * k // GROUP * 2.5) + 2 * m * (n + k)


def measure(kernel: str, model: str, layer: str, originals: Originals | None) -> list[dict[str, Any]]:
    n, k = MODELS[model][layer]
    weight, rows = our_weight(kernel, n, k), []
    theirs = originals.weights(kernel, n, k) if originals is not None and originals.serves(kernel) else None
    for m in ROWS[kernel]:
        times = our_times(kernel, weight, m, n, k)
        row = {"kernel": kernel, "model": model, "layer": layer, "rows": m, "microseconds": statistics.median(times),
               "spread": max(times) / min(times)}  # fmt: skip
        row["roofline_fraction"] = least_bytes(kernel, m, n, k) / READ_BYTES_PER_SECOND * 1e6 / row["microseconds"]
        if originals is not None and theirs is not None:
            original = originals.times(kernel, theirs, m, k)
            row |= {"original": statistics.median(original), "original_spread": max(original) / min(original)}
            row["ratio"] = row["original"] / row["microseconds"]
        rows.append(row)
        row["tflops"] = 2e-6 * m * n * k / row["microseconds"]
        line = f"{kernel:9} {layer:8} {n}x{k} M {m:4} {row['microseconds']:8.2f} us"
        line += f" {row['roofline_fraction']:5.0%} of 4 TB/s {row['tflops']:6.1f} TFLOP/s  spread {row['spread']:.2f}"
        print(
            line + (f"  original {row['original']:8.2f} ratio {row['ratio']:5.2f}" if "ratio" in row else ""),
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path)
    parser.add_argument("--no-torch", action="store_true", help="ours alone")
    parser.add_argument("--kernels", nargs="+", default=list(DTYPE), choices=list(DTYPE))
    parser.add_argument("--models", nargs="+", default=["qwen3-8b"], choices=list(MODELS))
    parser.add_argument("--layers", nargs="+", default=list(MODELS["qwen3-8b"]), choices=list(MODELS["qwen3-8b"]))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    originals = None if arguments.no_torch else Originals(arguments.original)
    gpu = _core.gpu_info(0)
    print(gpu["name"])
    rows = [row for kernel in arguments.kernels for model in arguments.models for layer in arguments.layers
            for row in measure(kernel, model, layer, originals)]  # fmt: skip
    if arguments.output:
        arguments.output.write_text(json.dumps({"gpu": gpu["name"], "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
