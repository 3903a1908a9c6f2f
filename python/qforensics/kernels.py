"""Emulated quantized GEMM kernels: the bits that a named kernel gives on a named GPU."""

from __future__ import annotations

import functools
import secrets
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from qforensics import _core
from qforensics._arrays import DTYPES, FLOATS, FORMATS, integers, require_dtype, to_bits
from qforensics.devices import DeviceProfile
from qforensics.environment import selected_isa, selected_threads
from qforensics.plans import (
    Plan,
    device_numbers,
    kernel_name,
    kernel_options,
    make_plan,
    names,
    plan,
    resolve,
    variants,
)

__all__ = [
    "Plan",
    "RaceExplanation",
    "dequantize",
    "device_numbers",
    "emulate",
    "explain_race",
    "names",
    "plan",
    "resolve",
    "variants",
]

_EXECUTORS = ("cpu", "cuda")
_TRIES = 200_000


@dataclass(frozen=True)
class RaceExplanation:
    """What orders of atomics explain recorded outputs of the exllama kernel.

    `reach` [M, N]: 0 undecided, 1 explained (reached), 2 refuted. Up to 8 blocks units of (row, 64 columns, parity of
    column // 2) were decided as a whole: `orders` [M, ceil(N / 64), 2] counts the orders that give all outputs of the
    unit (the first two addends commute and count once), `first` [..., blocks] is the first of them. Beyond 8 blocks
    both are None and outputs were searched one by one.
    """

    blocks: int
    reach: NDArray[np.uint8]
    orders: NDArray[np.int64] | None
    first: NDArray[np.int8] | None

    @property
    def explained(self) -> bool:
        return bool((self.reach == 1).all())

    @property
    def refuted(self) -> bool:
        return bool((self.reach == 2).any())

    def __repr__(self) -> str:
        counts = np.bincount(self.reach.ravel(), minlength=3)
        words = f"{counts[1]} outputs explained, {counts[2]} refuted, {counts[0]} undecided"
        return f"RaceExplanation({self.blocks} blocks, {words})"


def emulate(
    kernel: str,
    activations: NDArray[Any],
    codes: NDArray[np.uint8],
    zeros: NDArray[np.uint8],
    scales: NDArray[np.float16],
    *,
    group_size: int,
    device: DeviceProfile | str,
    seed: int | None = None,
    deterministic: bool = False,
    isa: str | None = None,
    threads: int | None = None,
    executor: str = "cpu",
    scheme: str | None = None,
    bias: NDArray[Any] | None = None,
    offsets: NDArray[np.float32] | None = None,
    group_index: NDArray[np.int32] | None = None,
    **options: Any,
) -> NDArray[Any]:
    """activations @ ((codes - zeros) * scales) with the bits of `kernel` on `device`.

    Parameters
    ----------
    kernel : a name of `names()`, or the operator's own: gptq, gptq_marlin, awq_marlin, pytorch_int4, awq_dequantize.
    activations : [M, K] float16 or ml_dtypes.bfloat16 (float32 for `fp32` and `openvino`).
    codes : [K, N] uint8, 0..15.
    zeros : [K / G, N] uint8.
    scales : [K / G, N] float16; rounded to bfloat16 where the activations are.
    group_size : G, or -1 for one group.
    seed : draws the order of racing atomics (exllama); None draws a new one.
    deterministic : atomics land in ascending order.
    isa, threads : how to compute, never what; by default $QFORENSICS_ISA or the machine's best, and the CPUs that this
        process may use.
    executor : "cpu", or "cuda": the first GPU of this machine. The same bits. awq_dequantize has "cpu" only.
    scheme : how the GPU takes a matrix unit's steps: "native", "pinned" or "definition"; by default the fastest that
        gives the unit's bits there (csrc/numerics/cuda/scheme.h). One that does not is for negative controls.
    bias : [N] in the activations' dtype.
    offsets : [K / G, N] float32, weight = (code - zero) * scale + offset.
    group_index : [K], the group of each row (GPTQ act-order).
    options : fp32_reduce (marlin), split (cublas, awq, exllama, hgemm: a number of parts or "auto"), layout ("kn" or
        "nk", cublas), inner_k_tiles (tinygemm), activation_group (openvino: int8 activations), symmetric (zeros are 8).

    Returns
    -------
    [M, N] in the activations' dtype ([K, N] weights for awq_dequantize).
    """
    if executor not in _EXECUTORS:
        raise ValueError(f"unknown executor {executor!r}; one of: {', '.join(_EXECUTORS)}")
    if kernel == "awq_dequantize" and executor != "cpu":
        raise ValueError(f"awq_dequantize is no GEMM and has one executor, 'cpu'; found {executor!r}")
    if scheme is not None and executor != "cuda":
        raise ValueError(f"scheme {scheme!r}: only the executor 'cuda' has schemes, found {executor!r}")
    name = kernel_name(kernel)
    chosen = kernel_options(kernel, name, options)
    if options.get("symmetric") and not (np.asarray(zeros) == 8).all():
        raise ValueError("symmetric=True, but zeros hold other values than 8")
    chosen.bias, chosen.offsets = bias is not None, offsets is not None
    dtype = FORMATS[require_dtype("activations", activations, *FLOATS).dtype]
    k, n = _shape("codes", codes)
    if _shape("activations", activations)[1] != k:
        raise ValueError(f"activations: expected [M, {k}] to match codes {codes.shape}, found {activations.shape}")
    if name == "cublas" and dtype == "bf16":  # torch.mm takes numbers: fp16 dequantization, then the cast to bf16
        fp16 = make_plan("cublas", (1, n, k), group_size, device, "fp16", _core.KernelOptions())
        packed = _pack_codes(codes, zeros, scales, "fp16", group_size, offsets, group_index)
        numbers = _core.dequantize_weight(fp16._core_plan, packed, _runner(isa, threads)).astype(ml_dtypes.bfloat16)
        chosen.dense, weight = True, _core.pack_dense(np.ascontiguousarray(numbers.T).view(np.uint16), "bf16")
    else:
        weight = _pack_codes(codes, zeros, scales, dtype, group_size, offsets, group_index)
    made = make_plan(name, (activations.shape[0], n, k), group_size, device, dtype, chosen)
    runner = _runner(isa, threads)
    if kernel == "awq_dequantize":
        return np.asarray(_core.dequantize_weight(made._core_plan, weight, runner)).astype(activations.dtype)
    drawn = secrets.randbits(64) if seed is None else seed
    addend = None if bias is None else to_bits("bias", bias, activations.dtype)
    rows = to_bits("activations", activations)
    if executor == "cuda":
        call = (made._core_plan, weight, rows, addend, drawn, deterministic)
        return np.asarray(_core.emulate_gemm_cuda(*call, scheme, _core.default_workspace)).view(activations.dtype)
    out = _core.emulate_gemm(made._core_plan, weight, rows, addend, runner, drawn, deterministic)
    return np.asarray(out).view(activations.dtype)


