"""Commands that repeat and compare whole runs: noise-floor and study."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from qforensics.cli._app import (
    EXIT_HELP,
    ExitCode,
    ListCommand,
    app,
    finish,
    print_json,
    print_table,
    progress_bar,
    study_progress,
)
from qforensics.cli.judging import OUTCOMES, read_trace
from qforensics.cli.models import EXECUTOR, JSON, LIMIT, MODEL
from qforensics.cli.tables import variant_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qforensics.noise import NoiseFloor
    from qforensics.study_result import StudyResult

__all__ = ["noise_floor", "study", "study_exit"]


def _prompts(path: Path | None, model: str) -> list[list[int]]:
    """Prompts of a JSON file (text, lists of ids, or objects with `ids`), or the recordings' own."""
    from qforensics._json import JsonFileError, read_json
    from qforensics.recordings import prompts
    from qforensics.text import tokenizer_of

    if path is None:
        return prompts()
    data = read_json(path, limit=1 << 26)
    found = [item.get("ids") if isinstance(item, dict) else item for item in data] if isinstance(data, list) else []
    if any(isinstance(item, str) for item in found):
        tokenizer = tokenizer_of(model)
        found = [tokenizer.encode(item) if isinstance(item, str) else item for item in found]
    if not found or not all(isinstance(p, list) and p and all(type(t) is int and t >= 0 for t in p) for p in found):
        expected = "a list of prompts: texts, lists of token ids, or objects with `ids`"
        raise JsonFileError(path, "file", expected, data)
    return [list(prompt) for prompt in found if prompt]


@app.command("noise-floor", epilog=EXIT_HELP)
def noise_floor(
    traces: list[Path] | None = typer.Argument(None, help="Repeats to measure: trace files or recordings."),
    hypothesis: str | None = typer.Option(None, help="Instead of files, repeat this VARIANT@DEVICE here."),
    model: str = MODEL,
    prompts: Path | None = typer.Option(
        None, help="JSON: a list of prompts, texts or ids; by default the recordings' own."
    ),
    max_new_tokens: int = typer.Option(32, min=1, help="Greedy tokens of a repeat."),
    repeats: int = typer.Option(3, min=2, help="Runs of every prompt."),
    processes: int = typer.Option(2, min=1, help="Processes that the repeats are spread over."),
    threads: int | None = typer.Option(None, min=1, help="CPU threads; no result depends on them."),
    output_dir: Path = typer.Option(Path("results/noise-floor"), help="Where repeats are kept; a killed run goes on."),
    plot: Path | None = typer.Option(None, help="Write the picture to this file."),
    as_json: bool = JSON,
) -> None:
    """Measure what repeated runs differ by: 0 bit-equal, 1 they differ."""
    from qforensics.noise import noise_floor as measure

    if bool(traces) == bool(hypothesis):
        raise typer.BadParameter("expected either trace files or --hypothesis")
    if traces:
        floor = measure([read_trace(path) for path in traces])
    else:
        length = {"max_new_tokens": max_new_tokens, "repeats": repeats, "processes": processes}
        floor = _repeat(str(hypothesis), model, _prompts(prompts, model), output_dir, threads, length)
    if plot is not None:
        _save(floor.plot(), plot)
    if as_json:
        print_json(floor.to_json())
    else:
        names = ("compared", "differing", "max_abs", "seeds_l2")
        rows = [[name, getattr(floor.prefill, name), getattr(floor.decode, name)] for name in names]
        print_table(repr(floor), ["all pairs", "prefill", "decode"], rows, notes=floor.warnings)
    finish(ExitCode.MATCH if floor.deterministic else ExitCode.MISMATCH)


