"""Named GPUs: matrix-unit numbers and the sizes that kernels' reduction plans depend on.

The rows, with the source of each number, are in ``csrc/numerics/device_profiles.def``.
"""

import functools
from dataclasses import dataclass, replace
from typing import Literal

from qforensics import _core

__all__ = ["DeviceProfile", "DeviceUnit", "MatrixUnit", "device", "devices"]

Rounding = Literal["fp32_toward_zero", "e8m13_toward_zero", "fp16_nearest_even"]


@dataclass(frozen=True, kw_only=True)
class MatrixUnit:
    """One step of a matrix unit: the definition is ``csrc/numerics/matrix_unit.h``.

    Attributes
    ----------
    products
        Products fused in one step (L), 1 to 64.
    fraction_bits
        Bits kept below the largest exponent of a step (F), 1 to 40.
    rounding
        How the sum becomes a result: fp32 toward zero, 14 significant bits toward zero, or fp16 to nearest even.
    zero_exponent
        The exponent that zero terms take part with.
    """

    products: int
    fraction_bits: int
    rounding: Rounding = "fp32_toward_zero"
    zero_exponent: int = -133


@dataclass(frozen=True, kw_only=True)
class DeviceUnit:
    """What one kind of instruction of a GPU computes.

    Attributes
    ----------
    path
        ``"mma"`` (mma.sync), ``"wgmma"`` or ``"tcgen05"``.
    dtype, out
        Formats of the operands and of accumulator and result.
    method
        ``"fused"``, ``"through_fp16"`` (fp8 mma.sync of Hopper and B200: two fp16 steps, then c is added to nearest) or
        ``"exact_int32"``.
    unit
        The numbers; of the fp16 unit for ``"through_fp16"``.
    step
        Products per step of a chain.
    source
        Where the numbers come from; abbreviations in ``device_profiles.def``.
    """

    path: str
    dtype: str
    out: str
    method: str
    unit: MatrixUnit
    step: int
    source: str


@dataclass(frozen=True, kw_only=True, repr=False)
class DeviceProfile:
    """A named GPU.

    Attributes
    ----------
    name, title
        Ours (``"a100-sxm4-80gb"``) and the driver's (``"NVIDIA A100-SXM4-80GB"``).
    shared_memory_per_block
        Bytes, with opt-in.
    units
        Every matrix unit we know numbers of.
    """

    name: str
    title: str
    architecture: str
    compute_capability: tuple[int, int]
    sm_count: int
    shared_memory_per_block: int
    units: tuple[DeviceUnit, ...]
    source: str

    def __repr__(self) -> str:
        major, minor = self.compute_capability
        return f"<DeviceProfile {self.name}: {self.architecture} {major}.{minor}, {self.sm_count} SMs>"

    def unit(self, dtype: str, *, out: str = "fp32", path: str = "mma") -> DeviceUnit:
        """The unit for one pair of formats; ``ValueError``, saying what this device has, when there is none."""
        found = _core.find_unit(device=self.title, path=path, dtype=dtype, out=out)
        return _device_unit(found)

    def ordered_as(self, other: "DeviceProfile | str") -> "DeviceProfile":
        """This GPU's matrix units with the order of additions of another: its SM count and shared memory.

        Kernels whose partition of K depends on the SM count (Marlin, Machete) then add as they do on `other`, at the
        speed of this GPU; the steps themselves stay this GPU's.

        Examples
        --------
        >>> device("h200").ordered_as("a100").name
        'h200-ordered-as-a100-sxm4-80gb'
        """
        order = device(other) if isinstance(other, str) else other
        return replace(
            self,
            name=f"{self.name}-ordered-as-{order.name}",
            sm_count=order.sm_count,
            shared_memory_per_block=order.shared_memory_per_block,
        )


def _device_unit(row: dict[str, object]) -> DeviceUnit:
    numbers = {key: row[key] for key in ("products", "fraction_bits", "rounding", "zero_exponent")}
    rest = {key: row[key] for key in ("path", "dtype", "out", "method", "step", "source")}
    return DeviceUnit(unit=MatrixUnit(**numbers), **rest)  # type: ignore[arg-type]


@functools.cache
def _by_name() -> dict[str, DeviceProfile]:
    profiles = {}
    for row in _core.device_profiles():
        units = tuple(_device_unit(unit) for unit in row["units"])
        profiles[row["name"]] = DeviceProfile(**{**row, "units": units})
    return profiles


def devices() -> tuple[DeviceProfile, ...]:
    """Every device we have numbers of, in the order in which short names are resolved."""
    return tuple(_by_name().values())


def device(name: str) -> DeviceProfile:
    """The device meant by a name, as people and drivers write it.

    Parameters
    ----------
    name
        ``"h200"``, ``"A100"``, ``"a100-sxm4-80gb"``, ``"NVIDIA A100-SXM4-80GB"``, ... A name that fits several devices
        means the first of them in `devices` (``"A100"``: ``a100-sxm4-80gb``). Nothing is guessed: a name with a word
        that is not a device's own (``"RTX 4090 Laptop"``, ``"GB200"``) or without its model (``"RTX 6000"``: Turing,
        Ada or Blackwell?) is refused.

    Raises
    ------
    ValueError
        For a name that fits none; it lists the close matches.

    Examples
    --------
    >>> device("NVIDIA A100-SXM4-80GB").sm_count
    108
    """
    if not isinstance(name, str):
        raise TypeError(f"device name: expected a string, found {type(name).__name__}")
    return _by_name()[_core.find_device(name)]
