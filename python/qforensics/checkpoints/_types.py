"""What a checkpoint holds: one form for every quantized linear layer, whatever file it came from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qforensics._arrays import FLOATS, HALVES, describe

__all__ = ["Array", "DenseLinear", "QuantizedLinear"]

Array = npt.NDArray[np.generic]


def _require(name: str, array: Array, dtypes: tuple[np.dtype[np.generic], ...], shape: tuple[int, ...]) -> None:
    if array.dtype not in dtypes or array.shape != shape:
        wanted = " or ".join(str(d) for d in dtypes)
        raise ValueError(f"{name}: expected {wanted} {list(shape)}, found {describe(array)}")


def _require_finite(name: str, array: Array) -> None:
    if not np.isfinite(array.astype(np.float32)).all():
        raise ValueError(f"{name}: expected finite values, found Inf or NaN")


@dataclass(frozen=True, eq=False)
class QuantizedLinear:
    """A linear layer as integer codes; weight = (code - zero) * scale + offset.

    Attributes
    ----------
    codes : uint8 [K, N]
        Unsigned codes below ``2**bits``; K input features, N output features.
    zeros : uint8 [K/G, N]
        Zero points, below ``2**bits``. Signed formats are stored with ``2**(bits-1)`` added to codes and zeros.
    scales : float16 or bfloat16 [K/G, N]
        Finite, may be negative (OpenVINO's symmetric form, GGUF).
    group_size : int
        G, input rows that share a scale; -1 is one group of all K rows.
    group_index : int32 [K] or None
        Group of each row, G rows per group (activation order). None: row k is in group k // G.
    offsets : float32 [K/G, N] or None
        Added after scaling: torchao's float zero point, GGUF's block minimum.
    bias : float [N] or None
    bits : int
        Width of a code, 2, 3, 4 or 8.

    Raises
    ------
    ValueError
        A wrong dtype, shape, code, zero, group index, or a scale or offset that is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> codes, zeros = np.full((4, 2), 9, np.uint8), np.full((1, 2), 8, np.uint8)
    >>> QuantizedLinear(codes, zeros, np.ones((1, 2), np.float16), group_size=-1).dequantize()[0]
    array([1., 1., 1., 1.], dtype=float32)
    """

    codes: npt.NDArray[np.uint8]
    zeros: npt.NDArray[np.uint8]
    scales: Array
    group_size: int
    group_index: npt.NDArray[np.int32] | None = None
    offsets: npt.NDArray[np.float32] | None = None
    bias: Array | None = None
    bits: int = 4

    def __post_init__(self) -> None:
        if self.bits not in (2, 3, 4, 8):
            raise ValueError(f"bits: expected 2, 3, 4 or 8, found {self.bits}")
        if self.codes.ndim != 2 or 0 in self.codes.shape:
            raise ValueError(f"codes: expected a non-empty [K, N] array, found {list(self.codes.shape)}")
        k, n = self.codes.shape
        size = k if self.group_size == -1 else self.group_size
        if size < 1 or k % size:
            raise ValueError(f"group size: expected -1 or a divisor of K = {k}, found {self.group_size}")
        grid = (k // size, n)
        _require("codes", self.codes, (np.dtype(np.uint8),), (k, n))
        _require("zeros", self.zeros, (np.dtype(np.uint8),), grid)
        _require("scales", self.scales, HALVES, grid)
        _require_finite("scales", self.scales)
        for name, integers in (("codes", self.codes), ("zeros", self.zeros)):
            if self.bits < 8 and int(integers.max()) >= 1 << self.bits:
                raise ValueError(f"{name}: expected values below {1 << self.bits}, found {int(integers.max())}")
        if self.offsets is not None:
            _require("offsets", self.offsets, (np.dtype(np.float32),), grid)
            _require_finite("offsets", self.offsets)
        if self.bias is not None:
            _require("bias", self.bias, FLOATS, (n,))
        if self.group_index is not None:
            _check_group_index(self.group_index, k, grid[0])

    @property
    def in_features(self) -> int:
        """K."""
        return int(self.codes.shape[0])

    @property
    def out_features(self) -> int:
        """N."""
        return int(self.codes.shape[1])

    @property
    def rows_per_group(self) -> int:
        """G with -1 resolved to K."""
        return self.in_features if self.group_size == -1 else self.group_size

    def dequantize(self) -> npt.NDArray[np.float32]:
        """Return the weight as float32 [N, K], the layout of `DenseLinear.weight`.

        ``(code - zero) * scale`` is exact in float32 for bits <= 8 and 16-bit scales; adding an offset rounds once.
        Which roundings a kernel makes instead is the kernel's matter.
        """
        k, n = self.codes.shape
        scales = self.scales.astype(np.float32)
        zeros = self.zeros.astype(np.float32)
        weight = self.codes.astype(np.float32)
        if self.group_index is None:
            grouped = weight.reshape(-1, self.rows_per_group, n)
            grouped -= zeros[:, None]
            grouped *= scales[:, None]
            if self.offsets is not None:
                grouped += self.offsets[:, None]
        else:
            weight -= zeros[self.group_index]
            weight *= scales[self.group_index]
            if self.offsets is not None:
                weight += self.offsets[self.group_index]
        return np.ascontiguousarray(weight.reshape(k, n).T)

    def outputs(self, part: slice) -> "QuantizedLinear":
        """Return the layer of these outputs (columns of `codes`); it shares this one's arrays."""
        return QuantizedLinear(
            self.codes[:, part],
            self.zeros[:, part],
            self.scales[:, part],
            self.group_size,
            self.group_index,
            None if self.offsets is None else self.offsets[:, part],
            None if self.bias is None else self.bias[part],
            self.bits,
        )

    def __repr__(self) -> str:
        order = ", act-order" if self.group_index is not None else ""
        shape = f"{self.in_features} -> {self.out_features}"
        return f"QuantizedLinear({shape}, {self.bits} bit, group {self.group_size}{order})"


def _check_group_index(group_index: npt.NDArray[np.int32], k: int, groups: int) -> None:
    _require("group index", group_index, (np.dtype(np.int32),), (k,))
    low, high = int(group_index.min()), int(group_index.max())
    if low < 0 or high >= groups:
        raise ValueError(f"group index: expected values in 0..{groups - 1}, found {low}..{high}")
    counts = np.bincount(group_index, minlength=groups)
    if (counts != k // groups).any():
        group = int(np.argmax(counts != k // groups))
        raise ValueError(
            f"group index: expected {k // groups} rows in every group, found {int(counts[group])} in group {group}"
        )


@dataclass(frozen=True, eq=False)
class DenseLinear:
    """A linear layer that is not quantized.

    Attributes
    ----------
    weight : float16, bfloat16 (ml_dtypes) or float32 [N, K]
    bias : float [N] or None

    Raises
    ------
    ValueError
        A wrong dtype or shape.
    """

    weight: Array
    bias: Array | None = None

    def __post_init__(self) -> None:
        if self.weight.ndim != 2:
            raise ValueError(f"weight: expected [N, K], found {list(self.weight.shape)}")
        n, k = self.weight.shape
        _require("weight", self.weight, FLOATS, (n, k))
        if self.bias is not None:
            _require("bias", self.bias, FLOATS, (n,))

    @property
    def in_features(self) -> int:
        """K."""
        return int(self.weight.shape[1])

    @property
    def out_features(self) -> int:
        """N."""
        return int(self.weight.shape[0])

    def dequantize(self) -> npt.NDArray[np.float32]:
        """Return the weight as float32 [N, K]; exact."""
        return self.weight.astype(np.float32)

    def __repr__(self) -> str:
        return f"DenseLinear({self.in_features} -> {self.out_features}, {self.weight.dtype})"
