"""The environment record, its comparison, and the instruction-set override."""

from __future__ import annotations

import os
import platform
from dataclasses import replace

import numpy as np
import pytest

import qforensics as qf
from qforensics import _core, operators
from qforensics.environment import selected_isa, selected_threads

# Seed 004's validation, facts as its log prints them.
REFERENCE = {
    "vllm": "0.11.2",
    "torch": "2.9.1+cu128",
    "cuda": "12.8",
    "gpu": "NVIDIA A100-SXM4-80GB",
    "hostname": "637c3157512e",
}
VERIFIER = {
    "vllm": "0.11.2",
    "torch": "2.9.0+cu128",
    "cuda": "12.8",
    "gpu": "NVIDIA H100 80GB HBM3",
    "hostname": "0ce493a31677",
}


def test_record():
    found = qf.capture_environment()
    assert found.python == platform.python_version()
    assert found.numpy == np.__version__
    assert found.compiler == _core.build_info["compiler"]
    assert found.isa == selected_isa()
    assert found.threads >= 1
    assert found.qforensics == qf.__version__
    assert qf.capture_environment(isa="portable", threads=3).threads == 3
    assert "\n" not in repr(found)
    assert "cpu_model" in found._repr_html_()


def test_seed_004_validation():
    check = qf.validate_environment(REFERENCE, VERIFIER)
    assert [(i.name, i.equal) for i in check.critical] == [("vllm", True), ("torch", False), ("cuda", True)]
    assert [(i.name, i.equal) for i in check.expected] == [("gpu", False), ("hostname", False)]
    assert not check.ok
    assert repr(check) == "EnvironmentCheck(critical differences: torch)"
    assert check.to_json()["critical"][1] == {
        "name": "torch", "reference": "2.9.1+cu128", "verifier": "2.9.0+cu128", "equal": False,
    }  # fmt: skip
    assert "2.9.1+cu128" in check._repr_html_()


def test_equal_environments_and_absent_facts():
    here = qf.capture_environment()
    assert qf.validate_environment(here, here).ok
    assert qf.validate_environment(here, replace(here, hostname="elsewhere", isa="portable")).ok
    assert not qf.validate_environment({"vllm": "1"}, {}).ok


def test_isa_override(monkeypatch):
    monkeypatch.delenv("QFORENSICS_ISA", raising=False)
    assert selected_isa() == _core.best_isa()
    monkeypatch.setenv("QFORENSICS_ISA", "portable")
    assert selected_isa() == "portable"
    assert qf.capture_environment().isa == "portable"
    monkeypatch.setenv("QFORENSICS_ISA", "avx9000")
    with pytest.raises(ValueError, match="avx9000"):
        selected_isa()
    with pytest.raises(ValueError, match="avx9000"):
        operators.rms_norm(np.ones((1, 8), np.float16), np.ones(8, np.float16), epsilon=1e-6)


def test_threads_are_the_cpus_of_this_process():
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(here)})
    try:
        assert selected_threads() == qf.capture_environment().threads == 1
        assert selected_threads(3) == 3
    finally:
        os.sched_setaffinity(0, here)
