"""Commands that compare, judge and show: verify, compare, show."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from qforensics.cli._app import (
    EXIT_HELP,
    ExitCode,
    ListCommand,
    app,
    finish,
    out,
    print_json,
    print_table,
    progress_bar,
    study_progress,
)
from qforensics.cli.models import EXECUTOR, JSON, MODEL

if TYPE_CHECKING:
    from qforensics.comparison import Comparison
    from qforensics.hypotheses import Hypothesis
    from qforensics.study_result import StudyResult
    from qforensics.trace import Trace
    from qforensics.verdict import Verdict

__all__ = ["OUTCOMES", "compare", "read_trace", "show", "verify"]

OUTCOMES = {"match": ExitCode.MATCH, "mismatch": ExitCode.MISMATCH, "inconclusive": ExitCode.INCONCLUSIVE}
COLOURS = {"match": "green", "mismatch": "red", "inconclusive": "yellow"}


def read_trace(path: Path, *, index: int = 0, part: str | None = None) -> Trace:
    """A trace file, or one run of a recording (JSON)."""
    from qforensics.importing import import_trace
    from qforensics.trace import Trace

    with open(path, "rb") as file:
        head = file.read(64).lstrip()
    return import_trace(path, index, part=part) if head.startswith(b"{") else Trace.load(path)


def _claimed(trace: Trace, claim: str | None) -> Hypothesis:
    from qforensics.devices import device as find_device
    from qforensics.hypotheses import Hypothesis

    if claim is not None:
        return Hypothesis.parse(claim)
    try:
        recorded = trace.provenance["variant"], trace.provenance["device"]
    except KeyError as missing:
        raise ValueError(f"the trace does not record its {missing}: name the claim, --claim VARIANT@DEVICE") from None
    return Hypothesis.parse(str(recorded[0]), device=find_device(str(recorded[1])).name)


def _batch(trace: Trace) -> int:
    return int(trace.provenance["batch"])


@app.command(cls=ListCommand, epilog=EXIT_HELP)
def verify(
    trace: Path = typer.Argument(help="A trace file, or a recording of an engine (JSON)."),
    claim: str | None = typer.Option(None, help="VARIANT@DEVICE; by default what the trace says of itself."),
    hypotheses: list[str] = typer.Option(
        [],
        "--variants",
        "--hypotheses",
        help="What else to replay as: VARIANT or VARIANT@DEVICE, several after one option; `all`: every variant.",
    ),
    devices: list[str] = typer.Option(["h200", "a100"], help="GPUs of the variants that name none."),
    model: str = MODEL,
    index: int = typer.Option(0, min=0, help="Which run of a recording."),
    part: str | None = typer.Option(
        None, help="Part of a recording: traces, again, alone or batch; a batch is replayed and judged as a whole."
    ),
    steps: int | None = typer.Option(None, min=0, help="Replay only the first decode steps."),
    executor: str = EXECUTOR,
    threads: int | None = typer.Option(None, min=1, help="CPU threads; no result depends on them."),
    output_dir: Path | None = typer.Option(None, help="Keep replays and study.json here; a killed run goes on."),
    as_json: bool = JSON,
) -> None:
    """Replay a trace under hypotheses and judge the claim, by the bits of its logprobs."""
    from qforensics.hypotheses import spread
    from qforensics.study import study

    whole = range(_batch(read_trace(trace, part=part))) if part == "batch" else [index]
    found = [read_trace(trace, index=i, part=part) for i in whole]
    found = found if steps is None else [run.head(steps) for run in found]
    claimed = _claimed(found[0], claim)
    chosen = [
        claimed,
        *(h for h in spread(hypotheses, devices) if (h.variant, h.gpu) != (claimed.variant, claimed.gpu)),
    ]
    with contextlib.ExitStack() as stack:
        work = output_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qforensics-")))
        bar = stack.enter_context(progress_bar("verify"))
        result = study(
            [h.study_variant(model, threads=threads, executor=executor) for h in chosen],
            work_dir=work,
            references={claimed.name: found},
            repeats=0,
            progress=study_progress(bar),
        )
    if not result.verdicts:
        raise RuntimeError(result.errors[0].error)
    verdict = result.verdicts[0]
    if as_json:
        print_json(verdict.to_json() | {"errors": [f"{e.variant}: {e.error}" for e in result.errors]})
    else:
        _print_verdict(verdict, {h.name: h.kernel for h in chosen}, result)
    finish(OUTCOMES[verdict.outcome])


def _print_verdict(verdict: Verdict, kernels: dict[str, str], result: StudyResult) -> None:
    from rich.text import Text

    rows: list[list[Any]] = []
    for count in verdict.counts:
        phases = [result.pooled(verdict.claim, count.name, phase) for phase in ("prefill", "decode")]
        numbers = [f"{p.differing:,} of {p.compared:,}" if p else "-" for p in phases]
        role = "excluded" if count.name in verdict.excluded else "undecided"
        role = "0 differing" if count.name in verdict.matching else role
        rows.append([count.name, kernels[count.name], *numbers, role])
    rows += [[e.variant, kernels.get(e.variant, ""), "-", "-", f"failed: {e.error}"] for e in result.errors]
    print_table("Differing logprobs", ["hypothesis", "kernel", "prefill", "decode", ""], rows)
    line = Text(f"{verdict.claim}: ") + Text(verdict.outcome, style=f"bold {COLOURS[verdict.outcome]}")
    console = out()
    console.print(line)
    for reason in verdict.reasons:
        console.print(Text(f"  {reason}"))


@app.command(epilog=EXIT_HELP)
def compare(
    first: Path = typer.Argument(help="The reference: a trace file or a recording."),
    second: Path = typer.Argument(help="Its replay."),
    as_json: bool = JSON,
) -> None:
    """Compare two traces entry by entry: 0 equal bits, 1 some differ, 3 some positions have other contexts."""
    from qforensics.comparison import compare as compare_traces

    found = compare_traces(read_trace(first), read_trace(second))
    if as_json:
        plain = {phase: getattr(found, phase).to_json() for phase in ("prefill", "decode")}
        print_json(plain | {"exact": found.exact, "digests": list(found.digests)})
    else:
        _print_comparison(found)
    finish(ExitCode.MATCH if found.exact else ExitCode.MISMATCH if found.differing else ExitCode.INCONCLUSIVE)


def _print_comparison(found: Comparison) -> None:
    names = ("rows", "skipped", "compared", "differing", "missing", "max_abs", "seeds_l2", "first_difference")
    rows = [[name, getattr(found.prefill, name), getattr(found.decode, name)] for name in names]
    print_table("Comparison", ["", "prefill", "decode"], rows)
    if found.divergence:
        at = found.divergence
        margins = f"margins {at.first_margin:.3g} and {at.second_margin:.3g}"
        print(f"generated ids diverge at {at.index}: {at.first_id} against {at.second_id}, {margins}")


@app.command()
def show(
    file: Path = typer.Argument(help="A trace, a study.json, a variant's result file, or a recording."),
    html: Path | None = typer.Option(None, help="Write a study as one HTML page."),
    model: str | None = typer.Option(
        None, help="Whose tokenizer shows a trace's text: the embedded default's name, a checkpoint, or a hub id."
    ),
    as_json: bool = JSON,
) -> None:
    """Show what a saved file holds."""
    from qforensics._json import JsonFileError, read_json
    from qforensics.seeds_format import check_variant_record
    from qforensics.trace import Trace

    with open(file, "rb") as stream:
        text = stream.read(64).lstrip().startswith(b"{")
    data = read_json(file, limit=1 << 30) if text else {}
    if not isinstance(data, dict):
        raise JsonFileError(file, "file", "an object", type(data).__name__)
    if data.get("format") == "qforensics.study":
        _show_study(file, html, as_json)
    elif html is not None:
        raise ValueError(f"{file}: --html shows a study (study.json), and this is none")
    elif not text:
        _show_trace(Trace.load(file), as_json, model)
    elif "experiment" in data or "success" in data:
        _show_variant_file(check_variant_record(data, file), as_json)
    else:
        _show_trace(read_trace(file), as_json, model)


def _show_trace(trace: Trace, as_json: bool, model: str | None) -> None:
    from qforensics.text import quoted, tokenizer_of, tokenizer_of_trace

    tokenizer = tokenizer_of_trace(trace) if model is None else tokenizer_of(model)
    both = {"prompt": trace.prompt_ids.tolist(), "generated": trace.generated_ids.tolist()}
    text = {name: tokenizer.decode(ids) for name, ids in both.items()} if tokenizer else {}
    plain = {"prompt_ids": trace.prompt_ids.tolist(), "generated_ids": trace.generated_ids.tolist()}
    counts = {"top_k": trace.top_k, "prefill_logprobs": trace.prefill.entries, "decode_logprobs": trace.decode.entries}
    digests = {"digest": trace.digest, "numbers_digest": trace.numbers_digest}
    if as_json:
        print_json({**plain, **counts, **digests, "text": text or None, "provenance": dict(trace.provenance)})
        return
    skipped = ("layers", "environment", "rows")
    facts = {key: value for key, value in trace.provenance.items() if key not in skipped}
    words = {name: quoted(found) for name, found in text.items()} or {"text": "ids only; --model shows the text"}
    rows = [*words.items(), *counts.items(), *digests.items(), *facts.items()]
    print_table(repr(trace), ["", ""], [[key, _fact(value)] for key, value in rows])


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_fact(item)}" for key, item in sorted(value.items(), reverse=True)) or "none"
    return "; ".join(map(_fact, value)) or "none" if isinstance(value, list) else str(value)


def _show_study(file: Path, html: Path | None, as_json: bool) -> None:
    from qforensics._json import write_atomic
    from qforensics.report import report_html, report_tables
    from qforensics.study_result import StudyResult

    result = StudyResult.load(file)
    if html is not None:
        write_atomic(html, report_html(result).encode())
    if as_json:
        print_json(result.to_json())
        return
    for title, head, rows in report_tables(result):
        print_table(title, head, rows)


def _show_variant_file(data: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(data)
    elif not data["success"]:
        print(f"{data['variant']}: failed: {data['error']}")
    else:
        verdict, stats = data["verdict"], data["baseline"]["stats"]
        rows = [[key, verdict[key]] for key in ("summary", "root_cause", "forensic_implications")]
        print_table(f"{data['variant']} ({data['description']})", ["", ""], [*rows, *stats.items()])
