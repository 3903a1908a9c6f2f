"""Every CUDA operator once or twice over small arrays, for compute-sanitizer:

export PYTHONPATH=python:tests:tests/gpu
for tool in memcheck racecheck initcheck synccheck; do
  compute-sanitizer --tool $tool --error-exitcode 9 python tests/gpu/sanitize_operators.py
done
"""

import numpy as np
from test_cuda_operators import both, gpu, numbers


def vllm(dtype: str) -> None:
    for rows, columns in [(3, 768), (257, 40), (2, 4096), (2, 30)]:
        x, weight = numbers(dtype, "normal", (rows, columns)), numbers(dtype, "normal", (columns,))
        both("tables", "vllm-0.21-eager", "rms_norm", dtype, x, weight, 1e-6)
        both("tables", "vllm-0.21-eager", "fused_add_rms_norm", dtype, x, x, weight, 1e-6)
        both("tables", "vllm-0.21-eager", "silu_and_mul", dtype, x)
        both("tables", "vllm-0.21-eager", "embedding", dtype, x, np.array([0, 1, 1]))
    cache = both("tables", "vllm-0.21-eager", "rotary_cache", dtype, 1e5, 64, 40, 1.0, 1.0, 4.0, 8192.0)[0]
    heads = numbers(dtype, "normal", (7, 5, 64))
    both("tables", "vllm-0.21-eager", "rotary", dtype, heads, np.arange(7), cache)
    weight = numbers(dtype, "normal", (64,))
    both("tables", "vllm-0.21-eager", "head_norm", dtype, heads.reshape(7, -1), weight, 1e-6, 64, 3)
    for columns in (9003, 500):
        logits = numbers(dtype, "normal", (2, columns))
        logprobs = both("tables", "vllm-0.21-eager", "log_softmax", dtype, logits)[0]
        both("tables", "vllm-0.21-eager", "top_k", logprobs, 20)
        both("tables", "vllm-0.21-eager", "top_k", np.round(logprobs), 400)  # ties: the way digit by digit
        gpu("tables").top_logprobs(dtype, logits, 20, np.array([0, 1], np.int32), np.array([5, 7], np.int32))


def fp32() -> None:
    x, weight = numbers("fp32", "normal", (3, 1500)), numbers("fp32", "normal", (1500,))
    both("tables", "fp32", "rms_norm", "fp32", x, weight, 1e-6)
    both("tables", "fp32", "fused_add_rms_norm", "fp32", x, x, weight, 1e-6)
    both("tables", "fp32", "silu_and_mul", "fp32", x)
    both("tables", "fp32", "log_softmax", "fp32", x)
    cache = both("tables", "fp32", "rotary_cache", "fp32", 1e5, 64, 40, 1.0, 1.0, 4.0, 8192.0)[0]
    both("tables", "fp32", "rotary", "fp32", numbers("fp32", "normal", (7, 5, 64)), np.arange(7), cache)


if __name__ == "__main__":
    vllm("fp16")
    vllm("bf16")
    fp32()
    print("done")
