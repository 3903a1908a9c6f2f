"""Operators of a forward pass that are no GEMM, as named engines compute them: thin functions over NumPy arrays.

Arrays are float16, ``ml_dtypes.bfloat16`` or, for the ``fp32`` profile, float32. Every function takes `profile` (an
engine profile) and `compute_major` (the first number of the compute capability of the GPU it stands for); the
definitions that the two choose are in ``csrc/operators/profiles.def``. `definition` picks one by name instead.
"""

import functools
from collections.abc import Sequence

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray

from qforensics import _core
from qforensics._sfu import sfu_tables

__all__ = [
    "attention",
    "attention_splits",
    "definitions",
    "embedding",
    "fused_add_rms_norm",
    "log_softmax",
    "profiles",
    "rms_norm",
    "rotary",
    "rotary_cache",
    "silu_and_mul",
    "top_k",
]

PROFILE = "vllm-0.21-eager"
_NAMES = {np.dtype(np.float16): "fp16", np.dtype(ml_dtypes.bfloat16): "bf16", np.dtype(np.float32): "fp32"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


@functools.cache
def _runtime(
    operator: str, definition: str | None, profile: str, compute_major: int, isa: str | None
) -> "_core.OperatorRuntime":
    tables = None if profile == "fp32" else sfu_tables(lg2=True)
    runtime = _core.OperatorRuntime(profile, compute_major, tables, isa or _core.best_isa(), 1)
    if definition is not None:
        runtime.choose(operator, definition)
    return runtime


def _bits(array: ArrayLike, dtype: "np.dtype[np.generic] | None" = None) -> tuple[str, "NDArray[np.generic]"]:
    """Name of the format and the array as the core takes it."""
    values = np.ascontiguousarray(array)
    if values.dtype not in _NAMES:
        raise TypeError(f"expected float16, bfloat16 or float32, found {values.dtype}")
    if dtype is not None and values.dtype != dtype:
        raise TypeError(f"expected {dtype} like the other arrays, found {values.dtype}")
    name = _NAMES[values.dtype]
    return name, values if name == "fp32" else values.view(np.uint16)


def _values(name: str, array: "NDArray[np.generic]") -> "NDArray[np.generic]":
    return array.view(_DTYPES[name])


def profiles() -> list[str]:
    """Names of the engine profiles."""
    return list(_core.operator_profiles())


def definitions() -> list[tuple[str, str, str]]:
    """Every (operator, definition, source)."""
    return [(str(a), str(b), str(c)) for a, b, c in _core.operator_definitions()]


def embedding(
    table: ArrayLike, ids: ArrayLike, *, profile: str = PROFILE, compute_major: int = 9
) -> "NDArray[np.generic]":
    """Rows of `table` [vocabulary, columns] at `ids` [rows]."""
    name, bits = _bits(table)
    run = _runtime("embedding", None, profile, compute_major, None)
    return _values(name, run.embedding(name, bits, np.ascontiguousarray(ids, np.int64)))


def rms_norm(
    x: ArrayLike,
    weight: ArrayLike,
    *,
    epsilon: float,
    profile: str = PROFILE,
    compute_major: int = 9,
    definition: str | None = None,
    isa: str | None = None,
) -> "NDArray[np.generic]":
    """RMS norm of the last axis of `x` [rows, columns] or [tokens, heads, columns] (the per-head norm of Qwen3)."""
    name, bits = _bits(x)
    _, w = _bits(weight, _DTYPES[name])
    return _values(name, _runtime("rms_norm", definition, profile, compute_major, isa).rms_norm(name, bits, w, epsilon))


def fused_add_rms_norm(
    x: ArrayLike,
    residual: ArrayLike,
    weight: ArrayLike,
    *,
    epsilon: float,
    profile: str = PROFILE,
    compute_major: int = 9,
    definition: str | None = None,
    isa: str | None = None,
) -> tuple["NDArray[np.generic]", "NDArray[np.generic]"]:
    """RMS norm of `x` + `residual` (both [rows, columns]), and that sum, the new residual."""
    name, bits = _bits(x)
    _, r = _bits(residual, _DTYPES[name])
    _, w = _bits(weight, _DTYPES[name])
    run = _runtime("fused_add_rms_norm", definition, profile, compute_major, isa)
    out, total = run.fused_add_rms_norm(name, bits, r, w, epsilon)
    return _values(name, out), _values(name, total)


def rotary_cache(
    *,
    theta: float,
    head_size: int,
    positions: int,
    dtype: "np.dtype[np.generic] | type" = np.float16,
    llama3: tuple[float, float, float, int] | None = None,
    profile: str = PROFILE,
    compute_major: int = 9,
    definition: str | None = None,
) -> "NDArray[np.generic]":
    """Cosines and sines [positions, head_size]; `llama3`: factor, low and high frequency factor, original positions."""
    name = _NAMES[np.dtype(dtype)]
    factor, low, high, original = llama3 or (1.0, 1.0, 4.0, 8192)
    run = _runtime("rotary_cache", definition, profile, compute_major, None)
    return _values(name, run.rotary_cache(name, theta, head_size, positions, factor, low, high, original))


def rotary(
    x: ArrayLike,
    positions: ArrayLike,
    cache: ArrayLike,
    *,
    profile: str = PROFILE,
    compute_major: int = 9,
    definition: str | None = None,
    isa: str | None = None,
) -> "NDArray[np.generic]":
    """`x` [tokens, heads, head_size] turned by `positions` [tokens]; `cache` as `rotary_cache` makes it."""
    name, bits = _bits(x)
    _, table = _bits(cache, _DTYPES[name])
    run = _runtime("rotary", definition, profile, compute_major, isa)
    return _values(name, run.rotary(name, bits, np.ascontiguousarray(positions, np.int64), table))


def silu_and_mul(
    x: ArrayLike,
    *,
    profile: str = PROFILE,
    compute_major: int = 9,
    definition: str | None = None,
    isa: str | None = None,
) -> "NDArray[np.generic]":
    """silu(gate) * up for `x` [rows, gate | up]."""
    name, bits = _bits(x)
    return _values(name, _runtime("silu_and_mul", definition, profile, compute_major, isa).silu_and_mul(name, bits))


def attention(
    q: Sequence[ArrayLike],
    k: Sequence[ArrayLike],
    v: Sequence[ArrayLike],
    *,
    scale: float,
    sm_count: int = 132,
    unit: tuple[int, int, int] = (16, 25, -133),
    panels: "Sequence[_core.KeyValuePanels]" = (),
    profile: str = PROFILE,
    compute_major: int = 9,
    definition: str | None = None,
    isa: str | None = None,
    executor: str = "cpu",
    scheme: str | None = None,
) -> list["NDArray[np.generic]"]:
    """Causal attention of a batch of sequences.

    Parameters
    ----------
    q, k, v
        Per sequence [queries, heads, head_size], [keys, kv_heads, head_size] twice; the queries are the last keys.
    scale
        Factor of the scores, rounded to float32.
    sm_count, unit
        Of the GPU: multiprocessors; products per step, fraction bits and zero exponent of its matrix unit.
    panels
        What earlier calls prepared of `k` and `v`, one per sequence; extended by this call.
    executor
        "cpu", or "cuda": the first GPU of this machine. The same bits (a NaN of the fp32 definition aside).
    scheme
        How the GPU takes a matrix unit's steps: "native", "pinned" or "definition"; by default the fastest that gives
        the unit's bits there. One that does not is for negative controls.

    Returns
    -------
    list of arrays
        Like `q`.
    """
    name, first = _bits(q[0])
    dtype = _DTYPES[name]
    if executor not in ("cpu", "cuda"):
        raise ValueError(f"unknown executor {executor!r}; one of: cpu, cuda")
    arrays = [
        [first, *(_bits(a, dtype)[1] for a in q[1:])],
        [_bits(a, dtype)[1] for a in k],
        [_bits(a, dtype)[1] for a in v],
    ]
    if executor == "cuda":
        chosen = definition or _core.attention_definition(profile, compute_major)
        tables = None if chosen == "fp32" else sfu_tables(lg2=True)
        out, _ = _core.attention_cuda(chosen, tables, name, *arrays, scale, sm_count, *unit, scheme)
    else:
        run = _runtime("attention", definition, profile, compute_major, isa)
        out = run.attention(name, *arrays, scale, sm_count, *unit, list(panels))
    return [_values(name, a) for a in out]


def attention_splits(
    *,
    queries: int,
    keys: int,
    heads: int,
    kv_heads: int,
    head_size: int = 64,
    sm_count: int = 132,
    definition: str = "fa3",
) -> int:
    """Parts into which FlashAttention cuts the keys of a single sequence."""
    return int(
        _core.attention_splits(
            definition,
            queries=queries,
            keys=keys,
            heads=heads,
            kv_heads=kv_heads,
            head_size=head_size,
            sm_count=sm_count,
        )
    )


def log_softmax(
    logits: ArrayLike,
    *,
    profile: str = PROFILE,
    compute_major: int = 9,
    definition: str | None = None,
    isa: str | None = None,
) -> NDArray[np.float32]:
    """Logprobs [rows, vocabulary] of `logits`."""
    name, bits = _bits(logits)
    out: NDArray[np.float32] = _runtime("log_softmax", definition, profile, compute_major, isa).log_softmax(name, bits)
    return out


def top_k(logprobs: ArrayLike, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Ids and values of the `k` largest per row: value descending, then id ascending."""
    run = _runtime("top_k", None, PROFILE, 9, None)
    ids, values = run.top_k(np.ascontiguousarray(logprobs, np.float32), k)
    return ids, values