def _repeat(
    name: str, model: str, prompts: list[list[int]], directory: Path, threads: int | None, sizes: dict[str, Any]
) -> NoiseFloor:
    from qforensics.hypotheses import Hypothesis
    from qforensics.study import study as run_study

    hypothesis = Hypothesis.parse(name)
    variant = replace(hypothesis.study_variant(model, threads=threads), deterministic_loader=None)
    with progress_bar("repeat") as bar:
        result = run_study(
            [variant],
            prompts,
            work_dir=directory,
            claimed=[],
            noise_prompts=len(prompts),
            progress=study_progress(bar),
            **sizes,
        )
    if result.errors:
        raise RuntimeError(result.errors[0].error)
    return result.floors[hypothesis.name]


def _check_repeats(repeats: int) -> int:
    if repeats == 1:
        raise typer.BadParameter("expected 0 (no noise floor), or 2 and more, found 1")
    return repeats


def _save(axes: Axes, path: Path) -> None:
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(path, dpi=150)


def study_exit(result: StudyResult) -> ExitCode:
    """The gravest of a study's outcomes: a failure, a mismatch, something inconclusive, or matches alone."""
    if result.errors or not (result.verdicts or result.floors):
        return ExitCode.FAILURE
    codes = {OUTCOMES[verdict.outcome] for verdict in result.verdicts}
    return next((code for code in (ExitCode.MISMATCH, ExitCode.INCONCLUSIVE) if code in codes), ExitCode.MATCH)


@app.command(cls=ListCommand, epilog=EXIT_HELP)
def study(
    variants: list[str] = typer.Option(
        ["all"], help="Variants, VARIANT or VARIANT@DEVICE; several after one option, or `all`."
    ),
    list_variants: bool = typer.Option(False, "--list-variants", help="List the variants and exit."),
    output_dir: Path = typer.Option(Path("results/study"), help="Traces, journal and results; a killed run goes on."),
    devices: list[str] = typer.Option(["a100"], help="GPUs of the variants that name none."),
    claimed: list[str] = typer.Option([], help="Whose claims are judged; by default every variant's."),
    model: str = MODEL,
    prompts: Path | None = typer.Option(
        None, help="JSON: a list of prompts, texts or lists of token ids; by default the recordings' own."
    ),
    max_new_tokens: int = typer.Option(32, min=1, help="Greedy tokens of references and repeats."),
    repeats: int = typer.Option(
        3, min=0, callback=_check_repeats, help="Runs of the first prompt for the noise floor; 0: none, else 2 or more."
    ),
    processes: int = typer.Option(2, min=1, help="Processes that the repeats are spread over."),
    max_num_batched_tokens: int | None = LIMIT,
    executor: str = EXECUTOR,
    gpus: str | None = typer.Option(
        None, help="GPUs that work side by side, as 0,1; by default all that there are, where the executor uses any."
    ),
    threads: int | None = typer.Option(None, min=1, help="CPU threads; no result depends on them."),
    as_json: bool = JSON,
) -> None:
    """Generate references, replay each under every variant, measure noise floors, and judge every claim."""
    if list_variants:
        variant_table(as_json)
        return
    from qforensics._gpu import gpus_of
    from qforensics._json import write_atomic
    from qforensics.hypotheses import spread
    from qforensics.report import report_html, report_tables
    from qforensics.study import study as run_study

    chosen = spread(variants, devices)
    with ThreadPoolExecutor() as pool:  # their checkpoints' digests take the time
        found = list(pool.map(lambda h: h.study_variant(model, threads=threads, executor=executor), chosen))
    names = [h.name for h in spread(claimed, devices)] if claimed else None
    with progress_bar("study") as bar:
        result = run_study(
            found,
            _prompts(prompts, model),
            work_dir=output_dir,
            max_new_tokens=max_new_tokens,
            claimed=names,
            repeats=repeats,
            processes=processes,
            max_num_batched_tokens=max_num_batched_tokens,
            gpus=gpus_of(executor, gpus),
            progress=study_progress(bar),
        )
    write_atomic(output_dir / "results" / "study.html", report_html(result).encode())
    if as_json:
        print_json(result.to_json())
    else:
        for title, head, rows in report_tables(result):
            print_table(title, head, rows)
        print(f"results: {output_dir / 'results'}")
    finish(study_exit(result))
