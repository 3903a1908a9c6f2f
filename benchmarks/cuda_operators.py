"""Times of the operators on a GPU at 8B shapes (hidden 4096, intermediate 12288, vocabulary 151,936), as JSON.

    PYTHONPATH=python python benchmarks/cuda_operators.py

Per case: median and range of repetitions in milliseconds between two events, bytes that must move at least, and the
rate that follows. Arrays of 8,067 tokens are larger than a GPU's caches; those of one token are not, and their times
are those of a launch and two events.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import numpy as np

from qforensics import _core
from qforensics._sfu import sfu_tables

TOKENS, HIDDEN, INTERMEDIATE, VOCABULARY, HEADS, KV_HEADS, HEAD = 8067, 4096, 12288, 151936, 32, 8, 128
LOGIT_ROWS = 1024
REPEAT = 20


def half(*shape: int, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(shape[-1])
    rows = rng.standard_normal((min(shape[0], 64), *shape[1:]), dtype=np.float32) * np.float32(scale)
    return np.resize(rows.astype(np.float16), shape).view(np.uint16)


def cases(tokens: int) -> list[tuple[str, str, tuple[Any, ...], int]]:
    """Name, operation, arguments, bytes."""
    x, qkv = half(tokens, HIDDEN), half(tokens, (HEADS + 2 * KV_HEADS) * HEAD)
    weight, head_weight, cache = half(HIDDEN), half(HEAD), half(tokens, HEAD)
    gate = half(tokens, 2 * INTERMEDIATE, scale=2)
    positions = np.arange(tokens)
    row = 2 * tokens
    turned = (HEADS + KV_HEADS) * HEAD * row * 2
    return [
        ("rms_norm", "rms_norm", ("fp16", x, weight, 1e-6), 2 * HIDDEN * row),
        ("fused_add_rms_norm", "fused_add_rms_norm", ("fp16", x, x, weight, 1e-6), 4 * HIDDEN * row),
        ("head norms of q and k", "head_norm", ("fp16", qkv, head_weight, 1e-6, 0, HEADS + KV_HEADS), turned),
        ("rotary of q and k", "rotary_heads", ("fp16", qkv, positions, cache, 0, HEADS + KV_HEADS), turned),
        ("silu_and_mul", "silu_and_mul", ("fp16", gate), 3 * INTERMEDIATE * row),
        ("embedding", "embedding", ("fp16", half(4096, HIDDEN), positions % 4096), 2 * HIDDEN * row),
    ]


def logit_cases(rows: int) -> list[tuple[str, str, tuple[Any, ...], int]]:
    logits = half(rows, VOCABULARY, scale=4)
    logprobs = np.tile(half(1, VOCABULARY).view(np.float16).astype(np.float32), (rows, 1))
    picked = np.arange(rows, dtype=np.int32)
    size = rows * VOCABULARY
    return [
        ("log_softmax", "log_softmax", ("fp16", logits), 6 * size),
        ("top_k 20", "top_k", (logprobs, 20), 4 * size),
        ("top_logprobs 20 and targets", "top_logprobs", ("fp16", logits, 20, picked, picked), 2 * size),
    ]


def main() -> None:
    rows = []
    tables = sfu_tables()
    _core.DeviceOperatorRuntime("fp32", 9, tables, own_sfu=False)  # starts the GPU
    for own in (True, False):
        start = time.perf_counter()
        runtime = _core.DeviceOperatorRuntime("vllm-0.21-eager", 9, tables, own_sfu=own, timed=REPEAT)
        print(f"own_sfu={own}: set up in {time.perf_counter() - start:.3f} s", file=sys.stderr)
        for count, work in ((TOKENS, cases(TOKENS)), (1, cases(1)), (LOGIT_ROWS, logit_cases(LOGIT_ROWS))):
            for name, operation, arguments, size in work:
                getattr(runtime, operation)(*arguments)
                times = sorted(runtime.milliseconds)
                median = statistics.median(times)
                rows.append({"case": name, "rows": count, "own_sfu": runtime.own_sfu, "ms": round(median, 5),
                             "range": [round(times[0], 5), round(times[-1], 5)], "bytes": size,
                             "TB_per_s": round(size / median / 1e9, 3)})  # fmt: skip
    print(json.dumps({"gpu": _core.gpu_info(0)["name"], "rows": rows}))


if __name__ == "__main__":
    main()
