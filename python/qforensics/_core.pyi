from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

_F32 = NDArray[np.float32]
_U16 = NDArray[np.uint16]
_U8 = NDArray[np.uint8]

class CoreError(ValueError): ...

# environment
build_info: dict[str, Any]

def best_isa() -> str: ...
def check_isa(name: str) -> str: ...

# numerics
def encode_fp16(x: _F32) -> _U16: ...
def encode_bf16(x: _F32) -> _U16: ...
def encode_e4m3(x: _F32) -> _U8: ...
def encode_e5m2(x: _F32) -> _U8: ...
def decode_fp16(codes: _U16) -> _F32: ...
def decode_bf16(codes: _U16) -> _F32: ...
def decode_e4m3(codes: _U8) -> _F32: ...
def decode_e5m2(codes: _U8) -> _F32: ...
def round_to_tf32(x: _F32) -> _F32: ...
def truncate_to_tf32(x: _F32) -> _F32: ...
def device_profiles() -> list[dict[str, Any]]: ...
def find_device(name: str) -> str: ...
def find_unit(*, device: str, path: str, dtype: str, out: str) -> dict[str, Any]: ...
def first_unrepresentable(format: str, values: _F32) -> int: ...
def dot_add_device(
    a: _F32, b: _F32, c: _F32, *, device: str, path: str, dtype: str, out: str, on_gpu: bool
) -> _F32: ...
def dot_add_unit(
    a: _F32,
    b: _F32,
    c: _F32,
    *,
    products: int,
    fraction_bits: int,
    rounding: str,
    zero_exponent: int,
    input_exponent: int,
    on_gpu: bool,
) -> _F32: ...
def dot_add_int8(a: _F32, b: _F32, c: NDArray[np.int32], *, on_gpu: bool) -> NDArray[np.int32]: ...
def dot_chain(
    rows: _F32,
    columns: _F32,
    c: _F32,
    *,
    products: int,
    fraction_bits: int,
    half_out: bool,
    zero_exponent: int,
    input_exponent: int,
    fresh: bool,
    isa: str,
    repeat: int,
) -> _F32: ...
def cuda_logf(x: _F32) -> _F32: ...
def cuda_sinf(x: _F32) -> _F32: ...
def cuda_cosf(x: _F32) -> _F32: ...

class SfuTables:
    has_lg2: bool
    nbytes: int
    def __init__(self, *, ex2: bytes, rcp: bytes, rsqrt: bytes, lg2: bytes = b"", lg2_below: bytes = b"") -> None: ...
    def with_lg2(self, planes: bytes, *, below: bool) -> SfuTables: ...
    def ex2(self, x: _F32) -> _F32: ...
    def rcp(self, x: _F32) -> _F32: ...
    def rsqrt(self, x: _F32) -> _F32: ...
    def lg2(self, x: _F32) -> _F32: ...
    def expf(self, x: _F32) -> _F32: ...
    def add_expf(self, x: _F32, c: float) -> _F32: ...
    def powf(self, x: _F32, y: float) -> _F32: ...
    def rsqrtf(self, x: _F32) -> _F32: ...
    def rope_cache(
        self,
        *,
        theta: float,
        dim: int,
        positions: int,
        factor: float = 1.0,
        low_freq_factor: float = 1.0,
        high_freq_factor: float = 4.0,
        original_max_position: float = 8192.0,
    ) -> _F32: ...

# operators
class KeyValuePanels:
    keys: int
    def __init__(self, kv_heads: int, head_size: int) -> None: ...
    def truncate(self, keys: int) -> None: ...

class _OperatorCalls:
    def choose(self, operator: str, definition: str) -> None: ...
    def embedding(self, dtype: str, table: NDArray[Any], ids: NDArray[np.int64]) -> NDArray[Any]: ...
    def rms_norm(self, dtype: str, x: NDArray[Any], weight: NDArray[Any], epsilon: float) -> NDArray[Any]: ...
    def fused_add_rms_norm(
        self, dtype: str, x: NDArray[Any], residual: NDArray[Any], weight: NDArray[Any], epsilon: float
    ) -> tuple[NDArray[Any], NDArray[Any]]: ...
    def rotary_cache(
        self,
        dtype: str,
        theta: float,
        head_size: int,
        positions: int,
        factor: float,
        low_freq_factor: float,
        high_freq_factor: float,
        original_max_position: float,
    ) -> NDArray[Any]: ...
    def rotary(
        self, dtype: str, x: NDArray[Any], positions: NDArray[np.int64], cache: NDArray[Any]
    ) -> NDArray[Any]: ...
    def silu_and_mul(self, dtype: str, x: NDArray[Any]) -> NDArray[Any]: ...
    def log_softmax(self, dtype: str, logits: NDArray[Any]) -> _F32: ...
    def top_k(self, logprobs: NDArray[Any], k: int) -> tuple[NDArray[np.int32], _F32]: ...
    def head_norm(
        self, dtype: str, x: NDArray[Any], weight: NDArray[Any], epsilon: float, head_size: int, heads: int
    ) -> NDArray[Any]: ...
    def rotary_heads(self, *arguments: Any) -> NDArray[Any]: ...

