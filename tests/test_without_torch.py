"""An interpreter without torch (and matplotlib): everything about saved traces works there, and the rest says so."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qforensics as qf
from checkpoint_files import CONFIG, dense_tensors, write_directory
from conftest import TRACES

RUNS = TRACES / "vllm-0.21.0-h200"
ABSENT = ("torch", "functorch", "matplotlib", "mpl_toolkits", "transformers")
NEEDS = "loading a model needs torch >= 2.11 (pip install 'qforensics[engine]'); judging saved traces does not"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The one directory that the interpreter looks in: links to the installed packages but those of `ABSENT`."""
    site = tmp_path_factory.mktemp("site")
    for entry in Path(np.__file__).parents[1].iterdir():
        if not entry.name.startswith((*ABSENT, "qforensics", "_qforensics")) and entry.suffix != ".pth":
            (site / entry.name).symlink_to(entry)
    package = site / "qforensics"
    package.mkdir()
    extensions = [importlib.util.find_spec(f"qforensics.{name}").origin for name in ("_core", "_engine")]
    for entry in {*Path(qf.__file__).parent.iterdir(), *map(Path, extensions)}:  # an editable install has two places
        if not (package / entry.name).exists():
            (package / entry.name).symlink_to(entry)
    return site


def python(site, *args):
    environment = {"PYTHONPATH": str(site), "PATH": os.environ["PATH"], "COLUMNS": "160"}
    command = [sys.executable, "-S", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


JUDGE = """
import importlib.util, sys
print(importlib.util.find_spec("torch"), importlib.util.find_spec("matplotlib"))
import qforensics as qf
from qforensics import kernels, numerics
a, b = (qf.import_trace(f"{sys.argv[1]}/{name}.json") for name in ("awq_marlin", "awq"))
a.save(sys.argv[2])
saved = qf.Trace.load(sys.argv[2])
verdict = qf.judge("awq", {"awq": qf.compare(saved, b), "awq_marlin": qf.compare(saved, a)})
print(verdict.outcome, qf.judge("awq", {"awq": qf.compare(saved, a)}).outcome)
print(qf.capture_environment().torch)
"""

LOAD = """
import sys
import qforensics as qf
try:
    qf.load_model(sys.argv[1], variant="fp16")
except ImportError as error:
    print(error)
"""


def test_saved_traces_are_judged(bare, tmp_path):
    done = python(bare, "-c", JUDGE, RUNS, tmp_path / "a.trace")
    assert done.stdout.splitlines() == ["None None", "mismatch match", "None"], done.stderr


def test_loading_a_model_says_what_is_missing(bare, tmp_path):
    config = dataclasses.replace(CONFIG, head_dim=64)
    model = write_directory(tmp_path / "m", config, dense_tensors(config))
    assert qf.load_model(model, variant="fp16").variant.name == "fp16"  # here it loads
    done = python(bare, "-c", LOAD, model)
    assert done.stdout == NEEDS + "\n", done.stderr


def test_the_command_line(bare, tmp_path):
    looked_up = python(bare, "-m", "qforensics", "plan", "awq", "--shape", "1x768x768")
    assert (looked_up.returncode, "awq" in looked_up.stdout) == (0, True), looked_up.stderr
    config = dataclasses.replace(CONFIG, head_dim=64)
    model = write_directory(tmp_path / "m", config, dense_tensors(config))
    trace = Path(qf.__file__).parent / "data" / "traces" / "fp16.trace"
    refused = python(bare, "-m", "qforensics", "verify", trace, "--steps", "0", "--model", model)
    assert refused.returncode == 4
    assert refused.stderr == f"error: ImportError: {NEEDS}\n"
