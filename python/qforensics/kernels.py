"""Emulated quantized GEMM kernels: the bits a named kernel gives on a named GPU, and the plan that decides them."""

from __future__ import annotations

import difflib
import functools
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from qforensics import _core

__all__ = ["Plan", "RaceExplanation", "dequantize", "emulate", "explain_race", "names", "plan", "resolve", "variants"]

ALIASES = {
    "gptq": "exllama",
    "gptq_marlin": "marlin",
    "awq_marlin": "marlin",
    "pytorch_int4": "tinygemm",
    "awq_dequantize": "awq",
}
"""Names of vLLM's and PyTorch's operators for the kernels of `names()`."""

# Matrix unit, SM count and shared memory per block; the device profile table replaces this.
_DEVICES: dict[str, dict[str, int]] = {
    "h200": {
        "products": 16,
        "fraction_bits": 25,
        "zero_exponent": -133,
        "zero_exponent_fp16": -21,
        "sm_count": 132,
        "shared_memory_per_block": 227 * 1024,
    },
    "a100": {
        "products": 8,
        "fraction_bits": 24,
        "zero_exponent": -132,
        "zero_exponent_fp16": -20,
        "sm_count": 108,
        "shared_memory_per_block": 163 * 1024,
    },
}
_FORMATS = {np.dtype(np.float16): "fp16", np.dtype(ml_dtypes.bfloat16): "bf16", np.dtype(np.float32): "fp32"}
_TRIES = 200_000


@dataclass(frozen=True)
class Plan:
    """Who is added to whom, in what order and precision, for one GEMM. `str(plan)` is the tree in words."""

    kernel: str
    shape: tuple[int, int, int]
    group_size: int
    device: str
    sentence: str
    facts: tuple[str, ...]
    unconfirmed: tuple[str, ...]
    _core_plan: Any = field(repr=False, compare=False)

    @property
    def confirmed(self) -> bool:
        """Whether recordings of the real kernel confirm every rule on this path."""
        return not self.unconfirmed

    @property
    def regions(self) -> list[tuple[int, int, int, int, int]]:
        """Row begin, row end, column begin, column end, tree."""
        return list(self._core_plan.regions)

    @property
    def trees(self) -> list[dict[str, Any]]:
        """Per tree: `leaves` (walks of start, length, stride, count), `adds` (left, right node), `racing`."""
        return list(self._core_plan.trees)

    def describe(self) -> str:
        return str(self._core_plan.describe())

    def __str__(self) -> str:
        return self.describe()

    def __repr__(self) -> str:
        m, n, k = self.shape
        trees = f"{len(self.trees)} tree{'s' if len(self.trees) > 1 else ''}"
        status = "confirmed" if self.confirmed else "unconfirmed"
        return f"Plan({self.kernel}, {m}x{n}x{k}, {self.device}, {trees}, {status})"

    def plot(self, ax: Any = None) -> Any:
        """Draws the regions of the output and the tree that most outputs share. Returns the matplotlib figure."""
        from qforensics import _plan_plot

        return _plan_plot.plot(self, ax)


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


def names() -> list[str]:
    """Kernels of the table, in its order."""
    return [name for name, _, _ in _core.kernel_table()]


def variants() -> list[tuple[str, str, str, str]]:
    """Lines (variant, GPU class, engine version, kernel); the first that fits wins."""
    return list(_core.variant_table())


def resolve(variant: str, *, gpu_class: str, engine: str = "vllm-0.21") -> str:
    """The kernel that an engine runs for a variant on GPUs of a class (`hopper`, `ampere`, `ada`, ...)."""
    _known(variant, {line[0] for line in variants()}, "variant")
    _known(engine, {line[2] for line in variants()}, "engine")
    return str(_core.resolve_variant(variant, gpu_class, engine))


def plan(
    kernel: str, shape: tuple[int, int, int], *, group_size: int, device: str, dtype: str | None = None, **options: Any
) -> Plan:
    """The reduction plan of `kernel` for `shape` = (M, N, K).

    `dtype` is "fp16", "bf16" or "fp32"; by default bf16 for tinygemm and fp16 elsewhere. Options as in `emulate`.
    """
    name = _kernel(kernel)
    dtype = dtype or ("bf16" if name == "tinygemm" else "fp16")
    return _plan(name, shape, group_size, device, dtype, _options(kernel, name, options))


