"""The command that shows what this is for."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from qforensics.cli._app import EXIT_HELP, ExitCode, app, finish, print_json, print_table, progress_bar, study_progress
from qforensics.cli.judging import COLOURS

if TYPE_CHECKING:
    from rich.text import Text

    from qforensics.demo import DemoPlan, PairAnswer
    from qforensics.study_result import StudyResult
    from qforensics.verdict import Verdict

__all__ = ["demo"]


NEAREST = 5
"""How many hypotheses a note lists."""


@app.command(epilog=EXIT_HELP)
def demo(
    output_dir: Path = typer.Option(Path("results/demo"), help="Replays, journals and results; a killed run goes on."),
    decode_rows: int | None = typer.Option(None, min=1, help="Decode steps of every recording that are replayed."),
    threads: int | None = typer.Option(None, min=1, help="CPU threads; no result depends on them."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Replay five recorded vLLM runs under every hypothesis, then run the prior experiment beside the exact answer."""
    from qforensics import demo as module

    plan = module.DemoPlan(threads=threads)
    plan = plan if decode_rows is None else replace(plan, decode_rows=decode_rows)
    run(plan, output_dir, as_json=as_json)


def run(plan: DemoPlan, directory: Path, *, as_json: bool = False) -> None:
    """Run a demo plan and print it; ends with the exit code of `demo`."""
    from qforensics import demo as module
    from qforensics.prepare import prepare

    started = time.monotonic()
    with progress_bar("model") as bar:
        prepare(module.forms(plan), progress=lambda what, done, total: bar(done, total, what))
    if not as_json:
        _head(plan)
    with progress_bar("recordings") as bar:
        recorded = module.replay_recordings(plan, directory / "recorded", study_progress(bar))
    if not as_json:
        _print_recorded(plan, recorded, module.equal_replays(plan, directory / "recorded"))
    with progress_bar("studies") as bar:
        exact, prior = module.run_studies(plan, directory / "study", study_progress(bar))
    results = {"recorded": recorded, "exact": exact, "prior": prior}
    if as_json:
        print_json({name: result.to_json() for name, result in results.items()} | {"directory": str(directory)})
    else:
        _print_studies(plan, exact, prior)
        print(f"\n{time.monotonic() - started:.0f} s. Everything is kept in {directory}: traces, journals, study.json.")
    wrong = any(result.errors for result in results.values())
    mismatch = any(v.outcome == "mismatch" for result in (recorded, exact) for v in result.verdicts)
    finish(ExitCode.FAILURE if wrong else ExitCode.MISMATCH if mismatch else ExitCode.MATCH)


def _head(plan: DemoPlan) -> None:
    from qforensics.environment import selected_isa
    from qforensics.recordings import recording

    first = recording(plan.recorded[0])
    isa = selected_isa()
    print(f"1. {len(plan.recorded)} runs that vLLM 0.21 recorded on one NVIDIA H200, replayed on this CPU ({isa}):")
    rows = min(plan.decode_rows, first.decode.rows)
    print(f"   {first.prompt_ids.size} prompt ids as one prefill, {rows} generated ids one decode step each.\n")


def _count(differing: int, compared: int, *, bold: bool) -> Text:
    from rich.text import Text

    style = "bold green" if differing == 0 else "bold yellow" if bold else ""
    return Text(f"{differing:,}" if differing else f"0 of {compared:,}", style=style)


def _print_recorded(plan: DemoPlan, result: StudyResult, equal: list[tuple[str, ...]]) -> None:
    from rich.text import Text

    rows: list[list[Any]] = []
    for hypothesis in plan.hypotheses:
        cells: list[Any] = [hypothesis.name, hypothesis.kernel]
        for claim in result.claimed:
            found = [result.pooled(claim, hypothesis.name, phase) for phase in ("prefill", "decode")]
            if any(p is None for p in found):
                cells.append("failed")
                continue
            counts = [(p.differing, p.compared) for p in found if p is not None]
            own = claim == hypothesis.name
            cells.append(_count(sum(c[0] for c in counts), sum(c[1] for c in counts), bold=own))
        rows.append(cells)
    outcomes = {v.claim: Text(v.outcome, style=f"bold {COLOURS[v.outcome]}") for v in result.verdicts}
    rows.append([Text("verdict on the claim", style="bold"), "", *(outcomes.get(c, "failed") for c in result.claimed)])
    heads = ["replayed as", "kernel", *(f"recorded\n{c.partition('@')[0]}" for c in result.claimed)]
    print_table("Differing logprobs (by bits)", heads, rows, notes=_recorded_notes(plan, result, equal))


