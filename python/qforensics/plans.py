"""Reduction plans: who is added to whom, in what order and precision, for one GEMM of a named kernel on a named GPU."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from qforensics import _core
from qforensics.devices import DeviceProfile
from qforensics.devices import device as find_device

__all__ = ["Plan", "device_numbers", "names", "plan", "resolve", "variants"]

ALIASES = {
    "gptq": "exllama",
    "gptq_marlin": "marlin",
    "awq_marlin": "marlin",
    "pytorch_int4": "tinygemm",
    "awq_dequantize": "awq",
}
"""Names of vLLM's and PyTorch's operators for the kernels of `names()`."""


@dataclass(frozen=True)
class Plan:
    """Who is added to whom, in what order and precision, for one GEMM. `str(plan)` is the tree in words."""

    kernel: str
    shape: tuple[int, int, int]
    group_size: int
    device: str
    sentence: str
    facts: tuple[str, ...]
    unconfirmed: tuple[str, ...]
    _core_plan: Any = field(repr=False, compare=False)

    @property
    def confirmed(self) -> bool:
        """Whether recordings of the real kernel confirm every rule on this path."""
        return not self.unconfirmed

    @property
    def regions(self) -> list[tuple[int, int, int, int, int]]:
        """Row begin, row end, column begin, column end, tree."""
        return list(self._core_plan.regions)

    @property
    def trees(self) -> list[dict[str, Any]]:
        """Per tree: `leaves` (walks of start, length, stride, count), `adds` (left, right node), `racing`."""
        return list(self._core_plan.trees)

    def describe(self) -> str:
        return str(self._core_plan.describe())

    def __str__(self) -> str:
        return self.describe()

    def __repr__(self) -> str:
        m, n, k = self.shape
        trees = f"{len(self.trees)} tree{'s' if len(self.trees) > 1 else ''}"
        status = "confirmed" if self.confirmed else "unconfirmed"
        return f"Plan({self.kernel}, {m}x{n}x{k}, {self.device}, {trees}, {status})"

    def plot(self, ax: Any = None) -> Any:
        """Draws the regions of the output and the tree that most outputs share. Returns the matplotlib figure."""
        from qforensics import _plan_plot

        return _plan_plot.plot(self, ax)


def names() -> list[str]:
    """Kernels of the table, in its order."""
    return [name for name, _, _ in _core.kernel_table()]


def variants() -> list[tuple[str, str, str, str]]:
    """Lines (variant, GPU class, engine version, kernel); the first that fits wins."""
    return list(_core.variant_table())


def resolve(
    variant: str,
    device: DeviceProfile | str,
    engine: str = "vllm-0.21",
    *,
    layer: tuple[int, int, int] | None = None,
) -> str:
    """The kernel that an engine runs for a variant on a GPU.

    `layer` is (N, K, group size, -1 for one group) of one linear layer, merged as the engine merges it: vLLM chooses
    layer by layer. Without it: the kernel for the shapes that the first choice takes.
    """
    known_name(variant, {line[0] for line in variants()}, "variant")
    known_name(engine, {line[2] for line in variants()}, "engine")
    profile = find_device(device) if isinstance(device, str) else device
    return str(_core.resolve_variant(variant, profile.architecture, engine, layer))


def device_numbers(device: DeviceProfile | str) -> dict[str, Any]:
    """What plans and executors need to know of a GPU: (products, fraction bits, zero exponent) per unit, and two sizes.

    A unit that the device lacks has no products.
    """
    profile = find_device(device) if isinstance(device, str) else device
    have = {(unit.path, unit.dtype, unit.out): unit.unit for unit in profile.units}
    numbers: dict[str, Any] = {
        "sm_count": profile.sm_count,
        "shared_memory_per_block": profile.shared_memory_per_block,
    }
    for name, dtype, out in (("fp16", "fp16", "fp32"), ("bf16", "bf16", "fp32"), ("fp16_out", "fp16", "fp16")):
        unit = have.get(("mma", dtype, out))
        numbers[name] = (unit.products, unit.fraction_bits, unit.zero_exponent) if unit else (0, 0, 0)
    return numbers


def plan(
    kernel: str,
    shape: tuple[int, int, int],
    *,
    group_size: int,
    device: DeviceProfile | str,
    dtype: str | None = None,
    **options: Any,
) -> Plan:
    """The reduction plan of `kernel` for `shape` = (M, N, K).

    `dtype` is "fp16", "bf16" or "fp32"; by default bf16 for tinygemm and fp16 elsewhere. Options as in `emulate`.
    """
    name = kernel_name(kernel)
    dtype = dtype or ("bf16" if name == "tinygemm" else "fp16")
    return make_plan(name, shape, group_size, device, dtype, kernel_options(kernel, name, options))


def known_name(name: str, allowed: Iterable[str], what: str) -> str:
    options = sorted(allowed)
    if name in options:
        return name
    close = difflib.get_close_matches(str(name), options, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else f"one of: {', '.join(options)}"
    raise ValueError(f"unknown {what} {name!r}; {hint}")


def kernel_name(name: str) -> str:
    return ALIASES.get(known_name(name, [*names(), *ALIASES], "kernel"), name)


def kernel_options(asked: str, kernel: str, given: dict[str, Any]) -> Any:
    """KernelOptions from keywords; refuses what the kernel does not read."""
    read = next(words.split() for name, words, _ in _core.kernel_table() if name == kernel)
    allowed = {word for word in read if word not in ("dense", "bias", "offsets")} | {"symmetric"}
    for name in given:
        known_name(name, allowed, f"option of {asked}")
    options = _core.KernelOptions()
    for name in ("fp32_reduce", "activation_group", "symmetric", "inner_k_tiles"):
        if name in given:
            setattr(options, name, given[name])
    if "split" in given:
        options.split = 0 if given["split"] == "auto" else int(given["split"])
    if "layout" in given:
        options.transposed = known_name(given["layout"], ("kn", "nk"), "layout") == "nk"
    if options.inner_k_tiles not in (2, 4, 8):
        raise ValueError(f"inner_k_tiles must be 2, 4 or 8, got {options.inner_k_tiles}")
    return options


def make_plan(
    kernel: str, shape: tuple[int, int, int], group_size: int, device: DeviceProfile | str, dtype: str, options: Any
) -> Plan:
    m, n, k = shape
    profile = find_device(device) if isinstance(device, str) else device
    numbers = _core.DeviceNumbers(device_numbers(profile))
    made = _core.make_plan(kernel, m, n, k, group_size, dtype, numbers, options)
    notes = tuple(made.facts), tuple(made.unconfirmed)
    return Plan(made.kernel, (m, n, k), made.group, profile.name, made.sentence, *notes, made)
