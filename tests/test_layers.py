"""Arrows point down only: what a layer includes or imports is what ARCHITECTURE.md allows."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_INCLUDE = {
    "base": {"base"},
    "numerics": {"base", "numerics"},
    "kernels": {"base", "numerics", "kernels"},
    "operators": {"base", "numerics", "operators"},
    "forensics": {"base", "forensics"},
    "engine": {"base", "numerics", "kernels", "operators", "engine"},
    "bindings": {"base", "numerics", "kernels", "operators", "forensics", "engine", "bindings"},
}
SOURCES = (".h", ".cpp", ".cu", ".cuh", ".def")
TORCH, PYTHON = "ATen|torch|c10", r"pybind11|Python\.h"
ORDER = [
    "_refusal", "_json", "_html", "_arrays", "_memory", "_libtorch", "_gpu", "_sfu", "_plot", "_plan_plot",
    "_rows_check", "environment", "variants", "devices", "numerics", "plans", "kernels", "operators", "checkpoints",
    "quantize", "_smollm2", "prepare", "container", "trace", "importing", "recordings", "text", "_assemble",
    "_supported", "_requests", "_model", "model", "comparison", "noise", "verdict", "snr", "study_result",
    "seeds_format", "_workdir", "_repeat_worker", "_study_jobs", "_study_worker", "_study_run", "study",
    "hypotheses", "demo", "report", "cli", "testing", "__main__",
]  # fmt: skip
PACKAGE = ROOT / "python" / "qforensics"


@pytest.mark.parametrize("layer", MAY_INCLUDE)
def test_a_layer_includes_only_what_lies_below(layer):
    files = [file for file in sorted((ROOT / "csrc" / layer).rglob("*")) if file.suffix in SOURCES]
    assert files
    assert [wrong for file in files for wrong in wrong_includes(layer, file)] == []


def wrong_includes(layer: str, file: Path) -> list[str]:
    """Headers of other layers that the layer may not know, and foreign ones that are not its business."""
    text, name = file.read_text(), file.relative_to(ROOT)
    found = re.findall(r'^\s*#\s*include "([^"/]+)', text, re.M)
    wrong = [f"{name} includes {part}" for part in found if part not in MAY_INCLUDE[layer]]
    foreign = set() if layer == "engine" or file.name.startswith("engine_") else {TORCH}
    foreign |= set() if layer == "bindings" else {PYTHON}
    if foreign:
        wrong += [f"{name}: {hit}" for hit in re.findall(rf'include [<"]({"|".join(sorted(foreign))})', text)]
    return wrong


def test_every_layer_and_every_module_has_its_place():
    folders = {path.name for path in (ROOT / "csrc").iterdir() if path.is_dir()}
    assert folders == set(MAY_INCLUDE)
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert modules - {"__init__"} == set(ORDER)


def test_a_leak_is_found(tmp_path, monkeypatch):
    """The control: an include in a .cuh file, torch in a binding of `_core`, an import of a later package's part."""
    monkeypatch.setattr("test_layers.ROOT", tmp_path)
    leak = tmp_path / "leak.cuh"
    leak.write_text('#include "kernels/plan.h"\n#include <torch/torch.h>\n')
    assert wrong_includes("numerics", leak) == ["leak.cuh includes kernels", "leak.cuh: torch"]
    assert wrong_includes("bindings", leak) == ["leak.cuh: torch"]
    leak.write_text("from qforensics.checkpoints._errors import mismatch\nfrom qforensics import study\n")
    assert imported_modules(leak) == {"checkpoints", "study"}


def test_no_printing_no_environment_no_aborting_in_csrc():
    banned = re.compile(r"\b(printf|std::cout|std::cerr|getenv|abort|exit)\s*\(|std::c(out|err)\b")
    wrong = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in sorted((ROOT / "csrc").rglob("*.[hc]*"))
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if banned.search(line.split("//")[0])
    ]
    assert not wrong


def imported_modules(file: Path) -> set[str]:
    """Modules and subpackages that a file imports when it is imported itself (not inside functions)."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("qforensics.")}


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_modules_before_it(module):
    folder = PACKAGE / module
    files = sorted(folder.glob("*.py")) if folder.is_dir() else [PACKAGE / f"{module}.py"]
    later = set(ORDER[ORDER.index(module) + 1 :])
    for file in files:
        assert not imported_modules(file) & later, file
