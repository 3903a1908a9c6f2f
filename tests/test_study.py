"""Whole studies with a stand-in model: matrix, verdicts, failures, files."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

import forensics_doubles as doubles
import qforensics as qf
from forensics_doubles import PROMPTS, VARIANTS
from qforensics import StudyResult, StudyVariant, Trace
from qforensics._json import JsonFileError
from qforensics.study_result import study_schema


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    work = tmp_path_factory.mktemp("study")
    seen: list = []
    racing = StudyVariant("racing", doubles.load_racing, deterministic_loader=doubles.load_one)
    broken = StudyVariant("broken", doubles.load_broken)
    result = qf.study(
        [*VARIANTS, racing, broken], PROMPTS, work_dir=work, max_new_tokens=4, repeats=3, progress=seen.append
    )
    return work, result, seen


def test_matrix_and_verdicts(finished):
    _, result, _ = finished
    assert result.verified == ("one", "kernel", "weights", "racing", "broken")
    assert result.claimed == ("one", "kernel", "weights", "racing")
    verdicts = {v.claim: v for v in result.verdicts}
    for name in ("one", "kernel", "weights"):
        assert verdicts[name].outcome == "match"
        assert verdicts[name].matching == (name,)
        assert "racing" in verdicts[name].excluded  # another hypothesis gives every bit
        for other in ("one", "kernel", "weights"):
            for phase in ("prefill", "decode"):
                assert (result.pooled(name, other, phase).differing == 0) == (name == other)
    assert verdicts["racing"].outcome == "inconclusive"
    assert any("racing atomics" in r for r in verdicts["racing"].reasons)
    assert np.isnan(result.matrix("decode", "differing")[:, 4]).all()


def test_cells_are_the_traces_comparisons(finished):
    work, result, _ = finished
    for cell in result.cells:
        reference = Trace.load(work / "traces" / "reference" / cell.claimed / f"{cell.reference}.trace")
        replay = Trace.load(work / "traces" / "replay" / cell.claimed / cell.verified / f"{cell.reference}.trace")
        assert cell.digests == (reference.digest, replay.digest)
        comparison = qf.compare(reference, replay)
        assert (cell.prefill.differing, cell.decode.seeds_l2) == (
            comparison.prefill.differing,
            comparison.decode.seeds_l2,
        )
    assert len(result.cells) == 4 * 4 * 2


def test_floors(finished):
    _, result, _ = finished
    assert result.floors["one"].deterministic
    assert result.floors["one"].processes == 2
    assert result.floors["one"].repeats == 3
    assert result.floors["one"].warnings == ()
    assert not result.floors["racing"].deterministic
    assert result.floors["racing"].cause == "racing atomics (fake_atomic)"
    assert result.deterministic_floors["racing"].deterministic
    assert set(result.deterministic_floors) == {"racing"}


def test_failures_are_kept_and_the_study_goes_on(finished):
    _, result, _ = finished
    assert {(e.variant, e.stage) for e in result.errors} == {
        ("broken", "generate"),
        ("broken", "replay"),
        ("broken", "repeat"),
    }
    assert all("no such checkpoint" in e.error for e in result.errors)


def test_snr_of_the_matrix(finished):
    _, result, _ = finished
    analysis = result.snr("decode")
    m = result.matrix("decode", "seeds_l2")[:4, :4]
    assert abs(analysis.noise - np.diag(m).mean()) <= 1e-15
    assert analysis.count == 12
    assert abs(analysis.signal - m[~np.eye(4, dtype=bool)].mean()) <= 1e-12


def test_files(finished):
    work, result, _ = finished
    file = work / "results" / "study.json"
    jsonschema.Draft202012Validator.check_schema(study_schema())
    jsonschema.validate(json.loads(file.read_text()), study_schema())
    again = StudyResult.load(file)
    assert again == result
    assert again.to_json() == result.to_json()
    one, racing, broken = (
        json.loads((work / "results" / f"{n}.json").read_text()) for n in ("one", "racing", "broken")
    )
    assert one["verdict"]["is_deterministic"] is True
    assert one["description"] == "first"
    published = (doubles.DATA / "seeds" / "variant.txt").read_text().replace("[...]", "[]").replace("{...}", "{}")
    assert one["config"].keys() == json.loads(published)["config"].keys()
    assert (one["config"]["max_model_len"], one["config"]["repetitions"]) == (doubles.POSITIONS, 3)
    assert racing["verdict"]["details"][2] == "✓ DETERMINISTIC MODE FIXES IT"
    assert len(racing["baseline"]["tokens"]) == 3
    assert broken == {"variant": "broken", "error": "RuntimeError: no such checkpoint", "success": False}
    assert (result.environment["isa"], result.settings["repeats"]) == (qf.capture_environment().isa, 3)


def test_progress_counts_every_cell(finished):
    _, _, seen = finished
    *cells, end = [p for p in seen if p.part is None]
    assert {p.cell for p in seen if p.part is not None} >= {"load one", "load broken"}
    assert [p.done for p in cells] == list(range(1, len(cells) + 1))
    # 10 references, of them 2 missing; 50 planned replays, 32 done; 5 + 1 groups of 3 repeats, one of them failed
    assert (len(cells), end.done, end.total, end.cell) == (8 + 32 + 15, 78, 10 + 50 + 18, "end")
    assert [p.cell for p in seen[:2]] == ["load one", "reference/one/0"]


def test_given_references(tmp_path):
    reference = doubles.load_one().generate([1, 2, 3, 4], max_new_tokens=3)
    result = qf.study(VARIANTS, work_dir=tmp_path, references={"kernel": [reference]})
    (verdict,) = result.verdicts
    assert (verdict.claim, verdict.outcome, verdict.matching) == ("kernel", "mismatch", ("one",))
    assert result.floors == {}
    assert result.snr("decode") is None


def test_a_replay_of_other_ids_is_an_error(tmp_path):
    class Wrong(doubles.FakeModel):
        def teacher_force(self, trace):
            return self.generate([9, 9], max_new_tokens=1)

    variants = [VARIANTS[0], StudyVariant("wrong", lambda: Wrong("w1", "k1"))]
    result = qf.study(variants, PROMPTS[:1], work_dir=tmp_path, max_new_tokens=2, repeats=0, claimed=["one"])
    assert [(e.variant, e.stage) for e in result.errors] == [("wrong", "replay")]
    assert "not the reference's" in result.errors[0].error
    assert result.verdicts[0].outcome == "match"


def test_repeat_processes_fail_loudly(tmp_path):
    lost = StudyVariant("lost", lambda: doubles.load_one())
    dying = StudyVariant("dying", doubles.load_dying)
    result = qf.study(
        [lost, dying], PROMPTS, work_dir=tmp_path / "w", max_new_tokens=2, claimed=[], repeats=4, noise_prompts=2
    )
    errors = {e.variant: e.error for e in result.errors}
    assert "module-level function" in errors["lost"]
    assert f"code {-signal.SIGKILL}" in errors["dying"]
    assert result.floors == {}


def test_one_process_floor_says_so(tmp_path):
    result = qf.study(VARIANTS[:1], PROMPTS, work_dir=tmp_path, max_new_tokens=2, claimed=[], repeats=2, processes=1)
    assert any("one process" in w for w in result.floors["one"].warnings)


@pytest.mark.parametrize(
    ("variants", "options", "message"),
    [
        ([], {}, "one or more different names"),
        ([VARIANTS[0]] * 2, {}, "one or more different names"),
        ([StudyVariant("../x", doubles.load_one)], {}, "expected letters"),
        ([StudyVariant("", doubles.load_one)], {}, "expected letters"),
        (VARIANTS, {"claimed": ["won"]}, "'won' is not among the variants"),
        (VARIANTS, {"references": {"won": []}}, "'won' is not among the variants"),
        (VARIANTS, {"prompts": [], "claimed": ["one"]}, "prompts: expected at least one"),
        (VARIANTS, {"repeats": 1}, "repeats: expected 0 .*, or 2 and more, found 1"),
        (VARIANTS, {"repeats": -1}, "repeats: expected 0"),
    ],
)
def test_mistakes_are_refused(tmp_path, variants, options, message):
    prompts = options.pop("prompts", PROMPTS)
    with pytest.raises(ValueError, match=message):
        qf.study(variants, prompts, work_dir=tmp_path / "w", **options)


@pytest.mark.parametrize(
    "damage",
    [
        "[]", "{}", '{"format": "qforensics.study", "version": 2}', "NaN", "", "[" * 940 + "]" * 940,
        '{"version": 1e999}',
        '{"' + "x" * 5000 + '": 1}',
    ],
)  # fmt: skip
def test_bad_study_files_are_refused(finished, tmp_path, damage):
    (tmp_path / "s.json").write_text(damage)
    with pytest.raises(JsonFileError, match=r"s\.json") as caught:
        StudyResult.load(tmp_path / "s.json")
    assert len(str(caught.value)) < 1000


def test_study_file_with_one_wrong_field_names_it(finished, tmp_path):
    data = json.loads((finished[0] / "results" / "study.json").read_text())
    data["cells"][3]["prefill"]["differing"] = -1
    (tmp_path / "s.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="cells/3/prefill/differing"):
        StudyResult.load(tmp_path / "s.json")


def batch_references() -> list[Trace]:
    """Two runs as import_trace reads them from a file's `batch`."""
    alone = [doubles.load_one().generate(prompt, max_new_tokens=3) for prompt in PROMPTS]
    replays = doubles.load_one().teacher_force_batch(alone)
    files = [{"name": "r.json", "sha256": "0" * 64, "part": "batch", "index": i} for i in range(2)]
    return [replace(r, provenance={**r.provenance, "file": f}) for r, f in zip(replays, files, strict=True)]


def test_a_recorded_batch_is_replayed_as_one(tmp_path):
    references = batch_references()
    result = qf.study(VARIANTS[:1], work_dir=tmp_path, references={"one": references}, repeats=0)
    assert result.verdicts[0].outcome == "match"
    assert Trace.load(tmp_path / "traces" / "replay" / "one" / "one" / "1.trace").provenance["batch"] == 2


@pytest.mark.parametrize("chosen", [slice(1), slice(None, None, -1)])
def test_a_part_of_a_batch_is_no_batch(tmp_path, chosen):
    result = qf.study(VARIANTS[:1], work_dir=tmp_path, references={"one": batch_references()[chosen]}, repeats=0)
    assert result.verdicts[0].claimed.differing > 0
