"""The engine runs on LibTorch's libraries alone; the torch package stays out of the process, and still works later."""

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


ENGINE_FIRST = """
import sys
from importlib import metadata
import qforensics as qf
from qforensics._model import _import_engine
assert qf.capture_environment().torch is None
_import_engine()
assert "torch" not in sys.modules
before = qf.capture_environment()
import torch
after = qf.capture_environment()
assert (before.torch, before.cuda) == (after.torch, after.cuda) == (str(torch.__version__), torch.version.cuda)
assert (torch.arange(6.0).reshape(2, 3) @ torch.ones(3, 1)).flatten().tolist() == [3.0, 12.0]
"""

TORCH_FIRST = """
import torch
from qforensics._model import _import_engine
assert _import_engine().Engine
"""

LIBRARIES_FAIL = """
import ctypes, sys
def refuse(name, *rest, **more):
    raise OSError(name)
from qforensics import _libtorch
_libtorch.ctypes = type("Broken", (), {"CDLL": staticmethod(refuse)})
_libtorch.load()
assert "torch" in sys.modules
"""


def test_the_engine_needs_the_libraries_only():
    run(ENGINE_FIRST)


def test_torch_may_come_first():
    run(TORCH_FIRST)


def test_torch_is_imported_where_its_libraries_do_not_load_alone():
    run(LIBRARIES_FAIL)
