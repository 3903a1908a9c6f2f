"""Inputs of the recorded GEMM cases, made from integers alone, so that every NumPy gives the same bits.

A case is (kernel, M, N, K, group, dtype, family, seed). `activations`, `codes`, `zeros` and `scales` rebuild what went
into it. Shapes: A [M, K] float16, codes q [K, N] uint8 in 0..15, zeros z [K/group, N] uint8 in 0..15, scales s
[K/group, N] float16.
Weight = (q - z) * s. Symmetric cases have z = 8 everywhere. `group` = -1 means one group over all of K.
A bfloat16 case rounds the float16 activations and scales to bfloat16 (round to nearest even) first.
"""

import numpy as np


def _words(seed, stream, count):
    """`count` uint64 words of Philox4x64-10, key = (seed, stream), counter from 0."""
    return np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)).random_raw(count).astype(np.uint64)


def _halves(seed, stream, count):
    """`count` uint16, little end first."""
    return _words(seed, stream, -(-count // 4)).view("<u2")[:count]


def activations(seed, m, k, family):
    """float16 [m, k]. family: 'normal' (sum of four uniforms, unit variance), 'wide' (mixed exponents, exact zeros,
    cancelling neighbours)."""
    u = _halves(seed, 1, 4 * m * k).reshape(m, k, 4).astype(np.int64).sum(axis=2)
    x = (u - 2 * 65535).astype(np.float64) / 37836.0
    if family == "wide":
        e = (_halves(seed, 2, m * k).reshape(m, k) % 13).astype(np.int64) - 9
        x = np.ldexp(x, e)
        kind = _halves(seed, 3, m * k).reshape(m, k) % 16
        x = np.where(kind == 0, 0.0, x)
        x[:, 1::2] = np.where(kind[:, 1::2] == 1, -x[:, 0::2], x[:, 1::2])
    return x.astype(np.float16)


def codes(seed, k, n):
    """uint8 [k, n], 0..15."""
    return (_halves(seed, 4, k * n) & 15).astype(np.uint8).reshape(k, n)


def zeros(seed, groups, n, symmetric):
    """uint8 [groups, n]; 8 everywhere where symmetric, else 1..15."""
    if symmetric:
        return np.full((groups, n), 8, np.uint8)
    return (1 + _halves(seed, 5, groups * n) % 15).astype(np.uint8).reshape(groups, n)


def scales(seed, groups, n):
    """float16 [groups, n] in about [1/128, 3/128), all 11 bits used."""
    u = _halves(seed, 6, groups * n).astype(np.float64).reshape(groups, n) / 65536.0
    return ((0.5 + u) / 64.0).astype(np.float16)
