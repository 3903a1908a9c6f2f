"""Studies over several GPUs: what is found does not depend on how many there are, nor on what dies on the way.

The models are stand-ins that need no GPU: what is tested is who runs what, and what each process sees.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import forensics_doubles as doubles
import qforensics as qf
from forensics_doubles import PROMPTS, VARIANTS
from qforensics import StudyVariant, Trace, _core
from qforensics._gpu import gpus_of, visible_gpu
from qforensics._study_jobs import Board, Times

PICKY = StudyVariant("picky", doubles.load_picky)
BROKEN = StudyVariant("broken", doubles.load_broken)


def without_process(result):
    """A study's result but for what says when and in which process it ran."""
    data = result.to_json()
    for key in ("created", "environment"):
        del data[key]
    for part in (*data["cells"], *data["verdicts"]):
        del part["digests"]
    for floor in data["floors"].values():
        del floor["digests"]
    return json.dumps(data, sort_keys=True)


def numbers(work: Path) -> dict[str, str]:
    return {str(p.relative_to(work)): Trace.load(p).numbers_digest for p in sorted(work.rglob("*.trace"))}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    work = tmp_path_factory.mktemp("alone")
    result = qf.study([*VARIANTS, PICKY, BROKEN], PROMPTS, work_dir=work, max_new_tokens=4, repeats=2)
    return without_process(result), numbers(work)


@pytest.mark.parametrize("gpus", [(0,), (0, 1), (2, 0, 1), (0, 0, 1, 1, 2, 2)])
def test_no_result_depends_on_how_many_gpus_there_are(alone, tmp_path, gpus):
    seen = []
    result = qf.study(
        [*VARIANTS, PICKY, BROKEN], PROMPTS, work_dir=tmp_path, max_new_tokens=4, repeats=2, gpus=gpus,
        progress=seen.append,
    )  # fmt: skip
    assert without_process(result) == alone[0]
    assert numbers(tmp_path) == alone[1]
    assert len(alone[1]) > 40
    done = [p.done for p in seen if p.part is None]
    assert done == [*range(1, len(done)), seen[-1].total]


def test_another_kernel_is_seen_as_another_result(alone, tmp_path):
    """The control of the comparison above."""
    variants = [VARIANTS[0], StudyVariant("kernel", doubles.load_other_weights), *VARIANTS[2:], PICKY, BROKEN]
    result = qf.study(variants, PROMPTS, work_dir=tmp_path, max_new_tokens=4, repeats=2, gpus=(0, 1))
    assert without_process(result) != alone[0]
    assert numbers(tmp_path) != alone[1]


def test_a_failed_run_fails_its_cells_alone(alone):
    data = json.loads(alone[0])
    errors = {(e["variant"], e["stage"]): e["error"] for e in data["errors"]}
    assert errors["picky", "replay"] == "ValueError: no prompt that begins with 4 (and 3 more of its runs failed)"
    assert errors["broken", "replay"] == "RuntimeError: no such checkpoint"
    # every claim has a prompt of both kinds, so that no claim is replayed by it in full
    assert {cell["verified"] for cell in data["cells"]} == {"one", "kernel", "weights"}
    assert "replay/one/picky/0.trace" in "\n".join(alone[1])


def seeing(work, gpus, names=("a", "b")):
    loaders = (doubles.load_seeing, doubles.load_seeing_too)
    variants = [StudyVariant(name, loader) for name, loader in zip(names, loaders, strict=False)]
    result = qf.study(variants, PROMPTS * 3, work_dir=work, max_new_tokens=3, repeats=2, gpus=gpus)
    assert result.errors == ()
    traces = [Trace.load(p).provenance for p in work.rglob("*.trace")]
    return {(t["gpus"], t["pid"]) for t in traces if t["pid"] != os.getpid()}, traces


