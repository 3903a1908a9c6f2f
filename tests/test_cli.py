"""The command line, run as a script runs it: exit codes, JSON, tables, and errors in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import forensics_doubles as doubles
import qforensics as qf
from family_models import DTYPES, write_model
from qforensics.cli import app
from qforensics.quantize import quantize_checkpoint
from qforensics.recordings import RECORDINGS, prompts, recording

RECORDED = doubles.RECORDED
SHIPPED = Path(qf.__file__).parent / "data" / "traces"
VARIANTS = ["fp16", "awq", "awq_marlin", "gptq", "gptq_marlin", "openvino", "pytorch_int4"]


def run(*args: object, code: int = 0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
    return result


def test_variants_say_which_kernel_runs():
    rows = {row["name"]: row for row in json.loads(run("variants", "--json").stdout)}
    assert list(rows) == VARIANTS
    assert rows["gptq_marlin"]["kernels"] == {"a100": "marlin", "h200": "machete"}
    assert rows["gptq"]["kernels"] == {"a100": "exllama", "h200": "exllama"}
    assert "machete" in run("variants").stdout


def test_list_variants_of_a_study_as_the_seeds_spell_it():
    listed = json.loads(run("study", "--variants", "awq", "gptq", "--list-variants", "--json").stdout)
    assert [row["name"] for row in listed] == VARIANTS


def test_devices_and_kernels():
    devices = {d["name"]: d for d in json.loads(run("devices", "--json").stdout)}
    assert devices["a100-sxm4-80gb"]["sm_count"] == 108
    assert devices["h200"]["sm_count"] == 132
    assert "a100-sxm4-80gb" in run("devices").stdout
    kernels = {k["name"]: k for k in json.loads(run("kernels", "--json").stdout)}
    assert kernels["exllama"]["aliases"] == ["gptq"]
    assert "fp32_reduce" in kernels["marlin"]["options"]


def test_plan_in_words_and_as_a_picture(tmp_path):
    picture = tmp_path / "plan.png"
    text = run("plan", "marlin", "--shape", "16x6144x4096", "--device", "a100", "--plot", picture).stdout
    assert "M = 16, N = 6144, K = 4096" in text
    assert "over 108 SMs" in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(run("plan", "awq", "--shape", "1x768x768", "--json").stdout)
    assert found["shape"] == [1, 768, 768]
    assert len(found["trees"][0]["leaves"]) == 8  # split-K 8
    split = run("plan", "cublas", "--shape", "64x768x768", "--set", "split=4", "--json").stdout
    assert len(json.loads(split)["trees"][0]["leaves"]) == 4


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("plan", "marlin", "--shape", "16x6144"), 2, "MxNxK"),
        (("plan", "marln", "--shape", "1x768x768"), 4, "did you mean marlin"),
        (("plan", "marlin", "--shape", "1x768x768", "--device", "h20"), 4, "h200"),
        (("nonsense",), 2, "nonsense"),
        (("study", "--variants"), 2, "requires an argument"),
        (("study", "--variants", "awk"), 4, "did you mean awq"),
        (("verify", "no-such-file.trace"), 4, "No such file"),
        (("generate", "--prompt-ids", "1,x", "--output", "x.trace"), 2, "token ids"),
        (("generate", "--prompt-ids", "\u00b2", "--output", "x.trace"), 2, "token ids"),
        (("generate", "--prompt-ids", "4294967296", "--output", "x.trace"), 2, "token ids"),
        (("generate", "--prompt-ids", "1", "--prompt", "x", "--output", "x.trace"), 2, "either"),
        (("generate", "--output", "x.trace"), 2, "either"),
        (("generate", "--prompt", "x", "--output", "no-such-directory/x.trace"), 4, "existing directory"),
        (("generate", "--prompt", "x", "--output", "."), 4, "found a directory"),
        (("generate", "--prompt", "x", "--output", "x.trace", "--model", "smollm2-135m"), 4, "smollm2-135m-padded"),
        (("generate", "--prompt-ids", "no-such.json", "--output", "x.trace"), 4, "no-such.json: No such file"),
        (("study", "--repeats", "1"), 2, "0 (no noise floor)"),
        (("show", SHIPPED / "awq.trace", "--html", "x.html"), 4, "--html shows a study"),
        (("show", RECORDED / "awq.json", "--html", "x.html"), 4, "--html shows a study"),
        (("noise-floor", "--threads", "0", SHIPPED / "awq.trace"), 2, "threads"),
    ],
)
def test_errors_are_one_sentence(args, code, words):
    result = run(*args, code=code)
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    if code == 4:
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


def test_debug_keeps_the_exception():
    result = CliRunner().invoke(app, ["--debug", "plan", "marln", "--shape", "1x768x768"])
    assert isinstance(result.exception, ValueError)


def test_a_file_ends_a_list_of_variants(tmp_path, monkeypatch):
    """As in `verify --variants awq gptq run.trace`; a directory of a variant's name is no trace."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gptq").mkdir()
    doubles.small_trace().save(tmp_path / "run.trace")
    asked: list = []

    def parse(names, devices):
        asked.append(list(names))
        raise ValueError("stop here")

    monkeypatch.setattr("qforensics.hypotheses.spread", parse)
    claim = ("--claim", "awq@h200")
    run("verify", *claim, "--variants", "awq", "gptq", "run.trace", code=4)
    run("verify", *claim, "--variants", "awq", "gptq", "--", "run.trace", code=4)
    run("verify", "run.trace", *claim, "--variants", "awq", "gptq", code=4)
    assert asked == [["awq", "gptq"]] * 3


