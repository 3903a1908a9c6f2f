"""A study's result: every cell's numbers, floors, the seeds' analysis, verdicts and errors, as a file with a schema."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from qforensics import _html
from qforensics._json import JsonFileError, read_json, write_json
from qforensics.comparison import PhaseSummary, pool
from qforensics.noise import NoiseFloor
from qforensics.snr import SnrAnalysis, aggregate, verification_snr
from qforensics.trace import PHASES
from qforensics.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["StudyCell", "StudyError", "StudyResult", "study_schema"]

FORMAT, VERSION = "qforensics.study", 1
MAX_FILE_BYTES = 1 << 28


def study_schema() -> dict[str, Any]:
    """The published JSON Schema of study files."""
    text = resources.files("qforensics").joinpath("schemas", "study.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@dataclass(frozen=True)
class StudyCell:
    """One reference of a claimed hypothesis, replayed under another: `digests` are the two traces'."""

    claimed: str
    verified: str
    reference: int
    prefill: PhaseSummary
    decode: PhaseSummary
    digests: tuple[str, str]


@dataclass(frozen=True)
class StudyError:
    """What went wrong for a variant, at which stage; the study went on."""

    variant: str
    stage: str
    error: str


@dataclass(frozen=True, repr=False)
class StudyResult:
    """Claimed x verified comparisons with floors, verdicts and errors.

    `floors` and `deterministic_floors` are by variant. Lists of names are in the study's order.
    """

    created: str
    claimed: tuple[str, ...]
    verified: tuple[str, ...]
    settings: dict[str, Any]
    cells: tuple[StudyCell, ...]
    floors: dict[str, NoiseFloor]
    deterministic_floors: dict[str, NoiseFloor]
    verdicts: tuple[Verdict, ...]
    errors: tuple[StudyError, ...]
    environment: dict[str, Any]

    def pooled(self, claimed: str, verified: str, phase: str) -> PhaseSummary | None:
        """One cell of the matrix over all references, or None where nothing was computed."""
        found = [getattr(c, phase) for c in self.cells if (c.claimed, c.verified) == (claimed, verified)]
        return pool(found) if found else None

    def matrix(self, phase: str, quantity: str) -> NDArray[np.float64]:
        """[claimed, verified] of a `PhaseSummary` number; NaN where a cell is absent or has none."""
        table = np.full((len(self.claimed), len(self.verified)), np.nan)
        for i, claimed in enumerate(self.claimed):
            for j, verified in enumerate(self.verified):
                value = getattr(self.pooled(claimed, verified, phase), quantity, None)
                table[i, j] = math.nan if value is None else float(value)
        return table

    def snr(self, phase: str) -> SnrAnalysis | None:
        """The seeds' analysis of `seeds_l2` over names both claimed and verified; None without two complete ones."""
        names = [name for name in self.claimed if name in self.verified and self.pooled(name, name, phase)]
        references = sorted({cell.reference for cell in self.cells if cell.claimed in names})
        by_key = {(c.claimed, c.verified, c.reference): getattr(c, phase).seeds_l2 for c in self.cells}
        stack = np.array([[[by_key.get((a, b, r)) for b in names] for a in names] for r in references], np.float64)
        if len(names) < 2 or np.isnan(stack).any():
            return None
        return verification_snr(names, aggregate(stack))

    def plot(self, ax: Axes | None = None, *, phase: str = "decode") -> Axes:
        """The hypothesis matrix; returns the axes."""
        from qforensics import _plot

        return _plot.hypothesis_matrix(self, ax, phase=phase)

    def to_json(self) -> dict[str, Any]:
        """JSON-able form, as `study_schema` says."""
        analyses = {phase: self.snr(phase) for phase in PHASES}
        return {
            "format": FORMAT,
            "version": VERSION,
            "created": self.created,
            "claimed": list(self.claimed),
            "verified": list(self.verified),
            "settings": self.settings,
            "cells": [_cell_json(cell) for cell in self.cells],
            "floors": {name: floor.to_json() for name, floor in self.floors.items()},
            "deterministic_floors": {name: floor.to_json() for name, floor in self.deterministic_floors.items()},
            "snr": {phase: found.to_json() if found else None for phase, found in analyses.items()},
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "errors": [asdict(error) for error in self.errors],
            "environment": self.environment,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StudyResult:
        """Read a result; JsonFileError (a ValueError) when the file does not follow the schema."""
        data = read_json(path, limit=MAX_FILE_BYTES)
        try:
            jsonschema.validate(data, study_schema())
        except jsonschema.ValidationError as error:
            place = "/".join(map(str, error.absolute_path)) or "file"
            raise JsonFileError(path, place, "what the schema says", error.message) from None
        except RecursionError:
            raise JsonFileError(path, "file", "ordinary nesting", "objects or lists nested too deeply") from None
        return cls(
            created=data["created"],
            claimed=tuple(data["claimed"]),
            verified=tuple(data["verified"]),
            settings=data["settings"],
            cells=tuple(_cell(cell) for cell in data["cells"]),
            floors={name: NoiseFloor.from_json(floor) for name, floor in data["floors"].items()},
            deterministic_floors={n: NoiseFloor.from_json(floor) for n, floor in data["deterministic_floors"].items()},
            verdicts=tuple(Verdict.from_json(verdict) for verdict in data["verdicts"]),
            errors=tuple(StudyError(**error) for error in data["errors"]),
            environment=data["environment"],
        )

    def __repr__(self) -> str:
        words = ", ".join(f"{v.claim} {v.outcome}" for v in self.verdicts) or "no verdicts"
        tail = f"; {len(self.errors)} errors" if self.errors else ""
        return f"StudyResult({words}{tail})"

    def _repr_html_(self) -> str:
        parts = []
        for phase in PHASES:
            rows = [(a, *(_cell_text(self.pooled(a, b, phase)) for b in self.verified)) for a in self.claimed]
            parts.append(
                _html.section(f"{phase}: differing of compared logprobs", _html.table(rows, head=("", *self.verified)))
            )
        parts += [verdict._repr_html_() for verdict in self.verdicts]
        if self.errors:
            parts.append(
                _html.table([(e.variant, e.stage, e.error) for e in self.errors], head=("failed", "stage", "error"))
            )
        return _html.section("Study", *parts)


def _cell_text(summary: PhaseSummary | None) -> str:
    return f"{summary.differing:,} / {summary.compared:,}" if summary else "failed"


def _cell_json(cell: StudyCell) -> dict[str, Any]:
    plain = {"claimed": cell.claimed, "verified": cell.verified, "reference": cell.reference}
    return plain | {p: getattr(cell, p).to_json() for p in PHASES} | {"digests": list(cell.digests)}


def _cell(data: Mapping[str, Any]) -> StudyCell:
    phases = {phase: PhaseSummary.from_json(data[phase]) for phase in PHASES}
    first, second = data["digests"]
    return StudyCell(data["claimed"], data["verified"], data["reference"], **phases, digests=(first, second))