def test_each_process_sees_its_own_gpu_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found, traces = seeing(tmp_path / "a", (0, 3))
    assert {gpu for gpu, _ in found} == {"0", "3"}
    assert len({pid for _, pid in found}) == 2 + 2 * 2  # a worker each, and two processes of repeats per variant
    assert all(t["pid"] != os.getpid() for t in traces)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7,GPU-abc")
    assert {gpu for gpu, _ in seeing(tmp_path / "b", (1, 2))[0]} == {"7", "GPU-abc"}
    assert {gpu for gpu, _ in seeing(tmp_path / "c", ())[0]} == {"5, 7,GPU-abc"}  # repeats alone are other processes
    with pytest.raises(ValueError, match="GPU 3: expected a number from 0, of those in CUDA_VISIBLE_DEVICES=5, 7"):
        seeing(tmp_path / "d", (3,))


def test_idle_gpus_help_with_what_is_left(tmp_path):
    """One variant, two GPUs: both replay it."""
    found, _ = seeing(tmp_path, (0, 1), names=("a",))
    journal = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [entry["cell"] for entry in journal if entry["event"] == "loaded"] == ["a", "a"]
    assert {gpu for gpu, _ in found} == {"0", "1"}


def test_a_model_is_loaded_once_where_its_process_keeps_it(tmp_path):
    qf.study(VARIANTS, PROMPTS, work_dir=tmp_path, max_new_tokens=2, repeats=0, gpus=(0, 0, 0))
    journal = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    loaded = [entry["cell"] for entry in journal if entry["event"] == "loaded"]
    assert set(loaded) == {"one", "kernel", "weights"}


def test_a_process_that_dies_fails_its_variant_alone(tmp_path):
    variants = [StudyVariant("lost", doubles.load_lost), *VARIANTS]
    result = qf.study(variants, PROMPTS, work_dir=tmp_path, max_new_tokens=2, repeats=0, gpus=(0,))
    (error, *rest) = result.errors
    assert (error.variant, error.stage) == ("lost", "replay")
    assert error.error == (f"RuntimeError: the worker process ended with code {-signal.SIGKILL}: something went wrong")
    assert [(e.variant, e.stage) for e in rest] == [("lost", "judge")]
    assert {v.claim: v.outcome for v in result.verdicts} == dict.fromkeys(("one", "kernel", "weights"), "match")


def test_a_loader_that_cannot_be_sent_says_so(tmp_path):
    variants = [StudyVariant("local", lambda: doubles.load_one()), VARIANTS[1]]
    result = qf.study(variants, PROMPTS, work_dir=tmp_path, max_new_tokens=2, repeats=0, gpus=(0,), claimed=["kernel"])
    assert [(e.variant, "module-level function" in e.error) for e in result.errors] == [("local", True)]
    assert result.verdicts[0].outcome == "match"


def test_a_study_goes_on_with_other_gpus(tmp_path):
    first = qf.study(VARIANTS, PROMPTS, work_dir=tmp_path, max_new_tokens=2, repeats=0, gpus=(0, 1))
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.trace")}
    for gpus in ((), (0,), (0, 1, 2)):
        again = qf.study(VARIANTS, PROMPTS, work_dir=tmp_path, max_new_tokens=2, repeats=0, gpus=gpus)
        assert (again.cells, again.verdicts, again.errors) == (first.cells, first.verdicts, ())
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.trace")} == files


SCRIPT = """
import sys
sys.path[:0] = {path!r}
import forensics_doubles as d, qforensics as qf
variants, prompts = [qf.StudyVariant("a", d.load_slow), qf.StudyVariant("b", d.load_slow_other)], [[1, 2], [4, 5], [7]]
qf.study(variants, prompts, work_dir={work!r}, max_new_tokens={length}, repeats=0, gpus=(0, 1))
"""


def start(work, length):
    script = SCRIPT.format(path=[p for p in sys.path if p], work=str(work), length=length)
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)


