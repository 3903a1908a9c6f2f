"""The pytest plugin, used as its users would."""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from forensics_doubles import FakeModel, small_trace
from qforensics.testing import assert_replay

pytest_plugins = ["pytester"]

HEAD = """
import sys
sys.path[:0] = {path!r}
from forensics_doubles import FakeModel
"""


@pytest.fixture
def run(pytester, tmp_path, monkeypatch):
    path = [str(Path(p).resolve()) for p in sys.path if p]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    installed = bool(entry_points(group="pytest11", name="qforensics"))
    plugin = () if installed else ("-p", "qforensics.testing")
    small_trace().save(tmp_path / "golden.trace")

    def go(body: str):
        head = HEAD.format(path=path)
        pytester.makepyfile(head + f"GOLDEN = {str(tmp_path / 'golden.trace')!r}\n" + body)
        return pytester.runpytest_subprocess(*plugin, "-p", "no:cacheprovider")

    return go


def test_equal_bits_pass(run):
    result = run("def test_it(qf_replay):\n    assert qf_replay(FakeModel('w1', 'k1'), GOLDEN).exact\n")
    result.assert_outcomes(passed=1)


def test_a_difference_fails_readably(run):
    result = run("def test_it(qf_replay):\n    qf_replay(FakeModel('w1', 'k2'), GOLDEN)\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "*expected equal bits*",
        "*prefill: * of * logprobs differ in 3 rows*",
        "*first difference: predicting position 1, row 0, token *: -* (0x*) against -* (0x*)*",
        "*largest |difference|: *",
    ])  # fmt: skip


def test_an_envelope_is_inclusive_and_not_wider(run):
    result = run(
        "import pytest\n"
        "def test_wide(qf_replay):\n    assert not qf_replay(FakeModel('w1', 'k2'), GOLDEN, max_abs=0.1).exact\n"
        "def test_narrow(qf_replay):\n"
        "    wide = qf_replay(FakeModel('w1', 'k2'), GOLDEN, max_abs=0.1)\n"
        "    found = max(wide.prefill.max_abs, wide.decode.max_abs)\n"
        "    qf_replay(FakeModel('w1', 'k2'), GOLDEN, max_abs=found)\n"
        "    with pytest.raises(AssertionError, match='difference'):\n"
        "        qf_replay(FakeModel('w1', 'k2'), GOLDEN, max_abs=found * 0.999)\n"
    )
    result.assert_outcomes(passed=2)


def test_envelopes_do_not_excuse_missing_rows_or_nan():
    trace = small_trace()

    class Short(FakeModel):
        def teacher_force(self, trace):
            return self.generate(trace.prompt_ids, max_new_tokens=3)

    with pytest.raises(AssertionError, match="3 rows were not compared"):
        assert_replay(Short("w1", "k1"), trace, max_abs=1.0)
    for wrong in (float("nan"), -1.0):
        with pytest.raises(ValueError, match="max_abs"):
            assert_replay(FakeModel("w1", "k1"), trace, max_abs=wrong)
