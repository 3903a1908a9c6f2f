"""The recorded cases of tests/data/vectors: inputs rebuilt, outputs read, bits compared."""

import functools
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest

VECTORS = Path(__file__).parent / "data" / "vectors"
FILES = ["awq", "awq_marlin", "cublas", "gptq", "gptq_marlin", "machete", "pytorch_int4"]


def _load_inputs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vector_inputs", VECTORS / "inputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INPUTS = _load_inputs()


@dataclass(frozen=True)
class Case:
    file: str
    record: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.record[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def products(self) -> int:
        return int(self.M * self.N * self.K)

    @property
    def options(self) -> dict[str, Any]:
        given = {key: self.record[key] for key in ("fp32_reduce", "inner_k_tiles", "layout") if key in self.record}
        if self.kernel == "cublas":
            given["split"] = "auto"
        return given

    def inputs(self) -> tuple[Any, Any, Any, Any]:
        groups = 1 if self.group == -1 else self.K // self.group
        activations = INPUTS.activations(self.seed, self.M, self.K, self.family)
        if self.dtype == "bf16":
            activations = activations.astype(ml_dtypes.bfloat16)
        codes, zeros = INPUTS.codes(self.seed, self.K, self.N), INPUTS.zeros(self.seed, groups, self.N, self.symmetric)
        return activations, codes, zeros, INPUTS.scales(self.seed, groups, self.N)

    def outputs(self) -> np.ndarray:
        """uint16 bits, every column_step-th column."""
        return _outputs(self.file)[self.id]


@functools.cache
def _outputs(file: str) -> Any:
    return np.load(VECTORS / f"{file}.npz")


@functools.cache
def cases(file: str) -> tuple[Case, ...]:
    return tuple(Case(file, record) for record in json.loads((VECTORS / f"{file}.json").read_text())["cases"])


def all_cases() -> list[Case]:
    return [case for file in FILES for case in cases(file)]


def parameters(chosen: list[Case]) -> list[Any]:
    return [pytest.param(case, id=case.id) for case in chosen]


def differing(found: np.ndarray, recorded: np.ndarray) -> int:
    return int((found.view(np.uint16) != recorded).sum())


def assert_same_bits(found: np.ndarray, recorded: np.ndarray, case: Case) -> None:
    """`found` has all columns, `recorded` every column_step-th; names the first output that differs."""
    bits = found.view(np.uint16)[:, :: case.column_step]
    assert bits.shape == recorded.shape
    wrong = np.argwhere(bits != recorded)
    if len(wrong):
        row, column = wrong[0]
        got, want = bits[row, column], recorded[row, column]
        pytest.fail(
            f"{case.id}: {len(wrong)} of {recorded.size} outputs differ, first at row {row}, "
            f"column {column * case.column_step}: {got:#06x} instead of {want:#06x}"
        )
