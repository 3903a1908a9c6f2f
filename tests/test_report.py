"""Tables, pages and figures show the result's own numbers."""

from __future__ import annotations

import doctest
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import forensics_doubles as doubles
import qforensics as qf
from forensics_doubles import RECORDED
from qforensics import _html, report
from qforensics.study import StudyVariant


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    variants = [
        StudyVariant("one", doubles.load_one),
        StudyVariant("kernel", doubles.load_other_kernel),
        StudyVariant("racing", doubles.load_racing),
        StudyVariant("broken", doubles.load_broken),
    ]
    work = tmp_path_factory.mktemp("study")
    return qf.study(variants, [[1, 2, 3]], work_dir=work, max_new_tokens=4, repeats=2, processes=1)


def test_text_holds_the_numbers(result):
    for text in (qf.report_text(result), qf.report_text(result, plain=True)):
        for phase in ("prefill", "decode"):
            summary = result.pooled("one", "kernel", phase)
            assert f"{summary.differing:,} of {summary.compared:,}" in text
        for word in ("match", "inconclusive", "no such checkpoint", "racing atomics", "clearly detectable", "failed"):
            assert word in text, word
        assert max(map(len, qf.report_text(result, width=100).splitlines())) <= 100


def test_report_without_rich(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert qf.report_text(result) == qf.report_text(result, plain=True)


def test_html_is_escaped_and_self_contained(result):
    page = qf.report_html(result)
    assert not re.search(r"(src|href)=", page)
    assert page.count("<table>") == page.count("</table>") == len(report.report_tables(result))
    assert "<script" not in _html.table([("<script>",)], head=("<b>",))
    assert "&lt;script&gt;" in _html.table([("<script>",)])
    assert "one" in result._repr_html_()
    assert "\n" not in repr(result)


def test_figures(result, tmp_path):
    from matplotlib.figure import Figure

    ax = result.plot(phase="decode")
    shown = [t.get_text() for t in ax.texts]
    matrix = result.matrix("decode", "differing")
    assert shown == ["none" if np.isnan(v) else f"{int(v):,}" for v in matrix.ravel()]
    assert [t.get_text() for t in ax.get_yticklabels()] == list(result.claimed)
    assert len(ax.patches) == int((matrix == 0).sum())
    ax.figure.savefig(tmp_path / "matrix.png")

    comparison = qf.compare(*(qf.import_trace(RECORDED / f"{n}.json") for n in ("awq", "awq_marlin")))
    ax = comparison.plot(Figure().subplots())
    drawn = np.concatenate([line.get_ydata() for line in ax.lines[:1]])
    rows = comparison.prefill.per_row
    assert drawn.tolist() == rows.max_abs[rows.differing > 0].tolist()
    ax.figure.savefig(tmp_path / "tokens.png")

    floor = qf.noise_floor(
        [qf.import_trace(RECORDED / "gptq.json", 0), qf.import_trace(RECORDED / "gptq.json", 0, part="again")]
    )
    ax = floor.plot()
    assert [list(line.get_ydata()) for line in ax.lines] == [[floor.prefill.max_abs], [floor.decode.max_abs]]
    ax.figure.savefig(tmp_path / "floor.png")
    assert all((tmp_path / f"{n}.png").stat().st_size > 2000 for n in ("matrix", "tokens", "floor"))


def test_plotting_is_lazy():
    import subprocess

    script = "import sys, qforensics; assert not {'matplotlib', 'torch', 'rich', 'pytest'} & set(sys.modules)"
    environment = {"PYTHONPATH": ":".join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


@pytest.mark.parametrize("name", ["comparison", "importing"])
def test_examples_run(name, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent)
    module = importlib.import_module(f"qforensics.{name}")
    outcome = doctest.testmod(module, extraglobs={"qf": qf})
    assert outcome.attempted >= 2
    assert outcome.failed == 0
