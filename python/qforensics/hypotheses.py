"""Hypotheses: a variant on a GPU, named ``variant@device``, and how to load the model that computes as it says."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qforensics.devices import device as find_device
from qforensics.model import ENGINE, Model, identity, load_model
from qforensics.plans import resolve
from qforensics.study import StudyVariant
from qforensics.variants import VARIANTS
from qforensics.variants import variant as find_variant

__all__ = ["Hypothesis", "load_hypothesis", "spread"]


@dataclass(frozen=True)
class Hypothesis:
    """A variant on a GPU. `device` is the name as the caller wrote it; `gpu` the device profile's own."""

    variant: str
    device: str

    @classmethod
    def parse(cls, text: str, *, device: str = "h200") -> Hypothesis:
        """``"awq@a100"``, or ``"awq"`` on `device`.

        Raises
        ------
        ValueError
            An unknown variant or device, with the close ones.
        """
        name, _, where = text.partition("@")
        chosen = where or device
        find_device(chosen)
        return cls(find_variant(name).name, chosen)

    @property
    def name(self) -> str:
        """``variant@device``."""
        return f"{self.variant}@{self.device}"

    @property
    def gpu(self) -> str:
        """The device profile's name."""
        return find_device(self.device).name

    @property
    def kernel(self) -> str:
        """The kernel that the variant resolves to on this GPU."""
        return resolve(self.variant, self.gpu, ENGINE)

    @property
    def racing(self) -> bool:
        """Whether its kernel adds by racing atomics, so that repeats may differ."""
        return self.kernel == "exllama"

    def study_variant(
        self, model: str | Path, *, name: str | None = None, threads: int | None = None, executor: str = "cpu"
    ) -> StudyVariant:
        """For `qforensics.study`, under its own name or another one; racing ones get a deterministic mode.

        Opens the checkpoint: its digest is part of the study's plan, so that a study never goes on with another one.
        """
        load = functools.partial(
            load_hypothesis, str(model), self.variant, self.device, threads=threads, executor=executor
        )
        return StudyVariant(
            name or self.name,
            load,
            deterministic_loader=functools.partial(load, deterministic=True) if self.racing else None,
            description=f"{find_variant(self.variant).description} ({self.kernel} on {self.gpu})",
            identity={
                "model": str(model),
                "variant": self.variant,
                "device": self.gpu,
                "kernel": self.kernel,
                **identity(str(model), self.variant),
            },
        )


def load_hypothesis(
    model: str,
    variant: str,
    device: str,
    *,
    deterministic: bool = False,
    threads: int | None = None,
    executor: str = "cpu",
) -> Model:
    """`load_model` for studies: a module-level function, and racing sums drawn anew in every process."""
    return load_model(
        model,
        variant,
        device,
        deterministic=deterministic,
        executor=executor,
        threads=threads,
        seed=secrets.randbits(63),
    )


def spread(names: Sequence[str], devices: Sequence[str]) -> list[Hypothesis]:
    """Hypotheses by name, each once: ``all`` is every variant; a name without a device stands for all of `devices`."""
    texts = [name for text in names for name in (VARIANTS if text == "all" else [text])]
    full = [text if "@" in text else f"{text}@{device}" for text in texts for device in devices]
    found: dict[tuple[str, str], Hypothesis] = {}
    for text in full:
        hypothesis = Hypothesis.parse(text)
        found.setdefault((hypothesis.variant, hypothesis.gpu), hypothesis)
    return list(found.values())