class OperatorRuntime(_OperatorCalls):
    unconfirmed: list[str]
    def __init__(self, profile: str, compute_major: int, tables: SfuTables | None, isa: str, threads: int) -> None: ...
    def attention(
        self,
        dtype: str,
        q: Sequence[NDArray[Any]],
        k: Sequence[NDArray[Any]],
        v: Sequence[NDArray[Any]],
        scale: float,
        sm_count: int,
        products: int,
        fraction_bits: int,
        zero_exponent: int,
        panels: Sequence[KeyValuePanels],
    ) -> list[NDArray[Any]]: ...

class DeviceOperatorRuntime(_OperatorCalls):
    own_sfu: bool
    milliseconds: list[float]
    def __init__(
        self, profile: str, compute_major: int, tables: SfuTables | None, own_sfu: bool, timed: int = 0
    ) -> None: ...
    def attention(
        self,
        dtype: str,
        q: Sequence[NDArray[Any]],
        k: Sequence[NDArray[Any]],
        v: Sequence[NDArray[Any]],
        scale: float,
        sm_count: int,
        products: int,
        fraction_bits: int,
        zero_exponent: int,
        scheme: str | None = None,
        workspace: int | None = None,
    ) -> list[NDArray[Any]]: ...
    def top_logprobs(
        self, dtype: str, logits: NDArray[Any], k: int, rows: NDArray[np.int32], ids: NDArray[np.int32]
    ) -> tuple[NDArray[Any], ...]: ...

def attention_scheme(products: int, fraction_bits: int, compute_capability: int) -> str: ...
def attention_whole_keys(definition: str, head_size: int) -> int: ...
def attention_splits(
    definition: str, *, queries: int, keys: int, heads: int, kv_heads: int, head_size: int, sm_count: int
) -> int: ...
def operator_profiles() -> list[str]: ...
def operator_definitions() -> list[tuple[str, str, str]]: ...

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
    def copy(self) -> PackedWeight: ...

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
def emulate_leaves(
    plan: KernelPlan,
    weight: PackedWeight,
    activations: NDArray[Any],
    runner: KernelRunner,
    half_window: str = "where_cheap",
) -> NDArray[np.float32]: ...
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

# CUDA; the last three only in a build with device code
built_with_cuda: bool
default_workspace: int

def gpu_count() -> int: ...
def why_no_gpu() -> str: ...
def gpu_info(index: int) -> dict[str, Any]: ...
def emulate_gemm_cuda(
    plan: KernelPlan,
    weight: PackedWeight,
    activations: NDArray[Any],
    bias: NDArray[Any] | None,
    seed: int,
    deterministic: bool,
    scheme: str | None,
    workspace: int,
    rows: tuple[int, int] | None = None,
) -> NDArray[Any]: ...
def require_faithful_gpu(index: int) -> None: ...
def step_scheme(products: int, fraction_bits: int, compute_capability: int) -> str: ...
def step_test(
    products: int,
    fraction_bits: int,
    zero_exponent: int,
    half_output: bool,
    input_exponent: int,
    scheme: str,
    inputs: int,
    seed: int,
    outputs: int,
) -> tuple[int, int, int, int]: ...
def time_gemm_cuda(
    plan: KernelPlan, weight: PackedWeight, activations: NDArray[Any], scheme: str | None, repeats: int
) -> list[float]: ...

# native kernels
def native_kernel_table() -> list[tuple[str, int, str]]: ...
def native_kernel_for(plan: KernelPlan, compute_capability: int) -> tuple[str | None, str]: ...
def emulate_gemm_native(
    plan: KernelPlan,
    weight: PackedWeight,
    activations: NDArray[Any],
    bias: NDArray[Any] | None,
    seed: int,
    deterministic: bool,
) -> NDArray[Any]: ...
def time_gemm_native(
    plan: KernelPlan, weight: PackedWeight, activations: NDArray[Any], copies: int, repeats: int, deterministic: bool
) -> list[float]: ...

# forensics
_Rows = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]

def compare_rows(first: _Rows, second: _Rows, *, rows: int, top_k: int, l2_top: int) -> dict[str, Any]: ...
def chosen_margin(rows: _Rows, row: int, chosen: int) -> float: ...
def first_divergence(first: NDArray[np.int32], second: NDArray[np.int32]) -> int: ...
def equivalence_classes(same: NDArray[np.uint8]) -> NDArray[np.int64]: ...
