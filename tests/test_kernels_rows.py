"""A part of a call's rows, computed alone, has the bits it has in the whole call."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from qforensics import _core, kernels
from qforensics.plans import make_plan

N, K, GROUP = 128, 1024, 128
CASES = [
    ("awq", 300, "fp16", {}), ("awq", 70, "fp16", {}), ("marlin", 70, "fp16", {}), ("machete", 150, "fp16", {}),
    ("hgemm", 70, "fp16", {"split": 0}), ("exllama", 40, "fp16", {}), ("tinygemm", 20, "bf16", {}),
    ("cublas", 600, "fp16", {"transposed": True, "split": 3}), ("fp32", 50, "fp32", {}),
    ("openvino", 50, "fp32", {"activation_group": 128}),
]  # fmt: skip


class Call:
    def __init__(self, kernel: str, dtype: str, options: dict[str, Any]) -> None:
        rng = np.random.default_rng(9)
        self.kernel, self.dtype, self.options = kernel, dtype, _core.KernelOptions()
        for name, value in options.items():
            setattr(self.options, name, value)
        codes = rng.integers(0, 16, (K, N), dtype=np.uint8)
        zeros = rng.integers(0, 16, (K // GROUP, N), dtype=np.uint8)
        floats = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp32": np.float16}[dtype]
        scales = ((0.5 + rng.random((K // GROUP, N))) / 64).astype(floats)
        scale_format = "bf16" if dtype == "bf16" else "fp16"
        self.weight = _core.pack_codes(codes, zeros, scales.view(np.uint16), scale_format, GROUP, None, None)
        self.runner = _core.KernelRunner(_core.best_isa(), 2)

    def activations(self, m: int) -> np.ndarray:
        values = np.random.default_rng(10).standard_normal((m, K)).astype(np.float32)
        if self.dtype == "fp32":
            return values
        return values.astype(np.float16 if self.dtype == "fp16" else ml_dtypes.bfloat16).view(np.uint16)

    def run(self, activations: np.ndarray, rows: tuple[int, int] | None = None) -> np.ndarray:
        plan = make_plan(self.kernel, (len(activations), N, K), GROUP, "h200", self.dtype, self.options)
        found = _core.emulate_gemm(
            plan._core_plan, self.weight, activations, None, self.runner, seed=5, deterministic=False, rows=rows
        )
        return np.asarray(found)


@pytest.mark.parametrize(("kernel", "m", "dtype", "options"), CASES)
def test_rows_have_the_bits_of_the_whole_call(kernel: str, m: int, dtype: str, options: dict[str, Any]) -> None:
    call = Call(kernel, dtype, options)
    activations = call.activations(m)
    whole = call.run(activations)
    assert whole.shape == (m, N)
    for first, count in ((0, m), (0, 1), (7, 9), (m - 1, 1), (m // 2, m - m // 2), (3, 0)):
        part = call.run(activations, (first, count))
        assert part.shape == (count, N)
        assert part.tobytes() == whole[first : first + count].tobytes(), (first, count)


def test_a_call_of_fewer_rows_is_another_call() -> None:
    """The negative control: awq's kernel changes with M, so rows of their own would have other bits."""
    call = Call("awq", "fp16", {})
    activations = call.activations(300)
    assert call.run(activations[:9].copy()).tobytes() != call.run(activations, (0, 9)).tobytes()


@pytest.mark.parametrize("rows", [(-1, 2), (0, 51), (50, 1), (51, 0), (0, -1)])
def test_rows_outside_the_call_are_refused(rows: tuple[int, int]) -> None:
    call = Call("fp32", "fp32", {})
    with pytest.raises(ValueError, match="rows"):
        call.run(call.activations(50), rows)


def test_marlin_invariant_rows_do_not_depend_on_the_batch() -> None:
    """In calls of their own, rows have the bits of a call of 70; Marlin's have not (negative control)."""
    rng = np.random.default_rng(11)
    n, k = 6144, 512
    inputs = (
        rng.standard_normal((70, k)).astype(np.float16),
        rng.integers(0, 16, (k, n), dtype=np.uint8),
        rng.integers(0, 16, (k // GROUP, n), dtype=np.uint8),
        ((0.5 + rng.random((k // GROUP, n))) / 64).astype(np.float16),
    )
    differing = {}
    for kernel in ("marlin_invariant", "marlin"):
        call: dict[str, Any] = {"group_size": GROUP, "device": "h200"}
        together = kernels.emulate(kernel, *inputs, **call).view(np.uint16)
        alone = [kernels.emulate(kernel, inputs[0][:m], *inputs[1:], **call).view(np.uint16) for m in (1, 5, 17, 64)]
        differing[kernel] = sum(int((part != together[: len(part)]).sum()) for part in alone)
    assert differing["marlin_invariant"] == 0
    assert differing["marlin"] > 0
