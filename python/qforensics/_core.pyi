from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

def __getattr__(name: str) -> Any: ...

class CoreError(ValueError): ...

# environment
build_info: dict[str, Any]

def best_isa() -> str: ...
def check_isa(name: str) -> str: ...

# kernels
class KernelOptions:
    fp32_reduce: bool
    symmetric: bool
    dense: bool
    bias: bool
    offsets: bool
    transposed: bool
    split: int
    inner_k_tiles: int
    activation_group: int

class DeviceNumbers:
    def __init__(self, numbers: dict[str, Any]) -> None: ...

class KernelPlan:
    kernel: str
    sentence: str
    m: int
    n: int
    k: int
    group: int
    facts: list[str]
    unconfirmed: list[str]
    regions: list[tuple[int, int, int, int, int]]
    trees: list[dict[str, Any]]
    def describe(self) -> str: ...

class PackedWeight:
    n: int
    k: int
    group: int
    nbytes: int
    def __copy__(self) -> PackedWeight: ...

class KernelRunner:
    def __init__(self, isa: str, threads: int) -> None: ...

def make_plan(
    kernel: str, m: int, n: int, k: int, group: int, format: str, device: DeviceNumbers, options: KernelOptions
) -> KernelPlan: ...
def pack_codes(
    codes: NDArray[np.uint8],
    zeros: NDArray[np.uint8],
    scales: NDArray[np.uint16],
    scale_format: str,
    group_size: int,
    offsets: NDArray[np.float32] | None,
    group_index: NDArray[np.int32] | None,
) -> PackedWeight: ...
@overload
def pack_dense(weight: NDArray[np.uint16], format: str) -> PackedWeight: ...
@overload
def pack_dense(weight: NDArray[np.float32]) -> PackedWeight: ...
def emulate_gemm(
    plan: KernelPlan,
    weight: PackedWeight,
    activations: NDArray[Any],
    bias: NDArray[Any] | None,
    runner: KernelRunner,
    seed: int,
    deterministic: bool,
    rows: tuple[int, int] | None = None,
) -> NDArray[Any]: ...
def dequantize_weight(plan: KernelPlan, weight: PackedWeight, runner: KernelRunner) -> NDArray[np.float32]: ...
def explain_race(
    plan: KernelPlan,
    weight: PackedWeight,
    activations: NDArray[np.uint16],
    outputs: NDArray[np.uint16],
    known: NDArray[np.uint8],
    runner: KernelRunner,
    tries: int,
    seed: int,
) -> dict[str, Any]: ...
def kernel_table() -> list[tuple[str, str, str]]: ...
def variant_table() -> list[tuple[str, str, str, str]]: ...
def resolve_variant(variant: str, gpu_class: str, engine: str, layer: tuple[int, int, int] | None = None) -> str: ...

# forensics
_Rows = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]

def compare_rows(first: _Rows, second: _Rows, *, rows: int, top_k: int, l2_top: int) -> dict[str, Any]: ...
def chosen_margin(rows: _Rows, row: int, chosen: int) -> float: ...
def first_divergence(first: NDArray[np.int32], second: NDArray[np.int32]) -> int: ...
def equivalence_classes(same: NDArray[np.uint8]) -> NDArray[np.int64]: ...
