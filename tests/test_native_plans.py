"""Which plans the native kernels serve: decided without a GPU."""

from typing import Any

import pytest

from qforensics import _core, plans

pytestmark = pytest.mark.skipif(not _core.built_with_cuda, reason="this build has no CUDA code")


def served(kernel: str, m: int = 4, device: str = "h200", dtype: str = "fp16", group: int = 128, capability: int = 90,
           k: int = 1024, **options: Any) -> tuple[str | None, str]:  # fmt: skip
    chosen = _core.KernelOptions()
    for name, value in options.items():
        setattr(chosen, name, value)
    plan = plans.make_plan(kernel, (m, 512, k), group, device, dtype, chosen)
    name, why = _core.native_kernel_for(plan._core_plan, capability)
    return name, why


@pytest.mark.parametrize(
    ("kernel", "call", "name"),
    [
        ("awq", {}, "awq"),
        ("awq", {"m": 255, "group": -1}, "awq"),
        ("awq", {"m": 256}, "one_walk"),
        ("awq", {"device": "a100", "capability": 80}, "awq"),
        ("tinygemm", {"dtype": "bf16"}, "tinygemm"),
        ("tinygemm", {"dtype": "bf16", "k": 1024 + 96, "group": -1, "inner_k_tiles": 2}, "tinygemm"),
        ("exllama", {"m": 50}, "exllama"),
        ("exllama", {"device": "v100", "capability": 80}, "exllama"),
        ("exllama", {"m": 51}, "hgemm"),
        ("hgemm", {"m": 300, "split": 3}, "hgemm"),
        ("machete", {"m": 1}, "machete"),
        ("machete", {"m": 300, "symmetric": True, "dtype": "bf16", "group": -1, "k": 64}, "machete"),
        ("machete", {"device": "h100 pcie", "group": 64}, "machete"),
        ("cublas", {"split": 1}, "one_walk"),
        ("cublas", {"split": 1, "dense": True, "dtype": "bf16", "group": -1}, "one_walk"),
    ],
)
def test_served(kernel: str, call: dict[str, Any], name: str) -> None:
    assert served(kernel, **call) == (name, "")


@pytest.mark.parametrize(
    ("kernel", "call", "why"),
    [
        ("awq", {"device": "a100"}, "the plan's unit fuses 8 products with 24 fraction bits, this GPU's 16 with 25"),
        ("awq", {"device": "v100", "capability": 80}, "the plan's unit fuses 4 products"),
        ("awq", {"capability": 75}, "needs compute capability 80, the GPU has 75"),
        ("awq", {"k": 960, "group": 96}, "takes groups of 32, 64, 128, ... or one group"),
        ("exllama", {"m": 51, "group": 32}, "exllama: serves exllama up to 50 rows only"),
        ("exllama", {"m": 51, "group": 32}, "hgemm: takes groups of multiples of 64, the plan's are 32"),
        ("hgemm", {"k": 1024 + 32, "group": -1}, "hgemm: takes K of a multiple of 64"),
        ("machete", {"device": "a100"}, "machete: the plan's unit fuses 8 products with 24 fraction bits"),
        ("machete", {"capability": 80}, "machete: needs compute capability 90"),
        ("marlin", {"m": 16, "capability": 89}, "machete: needs compute capability 90"),
        ("cublas", {"split": 2}, "one_walk: the plan adds in another order"),
        ("cublas", {"split": 1, "device": "a100", "capability": 80}, "one_walk: needs compute capability 90"),
    ],
)
def test_refused(kernel: str, call: dict[str, Any], why: str) -> None:
    name, reasons = served(kernel, **call)
    assert name is None
    assert why in reasons


def test_every_line_has_a_kernel() -> None:
    table = _core.native_kernel_table()
    assert {name for name, _, _ in table} >= {"awq", "tinygemm", "exllama", "one_walk", "machete", "hgemm"}
    assert all(capability >= 80 and summary for _, capability, summary in table)