def emulate(
    kernel: str,
    activations: NDArray[Any],
    codes: NDArray[np.uint8],
    zeros: NDArray[np.uint8],
    scales: NDArray[np.float16],
    *,
    group_size: int,
    device: str,
    seed: int | None = None,
    deterministic: bool = False,
    isa: str | None = None,
    threads: int | None = None,
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
    isa, threads : how to compute, never what; by default $QFORENSICS_ISA or the machine's best, and all cores.
    bias : [N] in the activations' dtype.
    offsets : [K / G, N] float32, weight = (code - 8) * scale + offset.
    group_index : [K], the group of each row (GPTQ act-order).
    options : fp32_reduce (marlin), split (cublas, awq, exllama, hgemm: a number of parts or "auto"), layout ("kn" or
        "nk", cublas), inner_k_tiles (tinygemm), activation_group (openvino: int8 activations), symmetric (zeros are 8).

    Returns
    -------
    [M, N] in the activations' dtype ([K, N] weights for awq_dequantize).
    """
    name = _kernel(kernel)
    chosen = _options(kernel, name, options)
    if options.get("symmetric") and not (np.asarray(zeros) == 8).all():
        raise ValueError("symmetric=True, but zeros hold other values than 8")
    chosen.bias, chosen.offsets = bias is not None, offsets is not None
    dtype = _format(activations)
    k, n = codes.shape
    if activations.ndim != 2 or activations.shape[1] != k:
        raise ValueError(f"activations: expected [M, {k}] to match codes {codes.shape}, found {activations.shape}")
    if name == "cublas" and dtype == "bf16":  # torch.mm takes numbers: fp16 dequantization, then the cast to bf16
        fp16 = _plan("cublas", (1, n, k), group_size, device, "fp16", _core.KernelOptions())
        packed = _pack_codes(codes, zeros, scales, "fp16", group_size, offsets, group_index)
        numbers = _core.dequantize_weight(fp16._core_plan, packed, _runner(isa, threads)).astype(ml_dtypes.bfloat16)
        chosen.dense, weight = True, _core.pack_dense(np.ascontiguousarray(numbers.T).view(np.uint16), "bf16")
    else:
        weight = _pack_codes(codes, zeros, scales, dtype, group_size, offsets, group_index)
    made = _plan(name, (activations.shape[0], n, k), group_size, device, dtype, chosen)
    runner = _runner(isa, threads)
    if kernel == "awq_dequantize":
        return np.asarray(_core.dequantize_weight(made._core_plan, weight, runner)).astype(activations.dtype)
    drawn = secrets.randbits(64) if seed is None else seed
    addend = None if bias is None else _bits(bias)
    out = _core.emulate_gemm(made._core_plan, weight, _bits(activations), addend, runner, drawn, deterministic)
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
    device: str = "h200",
) -> NDArray[np.float32]:
    """The weights [K, N] as they enter the kernel's arithmetic (integers where it scales later)."""
    name = _kernel(kernel)
    k, n = codes.shape
    made = _plan(name, (1, n, k), group_size, device, dtype, _core.KernelOptions())
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
    device: str = "h200",
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
    k, n = codes.shape
    made = _plan("exllama", (activations.shape[0], n, k), group_size, device, "fp16", _core.KernelOptions())
    packed = _pack_codes(codes, zeros, scales, "fp16", group_size, None, group_index)
    picked = np.arange(n) if columns is None else np.asarray(columns)
    known, given = np.zeros(n, np.uint8), np.zeros((activations.shape[0], n), np.uint16)
    known[picked], given[:, picked] = 1, _bits(outputs)
    found = _core.explain_race(
        made._core_plan, packed, _bits(activations), given, known, _runner(isa, threads), tries, seed
    )
    return RaceExplanation(found["blocks"], found["reach"][:, picked], found["orders"], found["first"])


def _known(name: str, allowed: Iterable[str], what: str) -> str:
    options = sorted(allowed)
    if name in options:
        return name
    close = difflib.get_close_matches(str(name), options, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else f"one of: {', '.join(options)}"
    raise ValueError(f"unknown {what} {name!r}; {hint}")


def _kernel(name: str) -> str:
    return ALIASES.get(_known(name, [*names(), *ALIASES], "kernel"), name)


def _options(asked: str, kernel: str, given: dict[str, Any]) -> Any:
    """KernelOptions from keywords; refuses what the kernel does not read."""
    read = next(words.split() for name, words, _ in _core.kernel_table() if name == kernel)
    allowed = {word for word in read if word not in ("dense", "bias", "offsets")} | {"symmetric"}
    for name in given:
        _known(name, allowed, f"option of {asked}")
    options = _core.KernelOptions()
    for name in ("fp32_reduce", "activation_group", "symmetric"):
        if name in given:
            setattr(options, name, given[name])
    if "split" in given:
        options.split = 0 if given["split"] == "auto" else int(given["split"])
    if "layout" in given:
        options.transposed = _known(given["layout"], ("kn", "nk"), "layout") == "nk"
    if given.get("inner_k_tiles", 8) not in (2, 4, 8):  # a packing of the same sums: no bit depends on it
        raise ValueError(f"inner_k_tiles must be 2, 4 or 8, got {given['inner_k_tiles']}")
    return options


def _plan(kernel: str, shape: tuple[int, int, int], group_size: int, device: str, dtype: str, options: Any) -> Plan:
    m, n, k = shape
    numbers = _core.DeviceNumbers(**_DEVICES[_known(device, _DEVICES, "device")])
    made = _core.make_plan(kernel, m, n, k, group_size, dtype, numbers, options)
    notes = tuple(made.facts), tuple(made.unconfirmed)
    return Plan(made.kernel, (m, n, k), made.group, device, made.sentence, *notes, made)


def _format(array: NDArray[Any]) -> str:
    if array.dtype not in _FORMATS:
        raise TypeError(f"activations must be float16, bfloat16 or float32, found {array.dtype}")
    return _FORMATS[array.dtype]


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    contiguous = np.ascontiguousarray(array)
    return contiguous if contiguous.dtype == np.float32 else contiguous.view(np.uint16)


def _pack_codes(
    codes: NDArray[np.uint8],
    zeros: NDArray[np.uint8],
    scales: NDArray[Any],
    dtype: str,
    group_size: int,
    offsets: NDArray[np.float32] | None,
    group_index: NDArray[np.int32] | None,
) -> Any:
    stored = np.asarray(scales).astype(ml_dtypes.bfloat16 if dtype == "bf16" else np.float16)
    return _core.pack_codes(
        np.ascontiguousarray(codes),
        np.ascontiguousarray(zeros),
        _bits(stored),
        "bf16" if dtype == "bf16" else "fp16",
        group_size,
        offsets,
        group_index,
    )


def _runner(isa: str | None, threads: int | None) -> Any:
    chosen = isa or os.environ.get("QFORENSICS_ISA") or _core.best_isa()
    return _make_runner(chosen, threads or os.cpu_count() or 1)


@functools.lru_cache(maxsize=4)
def _make_runner(isa: str, threads: int) -> Any:
    return _core.KernelRunner(isa, threads)
