"""Every CUDA operator once or twice over small arrays, for compute-sanitizer:

export PYTHONPATH=python:tests:tests/gpu
for tool in memcheck racecheck initcheck synccheck; do
  compute-sanitizer --tool $tool --error-exitcode 9 python tests/gpu/sanitize_operators.py
done
"""

import numpy as np
from test_cuda_attention import UNITS, sequence
from test_cuda_operators import FORMS, both, gpu, numbers, same

from qforensics import _core
from qforensics._sfu import sfu_tables


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


def attention(profile: str, compute_major: int, dtype: str, unit: str) -> None:
    tables = sfu_tables(lg2=True)
    device = _core.DeviceOperatorRuntime(profile, compute_major, tables, own_sfu=False)
    host = _core.OperatorRuntime(profile, compute_major, tables, _core.best_isa(), 8)
    lengths = [(1, 1500), (20, 30), (3, 90)]  # the first one's keys are split
    batch = [sequence("normal", FORMS[dtype], q, k, (4, 2), 64, k) for q, k in lengths]
    arrays = [[s[i] if dtype == "fp32" else s[i].view(np.uint16) for s in batch] for i in range(3)]
    numbers, sm_count = UNITS[unit]
    call = (dtype, *arrays, 0.125, sm_count, *numbers)
    for found, wanted in zip(device.attention(*call), host.attention(*call, []), strict=True):
        same(found, wanted)


if __name__ == "__main__":
    vllm("fp16")
    vllm("bf16")
    fp32()
    for half in ("fp16", "bf16"):
        attention("vllm-0.21-eager", 8, half, "a100")
        attention("vllm-0.21-eager", 9, half, "h200")
    attention("fp32", 9, "fp32", "h200")
    print("done")
