"""A model that computes as a named engine, kernel and GPU do: loading it by those names."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import hashlib
from pathlib import Path

from qforensics import variants
from qforensics._gpu import EXECUTORS, chosen_executor
from qforensics._json import canonical_json
from qforensics._model import ENGINE, Model, Progress
from qforensics.checkpoints import Checkpoint, load
from qforensics.devices import DeviceProfile
from qforensics.devices import device as find_device
from qforensics.environment import selected_isa, selected_threads
from qforensics.plans import resolve

__all__ = ["ENGINE", "EXECUTORS", "PROFILES", "Model", "identity", "load_model"]

PROFILES = ("vllm-0.21-eager", "fp32")
"""Engine profiles: what every operator that is no weight GEMM computes."""


def load_model(
    model: str | Path | Checkpoint,
    variant: str | None = None,
    device: str = "h200",
    profile: str | None = None,
    *,
    kernel: str | None = None,
    executor: str = "cpu",
    threads: int | None = None,
    isa: str | None = None,
    seed: int = 0,
    deterministic: bool = False,
    progress: Progress | None = None,
) -> Model:
    """Load a model that computes as `variant` does on `device` under an engine profile.

    Parameters
    ----------
    model
        ``"smollm2-135m-padded"`` (the embedded default, prepared on first use), a checkpoint directory, a directory of
        such by form (``awq``, ``gptq``, ...: `Variant.form`), a hub id, or a `Checkpoint`.
    variant
        One of ``qforensics.variants.VARIANTS``; by default the one that the checkpoint's format names.
    device
        The GPU whose arithmetic is computed, forgivingly named: ``"h200"``, ``"a100"``, ...
    profile
        One of `PROFILES`. By default ``"vllm-0.21-eager"``; OpenVINO, which vLLM does not run, takes ``"fp32"``.
    kernel
        Overrides the kernel that the variant resolves to on this device, e.g. ``"marlin"`` on an H200.
    executor
        One of `EXECUTORS`: where it is computed. ``"cuda"`` emulates on the first GPU that this process sees;
        ``"native"`` runs what it can at that GPU's own speed (where `device` has its matrix units) and emulates the
        rest; ``"auto"`` is ``"cuda"`` where a GPU can be used, else the CPU. No result depends on it.
    threads, isa
        How the CPU computes; no result depends on them. Default: `environment.selected_threads` and
        `environment.selected_isa`.
    seed
        Draws the order of racing sums (``gptq``).
    deterministic
        Adds racing sums in ascending order instead.
    progress
        Called with (layers read, layers in all).

    Raises
    ------
    ValueError
        Unknown names (with the close ones), or a checkpoint whose format the variant does not run.
    CheckpointError
        See `qforensics.checkpoints.load`.
    ImportError
        When torch or the engine is missing.
    RuntimeError
        ``executor="cuda"`` or ``"native"`` without a GPU, code for it or a torch that has CUDA, or on a GPU that fails
        its self-test.
    """
    gpu = find_device(device)
    chosen = variants.variant(variant) if variant is not None else None
    checkpoint = _open(model, chosen)
    chosen = chosen or _variant_of(checkpoint)
    if checkpoint.format not in chosen.formats:
        raise ValueError(
            f"{checkpoint.path}: variant {chosen.name!r} runs {' or '.join(chosen.formats)}, "
            f"found {checkpoint.format!r}"
        )
    profile = profile or _profile_of(chosen)
    if profile not in PROFILES:
        raise ValueError(f"unknown engine profile {profile!r}; one of: {', '.join(PROFILES)}")
    if profile != "fp32" and chosen.dtype == "float32":
        raise ValueError(f"variant {chosen.name!r} is not run by vLLM; its profile is 'fp32'")
    where = chosen_executor(executor)
    named = kernel or _kernel_of(chosen, gpu, profile)
    by_layer = kernel is None and named != "fp32"
    return Model(
        checkpoint,
        variant=chosen,
        device=gpu,
        profile=profile,
        kernel=named,
        layer_kernel=functools.partial(_layer_kernel, chosen.name, gpu) if by_layer else None,
        executor=where,
        threads=selected_threads(threads),
        isa=isa or selected_isa(),
        seed=seed,
        deterministic=deterministic,
        progress=progress,
    )


def identity(model: str | Path | Checkpoint, variant: str) -> dict[str, str | None]:
    """What `load_model` computes from: digests of the checkpoint's tensors and settings, and the engine profile.

    The digests are None where the checkpoint cannot be opened, which loading it then reports.
    """
    chosen = variants.variant(variant)
    tensors = settings = None
    with contextlib.suppress(ValueError, OSError):
        checkpoint = _open(model, chosen)
        stated = {"config": dataclasses.asdict(checkpoint.config), "quantization": checkpoint.quantization}
        tensors, settings = checkpoint.digest(), hashlib.sha256(canonical_json(stated).encode()).hexdigest()
    return {"checkpoint": tensors, "settings": settings, "profile": _profile_of(chosen)}


def _profile_of(variant: variants.Variant) -> str:
    return "fp32" if variant.dtype == "float32" else PROFILES[0]


def _open(model: str | Path | Checkpoint, variant: variants.Variant | None) -> Checkpoint:
    if isinstance(model, Checkpoint):
        return model
    from qforensics import prepare

    if model == prepare.DEFAULT_MODEL:
        form = variant.form if variant is not None else "fp16"
        return load(prepare.prepare([form])[form])
    if not Path(model).exists() and difflib.get_close_matches(str(model), [prepare.DEFAULT_MODEL]):
        raise ValueError(f"{model}: no such checkpoint; did you mean {prepare.DEFAULT_MODEL}, the embedded default?")
    by_form = Path(model) / variant.form if variant is not None else None
    if by_form is not None and by_form.is_dir() and not (Path(model) / "config.json").exists():
        return load(by_form)
    return load(model)


def _variant_of(checkpoint: Checkpoint) -> variants.Variant:
    for candidate in variants.VARIANTS.values():
        if checkpoint.format in candidate.formats:
            return candidate
    raise ValueError(f"{checkpoint.path}: no variant runs the format {checkpoint.format!r}")


def _layer_kernel(variant: str, device: DeviceProfile, layer: tuple[int, int, int]) -> str:
    return resolve(variant, device, ENGINE, layer=layer)


def _kernel_of(variant: variants.Variant, device: DeviceProfile, profile: str) -> str:
    if profile == "fp32" and variant.name != "openvino":
        return "fp32"
    return resolve(variant.name, device, ENGINE)
