"""The stub of `_core` names what the module has, so that mypy knows every name."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import qforensics as qf
from qforensics import _core

STUB = Path(qf.__file__).parent / "_core.pyi"
CUDA_ONLY = {"require_faithful_gpu", "step_test", "time_gemm_cuda"}


def declared(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    found = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found


def public(thing: object) -> set[str]:
    return {name for name in vars(thing) if not name.startswith("_")}


def test_every_name_is_in_the_stub_and_no_other():
    stub = declared(ast.parse(STUB.read_text()).body)
    wanted = public(_core) | (set() if _core.built_with_cuda else CUDA_ONLY)
    assert set(stub) == wanted
    for name, node in stub.items():
        if isinstance(node, ast.ClassDef) and name != "CoreError":
            assert {n for n in declared(node.body) if n != "__init__"} == public(getattr(_core, name)), name


def test_argument_names_are_those_of_the_module():
    """Of functions with one signature, from what pybind11 writes into their documentation."""
    stub = declared(ast.parse(STUB.read_text()).body)
    checked = 0
    for name, node in stub.items():
        function = getattr(_core, name, None)
        if not isinstance(node, ast.FunctionDef) or not inspect.isroutine(function) or name == "pack_dense":
            continue
        signature = (function.__doc__ or "").splitlines()[0]
        every = [*node.args.args, *node.args.kwonlyargs]
        assert all(f"{argument.arg}: " in signature for argument in every), (name, signature)
        assert signature.count(": ") == len(every), (name, signature)
        checked += 1
    assert checked > 40
