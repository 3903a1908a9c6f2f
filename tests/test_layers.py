"""Arrows point down only: what a layer includes or imports is what ARCHITECTURE.md allows."""

import ast
import re
import subprocess
import sys
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
}
FOREIGN = re.compile(r"#include [<\"](ATen|torch|c10|pybind11|Python\.h)")
ORDER = [
    "environment", "variants", "checkpoints", "container", "trace", "model", "comparison", "noise", "verdict", "study",
    "report", "cli",
]  # fmt: skip


@pytest.mark.parametrize("layer", MAY_INCLUDE)
def test_a_layer_includes_only_what_lies_below(layer):
    wrong = []
    for file in sorted((ROOT / "csrc" / layer).rglob("*")):
        if file.suffix not in (".h", ".cpp", ".cu", ".def"):
            continue
        text = file.read_text()
        for found in re.findall(r'#include "(\w+)/', text):
            if found not in MAY_INCLUDE[layer]:
                wrong.append(f"{file.relative_to(ROOT)} includes {found}")
        if FOREIGN.search(text) and not (layer == "engine" and "pybind11" not in text):
            wrong.append(f"{file.relative_to(ROOT)}: {FOREIGN.search(text).group(0)}")
    assert not wrong


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
    """Modules of the package that a file imports when it is imported itself (not inside functions)."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("qforensics"):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_modules_before_it(module):
    package = ROOT / "python" / "qforensics"
    files = sorted((package / module).glob("*.py")) if (package / module).is_dir() else [package / f"{module}.py"]
    later = {f"qforensics.{name}" for name in ORDER[ORDER.index(module) + 1 :]}
    for file in files:
        assert not imported_modules(file) & later, file


def test_judging_a_saved_trace_needs_no_torch(tmp_path):
    """In an interpreter where torch cannot be imported: import, compare, judge, save, load."""
    recorded = ROOT / "tests" / "data" / "traces" / "vllm-0.21.0-h200" / "awq.json"
    code = f"""
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'")
sys.meta_path.insert(0, NoTorch())
import qforensics as qf
trace = qf.import_trace({str(recorded)!r}, 0)
trace.save({str(tmp_path / "a.qftrace")!r})
again = qf.Trace.load({str(tmp_path / "a.qftrace")!r})
print(qf.judge("awq", {{"awq": qf.compare(trace, again)}}).outcome)
from qforensics import kernels, numerics
assert "torch" not in sys.modules
try:
    qf.load_model({str(tmp_path)!r}, variant="awq")
except (ImportError, ValueError) as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "match"
