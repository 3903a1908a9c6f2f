"""cublasHgemm of the cuBLAS that torch has loaded, as vLLM's gptq path calls it, and seeded weights to call it with."""

import ctypes
import functools
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "data" / "vectors"))
import inputs

__all__ = ["DEVICE", "hgemm", "inputs", "rows_of", "weights"]

DEVICE = torch.device("cuda")
ONE, ZERO = ctypes.c_uint16(0x3C00), ctypes.c_uint16(0)


@functools.cache
def library() -> tuple[ctypes.CDLL, ctypes.c_void_p]:
    """cuBLAS and torch's handle of it, which a first product makes."""
    x = torch.randn(16, 16, device=DEVICE, dtype=torch.float16)
    x @ x
    torch.cuda.synchronize()
    names = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libcublas.so" in line]
    return ctypes.CDLL(names[0]), ctypes.c_void_p(torch.cuda.current_blas_handle())


def hgemm(w: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """a [M, K] @ w [K, N], both row-major fp16: for cuBLAS, whose matrices are column-major, w^T times a^T."""
    (k, n), m = w.shape, a.shape[0]
    out = torch.empty(m, n, dtype=torch.float16, device=DEVICE)  # not zeros: the profiles hold the product alone
    cublas, handle = library()
    first, second, result = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (w, a, out))
    code = cublas.cublasHgemm(
        handle, 0, 0, n, m, k, ctypes.byref(ONE), first, n, second, k, ctypes.byref(ZERO), result, n
    )
    assert code == 0, code
    return out


def weights(seed: int, k: int, n: int) -> torch.Tensor:
    """(code - 8) * scale in fp16, [K, N], groups of 128."""
    codes = inputs.codes(seed, k, n).astype(np.float32)
    scales = inputs.scales(seed, k // 128, n).astype(np.float32)
    return torch.from_numpy(((codes - 8) * np.repeat(scales, 128, 0)).astype(np.float16)).to(DEVICE)


def rows_of(seed: int, m: int, k: int) -> torch.Tensor:
    """Activations [M, K]."""
    return torch.from_numpy(inputs.activations(seed, m, k, "normal")).to(DEVICE)