def workers_of(pid: int) -> set[int]:
    return {int(p.name) for p in Path("/proc").glob("[0-9]*") if _parent(p) == pid}


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def gone(pids: set[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_kill_minus_nine_leaves_no_worker_and_loses_nothing(tmp_path):
    kills, kept = 0, {}
    for _ in range(12):
        process = start(tmp_path / "w", 6)
        before, workers = len(kept), set()
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            workers |= workers_of(process.pid)
            if len(list((tmp_path / "w").rglob("*.trace"))) >= before + 4:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        code = process.wait()
        stderr = process.communicate()[1].decode()
        assert gone(workers, 20), "workers outlive their study"
        now = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "w").rglob("*.trace")}
        assert all(now[path] == content for path, content in kept.items())
        kept = now
        if code == 0:
            break
        assert code == -signal.SIGKILL, stderr
        assert workers
        kills += 1
    assert code == 0
    assert kills >= 2
    variants = [StudyVariant("a", doubles.load_slow), StudyVariant("b", doubles.load_slow_other)]
    qf.study(variants, [[1, 2], [4, 5], [7]], work_dir=tmp_path / "u", max_new_tokens=6, repeats=0)
    assert numbers(tmp_path / "w") == numbers(tmp_path / "u")


def test_an_interrupt_ends_the_workers(tmp_path):
    process = start(tmp_path / "w", 20_000)
    workers, deadline = set(), time.monotonic() + 60
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        workers = workers_of(process.pid)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)  # to it alone, not to its group as a terminal would
    assert b"KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert gone(workers, 1)


def test_a_board_gives_every_job_once():
    board = Board({"a": range(40), "b": range(30), "c": range(1), "d": []}, {})
    taken: list[tuple[str, int]] = []

    def take(runner):
        while (job := board.take(runner)) is not None:
            taken.append(job)
            time.sleep(0.0005)

    threads = [threading.Thread(target=take, args=(index,)) for index in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [("a", i) for i in range(40)] + [("b", i) for i in range(30)] + [("c", 0)]


def test_a_board_spares_loading():
    board = Board({"a": range(3), "b": range(2), "c": range(1)}, {0: "b", 1: None})
    assert board.take(0) == ("b", 0)  # the model is there
    assert board.take(1) == ("a", 0)  # nobody's
    assert board.take(1) == ("a", 1)
    assert board.take(0) == ("b", 1)
    assert board.take(0) == ("c", 0)
    assert board.take(0) is None  # one job is not worth a load
    board.abandon("a")
    assert board.take(1) is None


def test_a_board_helps_where_that_is_sooner():
    """Ten jobs of a second each are halved by a load of four seconds, not by one of six."""
    for load, wanted in ((4.0, ("a", 0)), (6.0, None)):
        times = Times()
        times.loaded("a", load)
        for _ in range(3):
            times.ran("a", 1.0)
        assert Board({"a": range(10)}, {0: "a"}, times).take(1) == wanted
        assert Board({"a": range(10)}, {}, times).take(1) == ("a", 0)  # nobody else has it


def test_jobs_survive_pickle_with_their_bits():
    trace = doubles.small_trace()
    assert pickle.loads(pickle.dumps(trace)).digest == trace.digest


@pytest.mark.parametrize(
    ("executor", "named", "message"),
    [("cuda", "0,x", "numbers from 0"), ("cuda", "", "numbers from 0"), ("cuda", "-1", "numbers from 0"),
     ("cpu", "0", "expected none with executor 'cpu'"), ("cuda", "2", "expected numbers below 2")],
)  # fmt: skip
def test_gpus_that_are_not_there_are_refused(monkeypatch, executor, named, message):
    monkeypatch.setattr(_core, "built_with_cuda", True)
    monkeypatch.setattr(_core, "gpu_count", lambda: 2)
    with pytest.raises(ValueError, match=message):
        gpus_of(executor, named)


def test_all_gpus_are_used_by_default(monkeypatch):
    monkeypatch.setattr(_core, "built_with_cuda", True)
    for count, wanted in ((0, []), (1, []), (3, [0, 1, 2])):
        monkeypatch.setattr(_core, "gpu_count", lambda count=count: count)
        assert gpus_of("auto", None) == wanted
        assert gpus_of("cpu", None) == []
    assert gpus_of("cuda", "2, 0,0") == [2, 0, 0]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpu(4) == "4"
