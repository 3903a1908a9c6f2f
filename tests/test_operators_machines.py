"""Neither the instruction set nor the number of threads is part of a result, special values included."""

import numpy as np
import pytest
from ml_dtypes import bfloat16

from qforensics import _core
from qforensics._sfu import sfu_tables

ORDER = ["portable", "avx2", "avx512"]
MACHINES = [(isa, threads) for isa in ORDER[: ORDER.index(_core.best_isa()) + 1] for threads in (1, 3)]


def runtime(isa: str, threads: int, profile: str = "vllm-0.21-eager") -> _core.OperatorRuntime:
    return _core.OperatorRuntime(profile, 9, sfu_tables(lg2=True), isa, threads)


def every_pattern(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Rows that hold every 16-bit pattern, Inf and NaN included."""
    return np.stack([rng.permutation(1 << 16).astype(np.uint16) for _ in range(rows)])


def outputs(isa: str, threads: int, dtype: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    run = runtime(isa, threads)
    form = np.float16 if dtype == "fp16" else bfloat16
    finite = lambda *shape: rng.standard_normal(shape).astype(form).view(np.uint16)  # noqa: E731
    patterns = every_pattern(rng, 2)
    found = {
        "silu": run.silu_and_mul(dtype, patterns),
        "rms_norm": run.rms_norm(dtype, finite(9, 780), finite(780), 1e-6),
        "log_softmax": run.log_softmax(dtype, finite(5, 9001)),
        "rotary": run.rotary(
            dtype,
            patterns.reshape(-1, 4, 64),
            np.arange(512),
            run.rotary_cache(dtype, 1e4, 64, 512, 1.0, 1.0, 4.0, 8192),
        ),
    }
    found["fused"], found["residual"] = run.fused_add_rms_norm(dtype, finite(7, 96), finite(7, 96), finite(96), 1e-6)
    found["ids"], found["values"] = run.top_k(found["log_softmax"], 50)
    q, k, v = finite(37, 6, 64), finite(211, 2, 64), finite(211, 2, 64)
    k[5, 1, 3] = 0x7C00 if dtype == "fp16" else 0x7F80  # Inf in one key: its scores are Inf, their rows NaN
    found["attention"] = run.attention(dtype, [q], [k], [v], 0.2, 132, 16, 25, -133, [])[0]
    return found


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_results_do_not_depend_on_the_machine(dtype: str) -> None:
    first = outputs(*MACHINES[0], dtype)
    form = np.float16 if dtype == "fp16" else bfloat16
    assert np.isnan(first["attention"].view(form).astype(np.float32)).any()
    for machine in MACHINES[1:]:
        for name, found in outputs(*machine, dtype).items():
            np.testing.assert_array_equal(found.view(np.uint8), first[name].view(np.uint8), err_msg=f"{name} {machine}")
