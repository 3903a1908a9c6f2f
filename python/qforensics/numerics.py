"""What matrix units compute, bit for bit: the exact definition, for any named GPU."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qforensics import _core
from qforensics._arrays import DTYPES, require_dtype
from qforensics.devices import DeviceProfile, MatrixUnit, device, devices

__all__ = ["fused_dot_add"]

_INPUT_EXPONENT = {"fp16": -14, "bf16": -126, "tf32": -126, "e4m3": -6, "e5m2": -14}
_INPUTS = (*_INPUT_EXPONENT, "int8")
_OUTPUTS = ("fp32", "fp16", "int32")


def fused_dot_add(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    c: NDArray[np.float32],
    *,
    unit: str | DeviceProfile | MatrixUnit,
    dtype: str,
    out: str = "fp32",
    executor: str = "cpu",
) -> NDArray[Any]:
    """``c + a . b`` along the last axis, as a GPU's matrix unit computes it.

    Steps of the unit run over k ascending, each one fused: products and accumulator are cut to a common grid, added
    exactly and rounded once. The exact oracle runs, not a fast form.

    Parameters
    ----------
    a, b
        float32 [..., K], equal shapes, holding values of `dtype`. tf32 reads any float32 and drops its low 13 bits, as
        the hardware does. K is a multiple of the unit's step; a shorter last step counts as padded with zeros.
    c
        float32 [...], the accumulator's start; holding fp16 values when `out` is ``"fp16"``.
    unit
        A GPU, by any name that `qforensics.devices.device` knows, or an architecture (``"ada"``), alone (``"h100"``:
        its mma.sync) or with the kind of instruction (``"h100:wgmma"``, ``"b200:tcgen05"``); a profile; or explicit
        numbers. fp8 on ``"h100"``,
        ``"h200"`` and ``"b200"`` is mma.sync's detour through fp16 (32 products a step, c added last);
        ``"h100:wgmma"`` is the native fp8 unit.
    dtype
        ``"fp16"``, ``"bf16"``, ``"tf32"``, ``"e4m3"``, ``"e5m2"`` or ``"int8"``.
    out
        ``"fp32"`` or ``"fp16"``: the format of the accumulator and of every step's result. ``"int8"`` sums exactly in
        int32: ``"int32"`` returns that, ``"fp32"`` the same numbers where float32 holds them.
    executor
        ``"cpu"``, or ``"cuda"``: the first GPU of this machine. The same bits.

    Returns
    -------
    float32 [...] (int32 for ``out="int32"``). A NaN result has the bits 0x7FFFFFFF.

    Raises
    ------
    TypeError
        For arrays of another dtype.
    ValueError
        For shapes that do not agree, unknown names, a unit that the device lacks, or a value that `dtype` cannot hold.

    Notes
    -----
    Method: T-FDPA of Xie et al. (MMA-Sim, arXiv 2511.10909) and Khattak and Mikaitis (arXiv 2512.07004).

    Examples
    --------
    >>> one = np.ones(16, np.float32)
    >>> float(fused_dot_add(one, one, np.float32(2**-25), unit="h200", dtype="fp16"))
    16.0
    """
    if dtype not in _INPUTS:
        raise ValueError(f"unknown dtype {dtype!r}; one of: {', '.join(_INPUTS)}")
    if out not in _OUTPUTS:
        raise ValueError(f"unknown out {out!r}; one of: {', '.join(_OUTPUTS)}")
    if executor not in ("cpu", "cuda"):
        raise ValueError(f"unknown executor {executor!r}; one of: cpu, cuda")
    on_gpu = executor == "cuda"
    a, b = _checked("a", a), _checked("b", b)
    if a.ndim == 0 or a.shape != b.shape:
        raise ValueError(f"a and b: expected equal shapes [..., K], found {list(a.shape)} and {list(b.shape)}")
    if dtype == "int8":
        return _int8(a, b, c, unit, out, on_gpu)
    if out == "int32":
        raise ValueError(f"out='int32' goes with dtype='int8', found dtype={dtype!r}")
    c = _checked("c", c)
    if c.shape != a.shape[:-1]:
        raise ValueError(f"c: expected shape {list(a.shape[:-1])}, found {list(c.shape)}")
    for name, values, held in (("a", a, dtype), ("b", b, dtype), ("c", c, "fp16" if out == "fp16" else "tf32")):
        _representable(name, values, held)
    rows = (a.reshape(-1, a.shape[-1]), b.reshape(-1, a.shape[-1]), c.reshape(-1))
    if isinstance(unit, MatrixUnit):
        if (unit.rounding == "fp16_nearest_even") != (out == "fp16"):
            raise ValueError(f"a unit with rounding {unit.rounding!r} does not give out={out!r}")
        result = _core.dot_add_unit(
            *rows,
            products=unit.products,
            fraction_bits=unit.fraction_bits,
            rounding=unit.rounding,
            zero_exponent=unit.zero_exponent,
            input_exponent=_INPUT_EXPONENT[dtype],
            on_gpu=on_gpu,
        )
    else:
        name, path = _device_and_path(unit)
        result = _core.dot_add_device(*rows, device=name, path=path, dtype=dtype, out=out, on_gpu=on_gpu)
    return np.asarray(result).reshape(c.shape)


def _device_and_path(unit: str | DeviceProfile) -> tuple[str, str]:
    if isinstance(unit, DeviceProfile):
        return unit.name, "mma"
    if not isinstance(unit, str):
        raise TypeError(f"unit: expected a device's name, a DeviceProfile or a MatrixUnit, found {type(unit).__name__}")
    name, _, path = unit.partition(":")
    # every device of an architecture has the same matrix units
    architectures = {profile.architecture: profile for profile in devices()}
    profile = architectures.get(name.strip().lower()) or device(name)
    return profile.name, path.strip().lower() or "mma"


def _checked(name: str, array: object) -> NDArray[np.float32]:
    return np.asarray(require_dtype(name, array, DTYPES["fp32"]), order="C")


def _representable(name: str, values: NDArray[np.float32], dtype: str) -> None:
    flat = _core.first_unrepresentable(dtype, values)
    if flat >= 0:
        index = [int(i) for i in np.unravel_index(flat, values.shape)]
        raise ValueError(f"{name}{index}: {values[tuple(index)]!r} is no {dtype} value")


def _int8(
    a: NDArray[np.float32], b: NDArray[np.float32], c: object, unit: object, out: str, on_gpu: bool
) -> NDArray[Any]:
    if out == "fp16":
        raise ValueError("dtype='int8' sums in int32: out is 'int32' or 'fp32'")
    if isinstance(unit, MatrixUnit):
        raise ValueError("dtype='int8' takes a device, not a MatrixUnit")
    name, path = _device_and_path(unit)  # type: ignore[arg-type]
    _core.find_unit(device=name, path=path, dtype="int8", out="int32")
    _representable("a", a, "int8")
    _representable("b", b, "int8")
    start = require_dtype("c", c, DTYPES["fp32"], np.dtype(np.int32))
    if start.shape != a.shape[:-1]:
        raise ValueError(f"c: expected shape {list(a.shape[:-1])}, found {list(start.shape)}")
    whole = start.astype(np.float64)
    if not np.all((whole == np.trunc(whole)) & (whole >= -(2.0**31)) & (whole < 2.0**31)):
        raise ValueError("c: expected whole numbers of int32's range")
    length = a.shape[-1]
    rows = (a.reshape(-1, length), b.reshape(-1, length), whole.astype(np.int32).reshape(-1))
    sums = _core.dot_add_int8(*rows, on_gpu=on_gpu)
    sums = np.asarray(sums).reshape(start.shape)
    if out == "int32":
        return sums
    result = sums.astype(np.float32)
    if not np.array_equal(result.astype(np.float64), sums.astype(np.float64)):
        raise ValueError("a sum is no float32 number: ask for out='int32'")
    return result