CRASH = """
import sys
from qforensics.__main__ import main
sys.argv = ["qforensics", {option} "variants", "--json"]
{fault}
main()
"""
PRINT = "from qforensics.cli import tables\ndef fail(*_): raise {}\ntables.print_json = fail"


@pytest.mark.parametrize(
    ("option", "fault", "words"),
    [
        ("", PRINT.format("KeyError('k')"), "error: KeyError: 'k' (unexpected: --debug shows where)"),
        ("'--debug',", PRINT.format("KeyError('k')"), "Traceback"),
        ("", PRINT.format("KeyboardInterrupt"), "interrupted"),
        ("", "sys.modules['qforensics.cli.tables'] = None", "import of qforensics.cli.tables halted"),
    ],
)
def test_a_crash_is_no_mismatch(option, fault, words):
    """Python's and typer's own exit code for these is 1, which says mismatch here."""
    code = CRASH.format(option=option, fault=fault)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, words in done.stderr) == (4, True), done.stderr


def test_import_compare_noise_floor_show(tmp_path):
    first, second = tmp_path / "1.trace", tmp_path / "2.trace"
    made = json.loads(run("import", RECORDED / "gptq.json", first, "--json").stdout)
    assert made["digest"] == RECORDINGS["gptq"]
    run("import", RECORDED / "gptq.json", second, "--part", "again")
    assert run("compare", first, first).stdout.count("differing") == 1
    other = json.loads(run("compare", first, second, "--json", code=1).stdout)
    assert (other["prefill"]["differing"], other["prefill"]["compared"]) == (755, 755)
    floor = json.loads(run("noise-floor", first, second, "--json", code=1).stdout)
    assert floor["classes"] == [[0, 1]]
    assert floor["decode"]["differing"] == 640
    run("noise-floor", first, first)
    shown = json.loads(run("show", first, "--json").stdout)
    assert shown["digest"] == made["digest"]
    assert shown["prompt_ids"] == prompts()[0]
    assert "NVIDIA H200" in run("show", RECORDED / "gptq.json").stdout


def test_other_contexts_are_inconclusive(tmp_path):
    doubles.small_trace(prompt=(1, 2, 3)).save(tmp_path / "a.trace")
    doubles.small_trace(prompt=(9, 2, 3)).save(tmp_path / "b.trace")
    run("compare", tmp_path / "a.trace", tmp_path / "b.trace", code=3)


