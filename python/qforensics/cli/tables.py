"""Commands that look things up: variants, kernels, devices, plan. None needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from qforensics.cli._app import app, print_json, print_table

__all__ = ["devices", "kernels", "plan", "variant_table", "variants"]

JSON = typer.Option(False, "--json", help="Print JSON.")


def variant_table(as_json: bool) -> None:
    """Every variant with the kernels that it resolves to."""
    from qforensics import plans
    from qforensics.variants import VARIANTS

    gpus = ("a100", "h200")
    rows: list[dict[str, Any]] = [
        {
            "name": v.name,
            "formats": list(v.formats),
            "dtype": v.dtype,
            "kernels": {gpu: plans.resolve(v.name, gpu) for gpu in gpus},
            "description": v.description,
            "hub_model": v.hub_model,
        }
        for v in VARIANTS.values()
    ]
    if as_json:
        print_json(rows)
        return
    cells = [
        [r["name"], ", ".join(r["formats"]), r["dtype"], *(r["kernels"][g] for g in gpus), r["description"]]
        for r in rows
    ]
    heads = ["variant", "checkpoints", "activations", *(f"kernel on {g}" for g in gpus), "description"]
    print_table("Variants (vLLM 0.21)", heads, cells)


@app.command()
def variants(as_json: bool = JSON) -> None:
    """List the variants: checkpoint format and kernel, by the names their users know."""
    variant_table(as_json)


@app.command()
def kernels(as_json: bool = JSON) -> None:
    """List the kernels whose reduction plans are known."""
    from qforensics import _core, plans

    table = _core.kernel_table()
    aliases: dict[str, list[str]] = {}
    for alias, name in plans.ALIASES.items():
        aliases.setdefault(name, []).append(alias)
    if as_json:
        print_json(
            [{"name": n, "aliases": aliases.get(n, []), "options": o.split(), "summary": s} for n, o, s in table]
        )
        return
    rows = [[name, ", ".join(aliases.get(name, [])), summary] for name, _, summary in table]
    print_table("Kernels", ["kernel", "also called", "what it adds, in what order"], rows)


@app.command()
def devices(as_json: bool = JSON) -> None:
    """List the GPUs whose arithmetic is known."""
    from qforensics.devices import devices as all_devices

    if as_json:
        print_json([_device_json(d) for d in all_devices()])
        return
    rows = []
    for d in all_devices():
        units = [u.unit for u in d.units if (u.path, u.dtype, u.out) == ("mma", "fp16", "fp32")]
        numbers = [str(units[0].products), str(units[0].fraction_bits)] if units else ["-", "-"]
        capability = ".".join(map(str, d.compute_capability))
        rows.append([d.name, d.architecture, capability, str(d.sm_count), *numbers, d.title])
    heads = ["device", "architecture", "capability", "SMs", "products per step", "fraction bits", "driver's name"]
    print_table("Devices (fp16 matrix unit)", heads, rows)


def _device_json(device: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(device) | {"compute_capability": list(device.compute_capability)}


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts):
        raise typer.BadParameter(f"{text!r}: expected MxNxK, as in 16x6144x4096")
    m, n, k = map(int, parts)
    return m, n, k


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(
            f"{text!r}: expected NAME=VALUE, as in split=4 or fp32_reduce=false", param_hint="--set"
        )
    words = {"true": True, "false": False}
    return name, words.get(value.lower(), int(value) if value.isdigit() else value)


@app.command()
def plan(
    kernel: str = typer.Argument(help="A kernel, or what vLLM or PyTorch call it."),
    shape: str = typer.Option(help="MxNxK: rows, columns, summed."),
    device: str = typer.Option("h200", help="GPU, forgivingly named."),
    group_size: int = typer.Option(128, help="Rows of K that share a scale; -1: all of them."),
    dtype: str | None = typer.Option(None, help="Activations: fp16, bf16 or fp32."),
    settings: list[str] = typer.Option([], "--set", help="The kernel's options, NAME=VALUE; repeatable."),
    plot: Path | None = typer.Option(None, help="Write the picture to this file."),
    as_json: bool = JSON,
) -> None:
    """Print who is added to whom, in what order and precision, for one GEMM."""
    from qforensics import plans

    options = dict(_option(text) for text in settings)
    found = plans.plan(kernel, _shape(shape), group_size=group_size, device=device, dtype=dtype, **options)
    if plot is not None:
        found.plot().savefig(plot, dpi=150)
    if as_json:
        plain = {key: getattr(found, key) for key in ("kernel", "group_size", "device", "sentence", "confirmed")}
        lists = {key: list(getattr(found, key)) for key in ("shape", "facts", "unconfirmed", "regions", "trees")}
        print_json(plain | lists)
        return
    print(found)
    if plot is not None:
        print(f"picture: {plot}")
