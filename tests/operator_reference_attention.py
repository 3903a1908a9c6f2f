"""FlashAttention in NumPy, independent of csrc but for the special-function tables and the matrix unit's oracle."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from operator_reference import F32, bits, ex2, fma, rcp
from qforensics import _core
from qforensics._sfu import sfu_tables


def chain(
    rows: np.ndarray, columns: np.ndarray, c: np.ndarray, products: int, fraction_bits: int, isa: str = "oracle"
) -> np.ndarray:
    """c + rows [R, K] times columns [K, N], by the oracle of the matrix unit."""
    n = columns.shape[1]
    padded = np.pad(columns, ((0, 0), (0, -n % 16)))
    start = np.pad(c, ((0, 0), (0, -n % 16)))
    out = _core.dot_chain(
        *(np.ascontiguousarray(a, F32) for a in (rows, padded, start)),
        products=products,
        fraction_bits=fraction_bits,
        half_out=False,
        zero_exponent=-133,
        input_exponent=-14,
        fresh=False,
        isa=isa,
        repeat=1,
    )
    return out[:, :n]


def quad_add(p: np.ndarray, sums: np.ndarray | None, rescale: np.ndarray) -> Iterator[np.ndarray]:
    """Sums [rows, 4] over columns: thread t owns j with (j mod 8) // 2 == t, ascending."""
    for t in range(4):
        columns = [j for j in range(p.shape[1]) if j % 8 // 2 == t]
        first = p[:, columns[0]]
        total = first if sums is None else fma(rescale, sums[:, t], first)
        for j in columns[1:]:
            total = total + p[:, j]
        yield total


@dataclass(frozen=True)
class Wrong:
    """What a test changes; the defaults are right."""

    unit: tuple[int, int] = (16, 25)
    exact_exp2: bool = False
    divide: bool = False
    quad_order: str = "(0+2)+(1+3)"
    probabilities_in_fp32: bool = False
    subtract_first: bool = False

    def exp2(self, x: np.ndarray) -> np.ndarray:
        return np.exp2(x.astype(np.float64)).astype(F32) if self.exact_exp2 else ex2(x)


def log2_scale(scale: float) -> np.float32:
    return F32(np.float64(F32(scale)) * np.log2(np.e))


def walk(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    visible: np.ndarray,
    starts: list[int],
    block: int,
    c: np.float32,
    wrong: Wrong,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows q [R, D] over the blocks of keys that begin at `starts`, in that order; row r sees keys < visible[r].

    Returns the normalised output [R, D] in float32, the largest scores and the sums.
    """
    rows = len(q)
    largest, sums = np.full(rows, -np.inf, F32), None
    o = np.zeros(q.shape, F32)
    for first in starts:
        kb, vb = k[first : first + block], v[first : first + block]
        pad = -len(kb) % 16
        kb, vb = np.pad(kb, ((0, pad), (0, 0))), np.pad(vb, ((0, pad), (0, 0)))
        s = chain(q, kb.T, np.zeros((rows, len(kb)), F32), *wrong.unit)
        s = np.where(first + np.arange(len(kb))[None] < visible[:, None], s, -np.inf).astype(F32)
        before, largest = largest, np.maximum(largest, s.max(axis=1))
        safe = np.where(largest > -np.inf, largest, F32(0))
        if wrong.subtract_first:
            p = wrong.exp2((s - safe[:, None]) * c)
        else:
            p = wrong.exp2(np.where(np.isfinite(s), fma(s, c, -(safe * c)[:, None]), -np.inf).astype(F32))
        old = before > -np.inf
        rescale = np.where(old, wrong.exp2((np.where(old, before, 0) - safe).astype(F32) * c), F32(0)).astype(F32)
        sums = np.stack(list(quad_add(p, sums, rescale)), axis=1)
        o = chain(
            p if wrong.probabilities_in_fp32 else p.astype(np.float16).astype(F32),
            vb,
            o * np.where(old, rescale, F32(1)).astype(F32)[:, None],
            *wrong.unit,
        )
    if sums is None:
        return o, largest, np.zeros(rows, F32)
    t = sums.T
    total = ((t[0] + t[1]) + t[2]) + t[3] if wrong.quad_order == "((0+1)+2)+3" else (t[0] + t[2]) + (t[1] + t[3])
    safe_total = np.where(total > 0, total, F32(1))
    o = o / safe_total[:, None] if wrong.divide else o * rcp(safe_total)[:, None]
    return o, largest, total


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *, scale: float = 0.125, block: int = 192, wrong: Wrong | None = None
) -> np.ndarray:
    """One part (no split) of causal attention; block = keys of a tile."""
    group = q.shape[1] // k.shape[1]
    visible = len(k) - len(q) + np.arange(len(q)) + 1
    starts = list(range((len(k) - 1) // block * block, -1, -block))
    out = np.zeros(q.shape, np.float16)
    for head in range(q.shape[1]):
        heads = (q[:, head], k[:, head // group], v[:, head // group])
        o, _, _ = walk(*(a.astype(F32) for a in heads), visible, starts, block, log2_scale(scale), wrong or Wrong())
        out[:, head] = o.astype(np.float16)
    return out


LN2, LOG2E = bits(0x3F317218), bits(0x3FB8AA3B)


def butterfly(weights: np.ndarray, lanes: int) -> np.ndarray:
    """Sum over axis 0 as `lanes` lanes add it, every lane by itself."""
    sums = [
        sum((weights[i] for i in range(lane, len(weights), lanes)), np.zeros_like(weights[0])) for lane in range(lanes)
    ]
    offset = lanes // 2
    while offset:
        sums = [sums[lane] + sums[lane ^ offset] for lane in range(lanes)]
        offset //= 2
    return sums[0]


def combine_fa3(parts: np.ndarray, log_sums: np.ndarray, lanes: int) -> np.ndarray:
    """parts [S, R, D] and log_sums [S, R] of FlashAttention 3 merged to fp16 [R, D]."""
    weights = ex2(((log_sums - log_sums.max(axis=0)) * LOG2E).astype(F32))
    shares = weights * rcp(butterfly(weights, lanes))
    o = np.zeros(parts.shape[1:], F32)
    for part, share in zip(parts, shares, strict=True):
        o = np.where(share[:, None] > 0, fma(share[:, None], part, o), o)
    return o.astype(np.float16)


def combine_fa2(parts: np.ndarray, log_sums: np.ndarray, lanes: int) -> np.ndarray:
    largest = log_sums.max(axis=0)
    total = butterfly(ex2(((log_sums - largest) * LOG2E).astype(F32)), lanes)
    log_total = fma(sfu_tables(lg2=True).lg2(total), LN2, largest)
    shares = ex2(((log_sums - log_total) * LOG2E).astype(F32))
    o = np.zeros(parts.shape[1:], F32)
    for part, share in zip(parts, shares, strict=True):
        o = fma(share[:, None], part, o)
    return o.astype(np.float16)


def split_attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    rows: int,
    block: int,
    splits: int,
    scale: float = 0.125,
    fa2: bool = False,
) -> np.ndarray:
    """Attention of one sequence in `splits` parts; tiles of `rows` packed rows (query x head) and `block` keys."""
    queries, heads, size = q.shape
    keys, kv_heads = len(k), k.shape[1]
    group, c, lanes = heads // kv_heads, log2_scale(scale), 16 if size == 64 else 32
    out = np.zeros(q.shape, np.float16)
    for kv_head in range(kv_heads):
        packed = q[:, kv_head * group : (kv_head + 1) * group].reshape(queries * group, size).astype(F32)
        result = np.zeros(packed.shape, np.float16)
        kh, vh = k[:, kv_head].astype(F32), v[:, kv_head].astype(F32)
        for tile in range(-(-len(packed) // rows)):
            r = np.arange(tile * rows, min(len(packed), (tile + 1) * rows))
            visible = keys - queries + r // group + 1
            last = -(-keys // block)
            if queries > 1 and not fa2:
                last = min(last, -(-(((tile + 1) * rows - 1) // group + 1 + keys - queries) // block))
            per = -(-last // splits)
            parts, log_sums = [], []
            for s in range(splits):
                starts = [b * block for b in range(min((s + 1) * per, last) - 1, s * per - 1, -1)]
                o, largest, total = walk(packed[r], kh, vh, visible, starts, block, c, Wrong())
                seen = total > 0
                log = sfu_tables(lg2=True).lg2(np.where(seen, total, F32(1)).astype(F32)) * LN2
                unit = F32(scale) if fa2 else F32(c * LN2)
                log_sums.append(
                    np.where(seen, fma(unit, np.where(seen, largest, F32(0)), log), F32(-np.inf)).astype(F32)
                )
                parts.append(o)
            merge = combine_fa2 if fa2 else combine_fa3
            result[r] = merge(np.stack(parts), np.stack(log_sums), lanes)
        out[:, kv_head * group : (kv_head + 1) * group] = result.reshape(queries, group, size)
    return out