def test_a_damaged_trace_is_refused(tmp_path):
    data = bytearray((SHIPPED / "awq.trace").read_bytes())
    data[-5] ^= 1
    (tmp_path / "bad.trace").write_bytes(data)
    assert "digest" in run("show", tmp_path / "bad.trace", code=4).stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"success": true}', "variant: expected a str, found nothing"),
        ('{"success": true, "variant": "awq"}', "description: expected a str, found nothing"),
        (
            '{"success": true, "variant": "awq", "description": "", "verdict": []}',
            "verdict: expected an object, found list",
        ),
        ('{"format": "qforensics.study"}', "required property"),
        ("{", "bad.json"),
        ('{"traces": [{}]}', "traces[0].prompt_ids"),
    ],
)
def test_hostile_files_are_named_with_their_field(tmp_path, text, words):
    (tmp_path / "bad.json").write_text(text)
    result = run("show", tmp_path / "bad.json", code=4)
    assert words in result.stderr
    assert str(tmp_path / "bad.json") in result.stderr


def test_recordings_are_the_recorded_files():
    for name, digest in RECORDINGS.items():
        file, again = name.removesuffix("-again"), name.endswith("-again")
        source = qf.import_trace(RECORDED / f"{file}.json", 0, part="again" if again else None)
        assert recording(name).digest == source.digest == digest
    assert prompts()[0] == recording("awq").prompt_ids.tolist()


def test_head_of_a_trace():
    whole = recording("awq")
    cut = whole.head(3)
    assert (cut.prefill.rows, cut.decode.rows, cut.generated_ids.size) == (37, 3, 3)
    assert cut.prefill == whole.prefill
    assert cut.decode.logprobs.tobytes() == whole.decode.logprobs[: cut.decode.entries].tobytes()
    assert cut.provenance["head_of"] == whole.digest
    assert whole.head(99) is whole
    with pytest.raises(ValueError, match="decode_rows"):
        whole.head(-1)


@pytest.mark.slow
def test_verify_judges_by_bits(tmp_path):
    trace = SHIPPED / "awq.trace"
    args = ("verify", trace, "--steps", 2, "--output-dir", tmp_path, "--hypotheses", "awq_marlin@h200", "--json")
    verdict = json.loads(run(*args).stdout)
    assert (verdict["claim"], verdict["outcome"]) == ("awq@h200", "match")
    counts = {c["name"]: (c["differing"], c["compared"]) for c in verdict["counts"]}
    assert counts == {"awq@h200": (0, 796), "awq_marlin@h200": (796, 796)}
    again = run(*args[:-1])  # resumed: nothing is loaded
    assert "0 of 756" in again.stdout
    false = run("verify", trace, "--steps", 1, "--claim", "awq_marlin@h200", code=1)
    assert "mismatch" in false.stdout


@pytest.mark.slow
def test_noise_floor_of_a_racing_kernel(tmp_path):
    (tmp_path / "prompts.json").write_text("[[504, 18898, 282]]")
    sizes = ("--max-new-tokens", 1, "--repeats", 2, "--prompts", tmp_path / "prompts.json")
    args = ("noise-floor", "--hypothesis", "gptq@h200", *sizes, "--output-dir", tmp_path / "n", "--json")
    floor = json.loads(run(*args, code=1).stdout)
    assert floor["cause"] == "racing atomics (exllama)"
    assert (floor["repeats"], floor["processes"], floor["classes"]) == (2, 2, [[0, 1]])
    run("noise-floor", code=2)


