"""A small demo: the same code as `qforensics demo`, fewer recordings, hypotheses and tokens."""

from __future__ import annotations

import json

import pytest
import typer

from qforensics import demo
from qforensics.cli.demo import run
from qforensics.hypotheses import Hypothesis
from qforensics.study_result import StudyResult

PLAN = demo.DemoPlan(
    recorded=("awq", "gptq"),
    hypotheses=(Hypothesis("awq", "h200"), Hypothesis("gptq", "h200"), Hypothesis("awq", "a100")),
    decode_rows=2,
    variants=("awq", "awq_marlin"),
    prompts=1,
    prompt_ids=6,
    new_tokens=2,
    repeats=2,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo")
    with pytest.raises(typer.Exit) as ended:
        run(PLAN, directory)
    return directory, ended.value.exit_code


@pytest.mark.slow
def test_recordings(finished):
    directory, code = finished
    assert code == 0
    result = StudyResult.load(directory / "recorded" / "results" / "study.json")
    assert {v.claim: v.outcome for v in result.verdicts} == {"awq@h200": "match", "gptq@h200": "inconclusive"}
    for phase, compared in (("prefill", 756), ("decode", 40)):
        differing = [result.pooled("awq@h200", h.name, phase).differing for h in PLAN.hypotheses]
        assert differing[0] == 0
        assert min(differing[1:]) > 0.9 * compared
    assert demo.equal_replays(PLAN, directory / "recorded") == []


@pytest.mark.slow
def test_studies(finished):
    directory, _ = finished
    results = {
        name: StudyResult.load(directory / "study" / name / "results" / "study.json") for name in ("exact", "prior")
    }
    exact, prior = results["exact"], results["prior"]
    assert [v.outcome for v in exact.verdicts] == ["match", "match"]
    assert all(floor.deterministic and floor.processes == 2 for floor in exact.floors.values())
    (answer,) = demo.answers(exact, prior, "prefill")
    assert (answer.first, answer.second, answer.exact) == ("awq", "awq_marlin", ("awq", "awq_marlin"))
    assert answer.differing > 0.9 * answer.compared
    assert answer.noise > 0  # another GPU's arithmetic, which the prior experiment takes for noise
    assert answer.snr == pytest.approx(answer.signal / answer.noise, rel=1e-12)
    cells = len(list((directory / "study").rglob("*.trace")))
    assert cells == demo.plan_cells(PLAN, 1)


@pytest.mark.slow
def test_a_second_run_reads_what_is_there(finished, capsys):
    directory, _ = finished
    journals = sorted(directory.rglob("journal.jsonl"))
    before = [journal.read_text() for journal in journals]
    with pytest.raises(typer.Exit):
        run(PLAN, directory, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert {v["claim"]: v["outcome"] for v in found["exact"]["verdicts"]} == {"awq": "match", "awq_marlin": "match"}
    assert [journal.read_text() for journal in journals] == before
    with pytest.raises(typer.Exit):
        run(PLAN, directory)
    text = capsys.readouterr().out
    assert "0 of 796" in text
    assert "told apart" in text
    assert "inconclusive: racing atomics" in text
