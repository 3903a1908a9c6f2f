"""Independent, slow versions of vLLM's operators in NumPy, with switches for the wrong alternatives that recordings refute.

They share no code with csrc but the tables of the special-function unit and, for attention, the matrix unit's oracle.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qforensics import _core
from qforensics._sfu import sfu_tables

F32 = np.float32


def fma(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """x * y + z in float32 with one rounding: the sum in float64 rounded to odd, which a second rounding cannot spoil."""
    product = np.asarray(x, np.float64) * np.asarray(y, np.float64)
    product, addend = np.broadcast_arrays(product, np.asarray(z, np.float64))
    total = product + addend
    with np.errstate(invalid="ignore"):  # infinities have no error term
        part = total - product
        error = (product - (total - part)) + (addend - part)
    bits = np.ascontiguousarray(total).view(np.int64)
    odd = (bits - ((error < 0) != (total < 0))) | 1
    with np.errstate(over="ignore"):
        return np.where((error != 0) & np.isfinite(error), odd, bits).view(np.float64).astype(F32)


def ex2(x: np.ndarray) -> np.ndarray:
    return sfu_tables(lg2=True).ex2(np.ascontiguousarray(x, F32))


def rcp(x: np.ndarray) -> np.ndarray:
    return sfu_tables(lg2=True).rcp(np.ascontiguousarray(x, F32))


def bits(pattern: int) -> np.float32:
    return np.uint32(pattern).view(F32)


# --- norms -----------------------------------------------------------------------------------------------------------------


def block_sum(values: np.ndarray, offsets: tuple[int, ...]) -> np.ndarray:
    """Sum over the last axis (threads): shuffles inside warps of 32, then the warps in order."""
    rows, threads = values.shape
    padded = np.zeros((rows, -(-threads // 32), 64), F32)  # partners beyond the last thread hold zero
    padded[:, :, :32] = np.pad(values, ((0, 0), (0, -threads % 32))).reshape(rows, -1, 32)
    for offset in offsets:
        padded[:, :, :32] = padded[:, :, :32] + np.roll(padded, -offset, axis=2)[:, :, :32]
        padded[:, :, 32:] = 0
    total = padded[:, 0, 0]
    for warp in range(1, padded.shape[1]):
        total = total + padded[:, warp, 0]
    return total


def rms_norm(
    x: np.ndarray,
    weight: np.ndarray,
    epsilon: float,
    *,
    fused: bool = False,
    round_before_weight: bool = False,
    warp_offsets: tuple[int, ...] = (1, 2, 4, 8, 16),
    exact_rsqrt: bool = False,
    round_each_square: bool = False,
) -> np.ndarray:
    h, w = x.astype(F32), weight.astype(F32)
    vectors = h.reshape(len(h), -1, 8)  # at most 1,024 vectors: one per thread
    if fused:
        pairs = [
            fma(vectors[..., j], vectors[..., j], vectors[..., j + 1] * vectors[..., j + 1]) for j in range(0, 8, 2)
        ]
        threads = (((pairs[0] + pairs[1]) + pairs[2]) + pairs[3]) + F32(0)
    else:
        threads = np.zeros(vectors.shape[:2], F32)
        for i in range(8):
            square = vectors[..., i]
            threads = threads + square * square if round_each_square else fma(square, square, threads)
    variance = block_sum(threads, warp_offsets) / F32(h.shape[1]) + F32(epsilon)
    if exact_rsqrt:
        s = (1 / np.sqrt(variance.astype(np.float64))).astype(F32)
    else:
        s = sfu_tables(lg2=True).rsqrt(variance)
    scaled = h * s[:, None]
    if round_before_weight:
        scaled = scaled.astype(np.float16).astype(F32)
    return (scaled * w).astype(np.float16)


# --- silu, log-softmax -------------------------------------------------------------------------------------------------------


def exp_parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CUDA's expf as a power of two and a mantissa."""
    a = np.clip(fma(x, bits(0x3BBB989D), F32(0.5)), F32(0), F32(1))
    whole = np.floor(a.astype(np.float64) * 252)  # exact: 24 + 8 bits
    n = (whole - 126).astype(F32)
    f = fma(x, bits(0x32A57060), fma(x, bits(0x3FB8AA3B), -n))
    return np.ldexp(F32(1), n.astype(np.int32)), ex2(f)


def silu_and_mul(x: np.ndarray, *, reciprocal: bool = False) -> np.ndarray:
    gate, up = np.split(x.astype(F32), 2, axis=1)
    scale, mantissa = exp_parts(-gate)
    d = fma(scale, mantissa, F32(1))
    t = (gate * (F32(1) / d) if reciprocal else gate / d).astype(np.float16)
    return (t.astype(F32) * up).astype(np.float16)


def cuda_logf(a: np.ndarray) -> np.ndarray:
    pattern = a.view(np.uint32)
    e = (pattern - np.uint32(0x3F2AAAAB)) & np.uint32(0xFF800000)
    i = e.view(np.int32).astype(F32) * F32(2.0**-23)
    f = (pattern - e).view(F32) - F32(1)
    r = np.full_like(f, bits(0xBE055027))
    for c in (0x3E1039F6, 0xBDF8CDCC, 0x3E0F2955, 0xBE2AD8B9, 0x3E4CED0B, 0xBE7FFF22, 0x3EAAAA78, 0xBF000000):
        r = fma(r, f, bits(c))
    return fma(i, bits(0x3F317218), fma(f * r, f, f))


def warp_sum_down(values: np.ndarray) -> np.ndarray:
    """Last axis, 32 lanes, offsets 16, 8, 4, 2, 1."""
    for offset in (16, 8, 4, 2, 1):
        values = values[..., :offset] + values[..., offset : 2 * offset]
    return values[..., 0]


def log_softmax(logits: np.ndarray, *, threads: int = 1024, exact_exp: bool = False) -> np.ndarray:
    x = logits.astype(F32)
    largest = x.max(axis=1, keepdims=True)
    shifted = x - largest
    if exact_exp:
        scale, mantissa = np.ones_like(shifted), np.exp(shifted.astype(np.float64)).astype(F32)
    else:
        scale, mantissa = exp_parts(shifted)
    rounds = -(-x.shape[1] // (8 * threads))
    shape = (len(x), rounds, threads, 8)
    pad = ((0, 0), (0, rounds * threads * 8 - x.shape[1]))
    scale, mantissa = np.pad(scale, pad).reshape(shape), np.pad(mantissa, pad).reshape(shape)
    sums = np.zeros((len(x), threads), F32)
    for r in range(rounds):
        for i in range(8):
            sums = fma(scale[:, r, :, i], mantissa[:, r, :, i], sums)
    warps = warp_sum_down(sums.reshape(len(x), -1, 32))
    warps = np.pad(warps, ((0, 0), (0, 32 - warps.shape[1])))
    return shifted - cuda_logf(warp_sum_down(warps))[:, None]


# --- attention ---------------------------------------------------------------------------------------------------------------


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
        if sums is None:
            total = p[:, columns[0]].copy()
        else:
            total = fma(rescale, sums[:, t], p[:, columns[0]])
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
    """Attention of one sequence in `splits` parts; tiles of `rows` packed rows (query x head of a group) and `block` keys."""
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