@pytest.mark.slow
def test_generate_then_study(tmp_path):
    made = json.loads(
        run(
            "generate", "--prompt-ids", "504,18898,282,5912", "--variant", "awq", "--device", "a100",
            "--max-new-tokens", 2, "--output", tmp_path / "g.trace", "--json",
        ).stdout
    )  # fmt: skip
    assert qf.Trace.load(tmp_path / "g.trace").numbers_digest == made["numbers"]
    (tmp_path / "prompts.json").write_text('["The verification of claims"]')
    args = ("study", "--variants", "awq", "awq_marlin", "--prompts", tmp_path / "prompts.json", "--output-dir")
    found = json.loads(run(*args, tmp_path / "s", "--max-new-tokens", 2, "--repeats", 0, "--json").stdout)
    assert [v["outcome"] for v in found["verdicts"]] == ["match", "match"]
    text = run("generate", "--prompt", "The capital of", "--max-new-tokens", 1, "--output", tmp_path / "t.trace").stdout
    assert 'text: "' in text
    assert '"The capital of"' in run("show", tmp_path / "t.trace").stdout
    too_long = ("generate", "--prompt", "x", "--max-new-tokens", 8193, "--output", tmp_path / "t.trace")
    assert "at most 8192 positions" in run(*too_long, code=4).stderr
    assert "at least one id" in run("generate", "--prompt", "", "--output", tmp_path / "t.trace", code=4).stderr
    reference = qf.Trace.load(tmp_path / "s" / "traces" / "reference" / "awq@a100" / "0.trace")
    assert reference.numbers_digest == made["numbers"]
    assert "awq@a100" in run("show", tmp_path / "s" / "results" / "study.json", "--html", tmp_path / "s.html").stdout
    assert "<table>" in (tmp_path / "s.html").read_text()


def test_a_study_of_forms_in_chunks(tmp_path):
    """A directory of checkpoints by form is a model; references and replays go through in the same chunks."""
    write_model(tmp_path / "m" / "fp16", "qwen3", DTYPES["fp16"], hidden_size=256, intermediate_size=512)
    for form in ("awq", "gptq"):
        quantize_checkpoint(tmp_path / "m" / "fp16", tmp_path / "m" / form, method=form, group_size=64)
    (tmp_path / "p.json").write_text(json.dumps([list(range(5, 25))]))
    model, limit = ("--model", tmp_path / "m"), "--max-num-batched-tokens"
    study = ("study", *model, "--variants", "fp16", "awq", "gptq_marlin", "--prompts", tmp_path / "p.json")
    study += ("--max-new-tokens", 2, "--repeats", 0, "--output-dir", tmp_path / "s")
    found = json.loads(run(*study, limit, 8, "--json").stdout)
    assert [v["outcome"] for v in found["verdicts"]] == ["match"] * 3
    assert found["settings"]["max_num_batched_tokens"] == 8
    for kind in ("reference", "replay/awq@a100"):
        trace = qf.Trace.load(tmp_path / "s" / "traces" / kind / "awq@a100" / "0.trace")
        assert trace.provenance["rows"] == [["prefill", 8], ["prefill", 8], ["prefill", 4], ["decode", 1]]
    assert "another study (not the same: max_num_batched_tokens)" in run(*study, limit, 9, code=4).stderr
    assert "expected none with executor 'cpu'" in run(*study, "--gpus", "0", code=4).stderr
    made = ("generate", *model, "--variant", "awq", "--prompt-ids", "5,6,7,8,9", "--output", tmp_path / "t")
    run(*made, "--max-new-tokens", 1, limit, 4)
    assert qf.Trace.load(tmp_path / "t").provenance["rows"] == [["prefill", 4], ["prefill", 1]]


@pytest.mark.slow
def test_a_recorded_batch(tmp_path):
    recording = RECORDED / "long" / "awq-eager.json"
    alone = qf.import_trace(recording, 0, part="batch").head(1)  # one of four: its rows (M) cannot be replayed
    alone.save(tmp_path / "one.trace")
    found = json.loads(run("verify", tmp_path / "one.trace", "--json", code=3).stdout)
    assert "batch of 4" in found["reasons"][1]
    assert found["counts"][0]["differing"] > 0
    text = run("verify", recording, "--part", "batch", "--steps", 1).stdout
    assert "0 of 44,222" in text
    assert "0 of 80" in text