def _recorded_notes(plan: DemoPlan, result: StudyResult, equal: list[tuple[str, ...]]) -> list[str]:
    from qforensics.comparison import compare
    from qforensics.demo import RECORDED_ON
    from qforensics.recordings import recording

    notes = []
    shared: dict[tuple[str, str], list[str]] = {}
    for h in plan.hypotheses:
        shared.setdefault((h.kernel, h.gpu), []).append(h.name)
    for (kernel, _), names in shared.items():
        if len(names) > 1:
            notes.append(f"{' and '.join(names)} run one kernel, {kernel}; their weights differ, and so do the bits.")
    found = "; ".join(" = ".join(names) for names in equal)
    notes.append(
        f"Hypotheses that compute the same bits here, so that nothing tells them apart: {found}."
        if equal
        else "No two of these hypotheses compute the same bits here; two that did would share every count above."
    )
    for verdict in result.verdicts:
        if verdict.outcome != "match":
            notes.append(_why(verdict))
    if "gptq" in plan.recorded:
        again = compare(recording("gptq").head(plan.decode_rows), recording("gptq-again").head(plan.decode_rows))
        count = f"{again.differing:,} of {again.compared:,}"
        notes.append(f"vLLM's own second run of gptq differs from its first in {count};")
        near = {h.name: result.pooled(f"gptq@{RECORDED_ON}", h.name, "prefill") for h in plan.hypotheses}
        sizes = {"that run": again.prefill.seeds_l2} | {name: p.seeds_l2 for name, p in near.items() if p}
        ranked = sorted((size, name) for name, size in sizes.items() if size is not None)
        listed = ", ".join(f"{name} {size:.3f}" for size, name in ranked[:NEAREST])
        notes.append(f"   nearest to the first by mean L2 of the prefill: {listed}.")
    return notes


def _why(verdict: Verdict) -> str:
    return f"{verdict.claim}: {verdict.outcome}: {'; '.join(verdict.reasons[1:2] or verdict.reasons)}."


def _print_studies(plan: DemoPlan, exact: StudyResult, prior: StudyResult) -> None:
    from qforensics.report import report_tables

    print(
        f"\n2. The prior experiment with {len(plan.variants)} INT4 variants: references as an {plan.device.upper()} "
        f"makes them\n   ({plan.prompts} prompts of {plan.prompt_ids} ids, {plan.new_tokens} tokens), verified on an "
        f"{plan.verifier.upper()} by distances, and beside it replayed exactly.\n"
    )
    for title, head, rows in report_tables(exact):
        if title == "Noise floors":
            print_table(f"Noise floors on the {plan.device.upper()}", head, rows)
    for phase in ("prefill", "decode"):
        _print_l2(plan, prior, phase)
        _print_pairs(exact, prior, phase)
    _print_exact(plan, exact)
    for result in (exact, prior):
        for error in result.errors:
            print(f"failed: {error.variant}, {error.stage}: {error.error}")


def _print_l2(plan: DemoPlan, prior: StudyResult, phase: str) -> None:
    matrix = prior.matrix(phase, "seeds_l2")
    rows = [
        [claim, *("-" if math.isnan(v) else f"{v:.2e}" for v in values)]
        for claim, values in zip(prior.claimed, matrix, strict=True)
    ]
    title = f"The prior experiment, {phase}: mean L2 (rows: claim, {plan.device}; columns: verified on {plan.verifier})"
    print_table(title, ["", *prior.verified], rows)


def _print_pairs(exact: StudyResult, prior: StudyResult, phase: str) -> None:

    from qforensics.demo import answers

    rows: list[list[Any]] = []
    for a in answers(exact, prior, phase):
        ratio = "-" if math.isnan(a.snr) else "inf" if math.isinf(a.snr) else f"{a.snr:.1f}x"
        rows.append([f"{a.first} vs {a.second}", f"{a.signal:.2e}", f"{a.noise:.2e}", ratio, a.label.lower(), _told(a)])
    heads = ["pair", "signal", "noise", "SNR", "prior experiment", "exact replay (prefill and decode)"]
    print_table(f"Signal to noise, {phase}, beside the exact answer", heads, rows)


def _told(answer: PairAnswer) -> Text:
    from rich.text import Text

    if answer.differing == 0:
        return Text("the same bits", style="yellow")
    if len(answer.exact) == 2:
        return Text(f"told apart: {answer.differing:,} of {answer.compared:,} differ", style="green")
    if answer.exact:
        return Text(f"told apart for {answer.exact[0]}; the other one races", style="green")
    return Text("not by exactness: both race", style="yellow")


def _print_exact(plan: DemoPlan, exact: StudyResult) -> None:
    from rich.text import Text

    outcomes = {v.claim: v for v in exact.verdicts}
    rows: list[list[Any]] = []
    for claim in exact.claimed:
        cells: list[Any] = [claim]
        for name in exact.verified:
            found = [exact.pooled(claim, name, phase) for phase in ("prefill", "decode")]
            counts = [(p.differing, p.compared) for p in found if p is not None]
            cell = _count(sum(c[0] for c in counts), sum(c[1] for c in counts), bold=claim == name)
            cells.append(cell if len(counts) == len(found) else "failed")
        verdict = outcomes.get(claim)
        cells.append(Text(verdict.outcome, style=f"bold {COLOURS[verdict.outcome]}") if verdict else "failed")
        rows.append(cells)
    notes = [_why(verdict) for verdict in exact.verdicts if verdict.outcome != "match"]
    title = f"Exact replay: differing logprobs (rows: claimed, {plan.device}; columns: replayed as, {plan.device})"
    print_table(title, ["", *exact.verified, "verdict"], rows, notes=notes)
