"""A work directory: what is finished is kept over kills, and belongs to one study, one checkpoint and one process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import forensics_doubles as doubles
import qforensics as qf
from checkpoint_files import CONFIG, dense_tensors, write_directory
from forensics_doubles import PROMPTS, VARIANTS
from qforensics import StudyResult, StudyVariant, Trace, _core
from qforensics._json import JsonFileError
from qforensics._workdir import WorkDir
from qforensics.cli import app
from qforensics.environment import code_digests
from qforensics.hypotheses import Hypothesis

study_module = sys.modules["qforensics.study"]  # `qforensics.study` is the function


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    work = tmp_path_factory.mktemp("study")
    racing = StudyVariant("racing", doubles.load_racing, deterministic_loader=doubles.load_one)
    return work, qf.study([*VARIANTS, racing], PROMPTS, work_dir=work, max_new_tokens=4, repeats=2, processes=1)


def test_a_finished_study_computes_nothing_again(finished):
    work, result = finished
    files = {p: p.stat().st_mtime_ns for p in work.rglob("*.trace")}

    def load():
        raise AssertionError("a model was loaded")

    variants = [StudyVariant(v.name, load) for v in VARIANTS]
    racing = StudyVariant("racing", load, deterministic_loader=load)
    again = qf.study([*variants, racing], PROMPTS, work_dir=work, max_new_tokens=4, repeats=2, processes=1)
    assert (again.errors, again.cells, again.verdicts) == ((), result.cells, result.verdicts)
    assert {p: p.stat().st_mtime_ns for p in work.rglob("*.trace")} == files


def refused(work, *names, **options):
    """The study in `work` is not gone on with; the message names what is not the same."""
    with pytest.raises(ValueError, match="belongs to another study") as caught:
        qf.study(VARIANTS, PROMPTS, work_dir=work, repeats=0, **options)
    assert f"(not the same: {', '.join(names)})" in str(caught.value)


def test_another_study_is_refused_in_the_same_directory(tmp_path, monkeypatch):
    qf.study(VARIANTS, PROMPTS, work_dir=tmp_path, repeats=0, max_new_tokens=2)
    refused(tmp_path, "max_new_tokens", max_new_tokens=3)
    qf.study(VARIANTS, PROMPTS, work_dir=tmp_path, repeats=0, max_new_tokens=2)
    monkeypatch.setattr(study_module, "code_digests", lambda: code_digests() | {"_core": "0" * 64})
    refused(tmp_path, "code._core", max_new_tokens=2)
    monkeypatch.setattr(study_module, "code_digests", code_digests)
    monkeypatch.setattr(qf, "__version__", "0.0.0")
    refused(tmp_path, "qforensics", max_new_tokens=2)


def test_the_code_is_what_is_imported():
    digests = code_digests()
    assert digests["_core"] == hashlib.sha256(Path(_core.__file__).read_bytes()).hexdigest()
    assert set(digests) == {"_core", "_engine"}


def change_byte(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_another_checkpoint_is_refused(tmp_path):
    """By `study` and by `verify --output-dir`; the checkpoint back in its old state is gone on with."""
    config = dataclasses.replace(CONFIG, head_dim=64)
    model = write_directory(tmp_path / "m", config, dense_tensors(config))
    work = tmp_path / "w"

    def run():
        variants = [Hypothesis("fp16", device).study_variant(model) for device in ("h200", "a100")]
        return qf.study(variants, [[1, 2, 3]], work_dir=work, max_new_tokens=2, repeats=0)

    first = run()
    assert not first.errors
    trace = work / "traces" / "reference" / "fp16@h200" / "0.trace"
    verify = ["verify", str(trace), "--model", str(model), "--output-dir", str(tmp_path / "v")]
    assert CliRunner().invoke(app, verify).exit_code == 0
    assert CliRunner().invoke(app, verify).exit_code == 0
    for file, changed in ((model / "model.safetensors", "checkpoint"), (model / "config.json", "settings")):
        whole = file.read_bytes()
        if changed == "checkpoint":
            change_byte(file)
        else:
            file.write_text(json.dumps(json.loads(whole) | {"rope_theta": 5e5}))
        with pytest.raises(
            ValueError, match=rf"same: variants\.fp16@a100\.{changed}, variants\.fp16@h200\.{changed}\)"
        ):
            run()
        result = CliRunner().invoke(app, verify)
        assert (result.exit_code, f"variants.fp16@h200.{changed}" in result.stderr) == (4, True)
        file.write_bytes(whole)
    assert run().cells == first.cells


def test_a_checkpoint_that_cannot_be_opened_is_an_error_of_its_variant(tmp_path):
    variants = [VARIANTS[0], Hypothesis("awq", "h200").study_variant(tmp_path / "absent", name="absent")]
    result = qf.study(variants, PROMPTS, work_dir=tmp_path / "w", repeats=0, max_new_tokens=2, claimed=["one"])
    assert [(e.variant, e.stage) for e in result.errors] == [("absent", "replay")]
    assert result.verdicts[0].outcome == "match"


def test_one_process_at_a_time(tmp_path):
    with WorkDir(tmp_path, {}), pytest.raises(RuntimeError, match="another process is at work there"):
        qf.study(VARIANTS, PROMPTS, work_dir=tmp_path, repeats=0)
    (tmp_path / "plan.json").unlink()
    qf.study(VARIANTS, PROMPTS, work_dir=tmp_path, repeats=0, max_new_tokens=2)


@pytest.mark.parametrize("plan", ["[1, 2]", "null", "{", ""])
def test_a_plan_that_is_none_is_refused(tmp_path, plan):
    (tmp_path / "plan.json").write_text(plan)
    with pytest.raises(JsonFileError, match=r"plan\.json: file: expected"):
        qf.study(VARIANTS, PROMPTS, work_dir=tmp_path)


def test_a_damaged_cell_is_computed_again(tmp_path):
    first = qf.study(VARIANTS[:2], PROMPTS, work_dir=tmp_path, max_new_tokens=3, repeats=0)
    file = tmp_path / "traces" / "replay" / "one" / "kernel" / "0.trace"
    file.write_bytes(file.read_bytes()[:-1])
    with open(tmp_path / "journal.jsonl", "a") as journal:
        journal.write('{"half')
    again = qf.study(VARIANTS[:2], PROMPTS, work_dir=tmp_path, max_new_tokens=3, repeats=0)
    assert [c.prefill for c in again.cells] == [c.prefill for c in first.cells]
    assert file.with_suffix(".refused").exists()
    assert Trace.load(file).digest in [c.digests[1] for c in again.cells]
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines if line != '{"half'][-3:] == ["refused", "loaded", "done"]


SCRIPT = """
import sys
sys.path[:0] = {path!r}
import forensics_doubles as d, qforensics as qf
variants = [qf.StudyVariant("a", d.load_slow), qf.StudyVariant("b", d.load_slow_other)]
qf.study(variants, [[1, 2, 3], [4, 5, 6], [7, 8, 9]], work_dir={work!r}, max_new_tokens=6, repeats=2)
"""


def test_kill_minus_nine_loses_nothing_finished(tmp_path):
    """Killed again and again at arbitrary moments, a study still ends with the result of an undisturbed one."""
    script = SCRIPT.format(path=[p for p in sys.path if p], work=str(tmp_path / "w"))
    kept: dict[Path, tuple[int, bytes]] = {}
    kills = 0
    for attempt in range(40):
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
        before = len(kept)
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            if len(list((tmp_path / "w").rglob("*.trace"))) >= before + 4:
                time.sleep(0.003 * (attempt % 5))
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        code = process.wait()
        stderr = process.communicate()[1].decode()
        now = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "w").rglob("*.trace")}
        for path, content in kept.items():
            assert now[path] == content, f"{path} was finished and computed again"
        for path in now:
            Trace.load(path)
        kept = now
        if code == 0:
            break
        assert code == -signal.SIGKILL, stderr
        kills += 1
    assert code == 0
    assert kills >= 3
    variants = [StudyVariant("a", doubles.load_slow), StudyVariant("b", doubles.load_slow_other)]
    undisturbed = qf.study(
        variants, [[1, 2, 3], [4, 5, 6], [7, 8, 9]], work_dir=tmp_path / "u", max_new_tokens=6, repeats=2
    )
    survived = StudyResult.load(tmp_path / "w" / "results" / "study.json")
    assert [(c.claimed, c.verified, c.reference, c.prefill, c.decode) for c in survived.cells] == [
        (c.claimed, c.verified, c.reference, c.prefill, c.decode) for c in undisturbed.cells
    ]
    assert [(v.claim, v.outcome, v.reasons) for v in survived.verdicts] == [
        (v.claim, v.outcome, v.reasons) for v in undisturbed.verdicts
    ]
    assert os.listdir(tmp_path / "w" / "results")


INTERRUPTED = """
import sys
sys.path[:0] = {path!r}
import forensics_doubles as doubles
import qforensics as qf
variants = [qf.StudyVariant("a", doubles.load_very_slow)]
qf.study(variants, [[1, 2, 3]], work_dir={work!r}, claimed=[], repeats=2, processes=2)
"""


def test_an_interrupt_ends_the_processes_of_repeats(tmp_path):
    script = INTERRUPTED.format(path=[p for p in sys.path if p], work=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    found: set[int] = set()
    deadline = time.monotonic() + 60
    while len(found) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        found = {int(p.name) for p in Path("/proc").glob("[0-9]*") if _parent(p) == process.pid}
    assert len(found) == 2
    process.send_signal(signal.SIGINT)  # to it alone, not to its group as a terminal would
    assert b"KeyboardInterrupt" in process.communicate(timeout=15)[1]  # a repeat takes minutes
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0
