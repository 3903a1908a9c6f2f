"""Independent, slow versions of vLLM's operators in NumPy, with switches for wrong alternatives.

They share no code with csrc but the tables of the special-function unit.
"""

import numpy as np

from qforensics._sfu import sfu_tables

F32 = np.float32


def fma(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """x * y + z in float32 with one rounding: float64 rounded to odd, which a second rounding cannot spoil."""
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


# --- norms


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
    exact = (1 / np.sqrt(variance.astype(np.float64))).astype(F32)
    s = exact if exact_rsqrt else sfu_tables(lg2=True).rsqrt(variance)
    scaled = h * s[:, None]
    if round_before_weight:
        scaled = scaled.astype(np.float16).astype(F32)
    return (scaled * w).astype(np.float16)


# --- silu, log-softmax


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
    cached = x.shape[1] % 8 == 0 and x.shape[1] < 24512  # otherwise only whole rounds are read in vectors
    done, sums = 0, np.zeros((len(x), threads), F32)
    while done < x.shape[1]:
        vector = 8 if cached or x.shape[1] - done >= 8 * threads else 1
        n = min(vector * threads, x.shape[1] - done)
        pad = ((0, 0), (0, vector * threads - n))
        parts = [np.pad(part[:, done : done + n], pad).reshape(-1, threads, vector) for part in (scale, mantissa)]
        for i in range(vector):
            sums = fma(parts[0][:, :, i], parts[1][:, :, i], sums)
        done += n
    warps = warp_sum_down(sums.reshape(len(x), -1, 32))
    warps = np.pad(warps, ((0, 0), (0, 32 - warps.shape[1])))
    return shifted - cuda_logf(warp_sum_down(warps))[:, None]