def dequantize(
    kernel: str,
    codes: NDArray[np.uint8],
    zeros: NDArray[np.uint8],
    scales: NDArray[np.float16],
    *,
    group_size: int,
    dtype: str = "fp16",
    offsets: NDArray[np.float32] | None = None,
    group_index: NDArray[np.int32] | None = None,
    device: DeviceProfile | str = "h200",
) -> NDArray[np.float32]:
    """The weights [K, N] as they enter the kernel's arithmetic (integers where it scales later)."""
    name = kernel_name(kernel)
    k, n = _shape("codes", codes)
    made = make_plan(name, (1, n, k), group_size, device, dtype, _core.KernelOptions())
    packed = _pack_codes(codes, zeros, scales, dtype, group_size, offsets, group_index)
    return np.asarray(_core.dequantize_weight(made._core_plan, packed, _runner(None, None)))


def explain_race(
    activations: NDArray[np.float16],
    codes: NDArray[np.uint8],
    zeros: NDArray[np.uint8],
    scales: NDArray[np.float16],
    outputs: NDArray[np.float16],
    *,
    group_size: int,
    device: DeviceProfile | str = "h200",
    group_index: NDArray[np.int32] | None = None,
    columns: NDArray[np.int64] | None = None,
    tries: int = _TRIES,
    seed: int = 0,
    isa: str | None = None,
    threads: int | None = None,
) -> RaceExplanation:
    """Which orders of the exllama kernel's fp16 atomics give `outputs` [M, N] (M <= 50)?

    With `columns` (ascending) only these columns are known: `outputs` and `reach` are [M, len(columns)].

    Up to 8 blocks of 128 k every order is tried per unit; beyond, `tries` bounds the search for each single output.
    """
    k, n = _shape("codes", codes)
    rows = to_bits("activations", activations, DTYPES["fp16"])
    made = make_plan("exllama", (activations.shape[0], n, k), group_size, device, "fp16", _core.KernelOptions())
    packed = _pack_codes(codes, zeros, scales, "fp16", group_size, None, group_index)
    picked = np.arange(n) if columns is None else integers("columns", columns)
    if np.shape(outputs) != (len(activations), len(picked)):
        raise ValueError(f"outputs: expected shape {[len(activations), len(picked)]}, found {list(np.shape(outputs))}")
    known, given = np.zeros(n, np.uint8), np.zeros((activations.shape[0], n), np.uint16)
    known[picked], given[:, picked] = 1, to_bits("outputs", outputs, DTYPES["fp16"])
    found = _core.explain_race(made._core_plan, packed, rows, given, known, _runner(isa, threads), tries, seed)
    return RaceExplanation(found["blocks"], found["reach"][:, picked], found["orders"], found["first"])


def _shape(name: str, array: NDArray[Any]) -> tuple[int, int]:
    shape = np.shape(array)
    if len(shape) != 2:
        raise ValueError(f"{name}: expected two dimensions, found shape {list(shape)}")
    return shape[0], shape[1]


def _pack_codes(
    codes: NDArray[np.uint8],
    zeros: NDArray[np.uint8],
    scales: NDArray[Any],
    dtype: str,
    group_size: int,
    offsets: NDArray[np.float32] | None,
    group_index: NDArray[np.int32] | None,
) -> Any:
    stored = "bf16" if dtype == "bf16" else "fp16"
    return _core.pack_codes(
        require_dtype("codes", codes, np.dtype(np.uint8)),
        require_dtype("zeros", zeros, np.dtype(np.uint8)),
        to_bits("scales", require_dtype("scales", scales, *FLOATS).astype(DTYPES[stored])),
        stored,
        group_size,
        None if offsets is None else require_dtype("offsets", offsets, DTYPES["fp32"]),
        None if group_index is None else require_dtype("group_index", group_index, np.dtype(np.int32)),
    )


def _runner(isa: str | None, threads: int | None) -> Any:
    return _make_runner(isa or selected_isa(), selected_threads(threads))


@functools.lru_cache(maxsize=4)
def _make_runner(isa: str, threads: int) -> Any:
    return _core.KernelRunner(isa, threads)
