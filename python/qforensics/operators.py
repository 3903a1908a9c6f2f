"""Operators of a forward pass that are no GEMM, as named engines compute them: thin functions over NumPy arrays.

Arrays are float16, ``ml_dtypes.bfloat16`` or, for the ``fp32`` profile, float32. Every function takes `profile` (an
engine profile) and `compute_major` (the first number of the compute capability of the GPU it stands for); the
definitions that the two choose are in ``csrc/operators/profiles.def``. `definition` picks one by name instead.
`executor` is "cpu", or "cuda": the first GPU of this machine, with the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qforensics import _core
from qforensics._arrays import DTYPES, FORMATS, integers, to_bits
from qforensics._sfu import sfu_tables
from qforensics.environment import selected_isa

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
_EXECUTORS = ("cpu", "cuda")


def _runtime(
    operator: str, definition: str | None, profile: str, compute_major: int, isa: str | None, executor: str = "cpu"
) -> _core.OperatorRuntime | _core.DeviceOperatorRuntime:
    if executor not in _EXECUTORS:
        raise ValueError(f"unknown executor {executor!r}; one of: {', '.join(_EXECUTORS)}")
    return _make_runtime(operator, definition, profile, compute_major, isa or selected_isa(), executor)


@functools.cache
def _make_runtime(
    operator: str, definition: str | None, profile: str, compute_major: int, isa: str, executor: str
) -> _core.OperatorRuntime | _core.DeviceOperatorRuntime:
    tables = None if profile == "fp32" else sfu_tables(lg2=operator == "attention")
    runtime: _core.OperatorRuntime | _core.DeviceOperatorRuntime
    if executor == "cuda":
        _core.gpu_info(0)  # says what is missing
        runtime = _core.DeviceOperatorRuntime(profile, compute_major, tables, own_sfu=True)
    else:
        runtime = _core.OperatorRuntime(profile, compute_major, tables, isa, 1)
    if definition is not None:
        runtime.choose(operator, definition)
    return runtime


def _named(name: str, array: ArrayLike) -> tuple[str, NDArray[np.generic]]:
    """Name of the format and the array as the core takes it."""
    bits = to_bits(name, array)
    return FORMATS[np.asarray(array).dtype], bits


def _values(name: str, array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array.view(DTYPES[name])


def profiles() -> list[str]:
    """Names of the engine profiles."""
    return list(_core.operator_profiles())


def definitions() -> list[tuple[str, str, str]]:
    """Every (operator, definition, source)."""
    return [(str(a), str(b), str(c)) for a, b, c in _core.operator_definitions()]


def embedding(
    table: ArrayLike, ids: ArrayLike, *, profile: str = PROFILE, compute_major: int = 9, executor: str = "cpu"
) -> NDArray[np.generic]:
    """Rows of `table` [vocabulary, columns] at `ids` [rows]."""
    name, bits = _named("table", table)
    run = _runtime("embedding", None, profile, compute_major, None, executor)
    return _values(name, run.embedding(name, bits, integers("ids", ids)))


def rms_norm(
    x: ArrayLike,
    weight: ArrayLike,
    *,
    epsilon: float,
    profile: str = PROFILE,
    compute_major: int = 9,
    definition: str | None = None,
    isa: str | None = None,
    executor: str = "cpu",
) -> NDArray[np.generic]:
    """RMS norm of the last axis of `x` [rows, columns] or [tokens, heads, columns] (the per-head norm of Qwen3)."""
    name, bits = _named("x", x)
    w = to_bits("weight", weight, DTYPES[name])
    run = _runtime("rms_norm", definition, profile, compute_major, isa, executor)
    return _values(name, run.rms_norm(name, bits, w, epsilon))


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
    executor: str = "cpu",
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """RMS norm of `x` + `residual` (both [rows, columns]), and that sum, the new residual."""
    name, bits = _named("x", x)
    r = to_bits("residual", residual, DTYPES[name])
    w = to_bits("weight", weight, DTYPES[name])
    run = _runtime("fused_add_rms_norm", definition, profile, compute_major, isa, executor)
    out, total = run.fused_add_rms_norm(name, bits, r, w, epsilon)
    return _values(name, out), _values(name, total)


def rotary_cache(
    *,
    theta: float,
    head_size: int,
    positions: int,
    dtype: np.dtype[np.generic] | type = np.float16,
    llama3: tuple[float, float, float, int] | None = None,
    profile: str = PROFILE,
    compute_major: int = 9,
    definition: str | None = None,
    executor: str = "cpu",
) -> NDArray[np.generic]:
    """Cosines and sines [positions, head_size]; `llama3`: factor, low and high frequency factor, original positions."""
    name = FORMATS[np.dtype(dtype)]
    factor, low, high, original = llama3 or (1.0, 1.0, 4.0, 8192)
    run = _runtime("rotary_cache", definition, profile, compute_major, None, executor)
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
    executor: str = "cpu",
) -> NDArray[np.generic]:
    """`x` [tokens, heads, head_size] turned by `positions` [tokens]; `cache` as `rotary_cache` makes it."""
    name, bits = _named("x", x)
    table = to_bits("cache", cache, DTYPES[name])
    run = _runtime("rotary", definition, profile, compute_major, isa, executor)
    return _values(name, run.rotary(name, bits, integers("positions", positions), table))


def silu_and_mul(
    x: ArrayLike,
    *,
    profile: str = PROFILE,
    compute_major: int = 9,
    definition: str | None = None,
    isa: str | None = None,
    executor: str = "cpu",
) -> NDArray[np.generic]:
    """silu(gate) * up for `x` [rows, gate | up]."""
    name, bits = _named("x", x)
    run = _runtime("silu_and_mul", definition, profile, compute_major, isa, executor)
    return _values(name, run.silu_and_mul(name, bits))


def attention(
    q: Sequence[ArrayLike],
    k: Sequence[ArrayLike],
    v: Sequence[ArrayLike],
    *,
    scale: float,
    sm_count: int = 132,
    unit: tuple[int, int, int] = (16, 25, -133),
    panels: Sequence[_core.KeyValuePanels] = (),
    profile: str = PROFILE,
    compute_major: int = 9,
    definition: str | None = None,
    isa: str | None = None,
    executor: str = "cpu",
    scheme: str | None = None,
) -> list[NDArray[np.generic]]:
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
        What earlier calls prepared of `k` and `v`, one per sequence; extended by this call. On the CPU only.
    scheme
        How a GPU (`executor` "cuda") takes a matrix unit's steps: "native", "pinned" or "definition"; by default the
        fastest that gives the unit's bits there. One that does not is for negative controls.

    Returns
    -------
    list of arrays
        Like `q`.
    """
    if not len(q) == len(k) == len(v) > 0:
        raise ValueError(f"q, k, v: expected an array per sequence, found {len(q)}, {len(k)} and {len(v)}")
    if panels if executor == "cuda" else scheme:
        raise ValueError("panels are the CPU's, a scheme is the GPU's")
    name, _ = _named("q[0]", q[0])
    run = _runtime("attention", definition, profile, compute_major, isa, executor)
    queries, keys, values = (
        [to_bits(f"{label}[{i}]", array, DTYPES[name]) for i, array in enumerate(each)]
        for label, each in (("q", q), ("k", k), ("v", v))
    )
    last: Any = scheme if executor == "cuda" else list(panels)
    out = run.attention(name, queries, keys, values, scale, sm_count, *unit, last)
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
    executor: str = "cpu",
) -> NDArray[np.float32]:
    """Logprobs [rows, vocabulary] of `logits`."""
    name, bits = _named("logits", logits)
    run = _runtime("log_softmax", definition, profile, compute_major, isa, executor)
    out: NDArray[np.float32] = run.log_softmax(name, bits)
    return out


def top_k(logprobs: ArrayLike, k: int, *, executor: str = "cpu") -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Ids and values of the `k` largest per row: value descending (NaN last), then id ascending."""
    run = _runtime("top_k", None, PROFILE, 9, None, executor)
    ids, values = run.top_k(to_bits("logprobs", logprobs, DTYPES["fp32"]), k)
    return ids, values
