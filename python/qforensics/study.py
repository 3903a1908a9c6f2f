"""A whole study: references, every hypothesis' replay of them, noise floors and verdicts; resumable after any kill."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qforensics._json import write_json
from qforensics._repeat_worker import Replayer
from qforensics._study_jobs import Generate, Job, replays_of
from qforensics._study_run import Progress, StudyRun, StudyVariant
from qforensics._workdir import WorkDir, check_name
from qforensics.comparison import Comparison, PhaseSummary, compare
from qforensics.environment import capture_environment, code_digests
from qforensics.noise import NoiseFloor, noise_floor
from qforensics.seeds_format import error_record, variant_record
from qforensics.study_result import StudyCell, StudyError, StudyResult
from qforensics.trace import Trace
from qforensics.verdict import Verdict, judge

__all__ = ["Progress", "Replayer", "StudyVariant", "study"]

PLAN_VERSION = 2


def _floors(run: StudyRun, kind: str, prompts: int, repeats: int) -> dict[str, NoiseFloor]:
    found = {}
    for variant in run.variants:
        traces = [run.work.load(kind, variant.name, p, r) for p in range(prompts) for r in range(repeats)]
        kept = [trace for trace in traces if trace is not None]
        if traces and len(kept) == len(traces):
            found[variant.name] = noise_floor(kept)
    return found


def _compare_all(
    run: StudyRun, references: Mapping[str, Sequence[Trace]]
) -> tuple[list[StudyCell], dict[str, dict[str, list[Comparison]]]]:
    """Cells, and per claim the comparisons of the hypotheses that were replayed in full."""
    cells: list[StudyCell] = []
    by_claim: dict[str, dict[str, list[Comparison]]] = {}
    for claim, traces in references.items():
        by_claim[claim] = {}
        for variant in run.variants:
            replays = [run.work.load("replay", claim, variant.name, i) for i in range(len(traces))]
            compared = [compare(a, b) for a, b in zip(traces, replays, strict=True) if b is not None]
            if not compared or len(compared) < len(traces):
                continue
            by_claim[claim][variant.name] = compared
            cells += [
                StudyCell(claim, variant.name, i, _summary(c.prefill), _summary(c.decode), c.digests)
                for i, c in enumerate(compared)
            ]
    return cells, by_claim


def _summary(phase: PhaseSummary) -> PhaseSummary:
    return PhaseSummary.from_json(phase.to_json())


def _judge_all(
    run: StudyRun, by_claim: Mapping[str, Mapping[str, list[Comparison]]], floors: Mapping[str, NoiseFloor]
) -> list[Verdict]:
    verdicts = []
    for claim, comparisons in by_claim.items():
        if claim in comparisons:
            verdicts.append(judge(claim, comparisons, floor=floors.get(claim)))
        else:
            run.errors.append(StudyError(claim, "judge", "no verdict: the claimed hypothesis was not replayed in full"))
    return verdicts


def _check(
    variants: Sequence[StudyVariant],
    claimed: Sequence[str],
    references: Mapping[str, Sequence[Trace]],
    prompts: int,
    repeats: int,
) -> None:
    names = [check_name(variant.name) for variant in variants]
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"variants: expected one or more different names, found {names}")
    for name in (*claimed, *references):
        if name not in names:
            raise ValueError(f"claimed {name!r} is not among the variants: {', '.join(names)}")
    if repeats < 0 or repeats == 1:
        raise ValueError(f"repeats: expected 0 (no noise floor), or 2 and more, found {repeats}")
    if not prompts and not all(references.get(name) for name in claimed):
        raise ValueError("prompts: expected at least one, or a reference for every claimed variant")


def _write_seeds_files(run: StudyRun, directory: Path, runs: int, settings: Mapping[str, Any], created: str) -> None:
    """One file per variant in the prior experiment's form, from the repeats of the first prompt."""
    lengths = {"max_tokens": settings["max_new_tokens"], "repetitions": runs}
    config = {"tensor_parallel": 1, **lengths, "temperature": 0.0, "seed": None}  # greedy: nothing is sampled
    for variant in run.variants:
        loaded = {
            kind: [run.work.load(kind, variant.name, 0, r) for r in range(runs)] for kind in ("repeat", "deterministic")
        }
        kept = {kind: [t for t in traces if t is not None] for kind, traces in loaded.items()}
        failed = [e for e in run.errors if e.variant == variant.name]
        if kept["repeat"] and len(kept["repeat"]) == runs:
            record = variant_record(
                variant.name,
                kept["repeat"],
                deterministic_runs=kept["deterministic"],
                timestamp=created,
                config=config | {"max_model_len": kept["repeat"][0].provenance.get("max_positions")},
                description=variant.description,
            )
        elif failed:
            record = error_record(variant.name, failed[0].error)
        else:
            continue
        write_json(directory / f"{variant.name}.json", record)


def study(
    variants: Sequence[StudyVariant],
    prompts: Sequence[Sequence[int]] = (),
    *,
    work_dir: str | os.PathLike[str],
    max_new_tokens: int = 32,
    claimed: Sequence[str] | None = None,
    references: Mapping[str, Sequence[Trace]] | None = None,
    repeats: int = 3,
    processes: int = 2,
    noise_prompts: int = 1,
    max_num_batched_tokens: int | None = None,
    gpus: Sequence[int] = (),
    progress: Callable[[Progress], None] | None = None,
) -> StudyResult:
    """Run a study: every claimed variant's references replayed under every variant, floors, and a verdict per claim.

    Every finished cell is kept in `work_dir`; the same call there goes on where a killed one stopped. A variant that
    fails leaves its error in the result.

    Parameters
    ----------
    variants
        The hypotheses.
    prompts
        Token ids; every claimed variant without given references generates one reference per prompt.
    work_dir
        Directory for traces, plan and journal; results go to its ``results`` folder: ``study.json`` and, where repeats
        ran, ``<variant>.json`` in the prior experiment's form.
    max_new_tokens
        Length of generated references and repeats.
    claimed
        Names whose claims are judged; all (or those with references, where there are no prompts) when None.
    references
        Claimed name -> traces that someone stands behind; replayed instead of generated ones. Imported traces that are
        all of one recorded batch, in order, are replayed as one batch.
    repeats, processes, noise_prompts
        Repeats of the first `noise_prompts` prompts, two or more, spread over that many processes; 0: no floor.
    max_num_batched_tokens
        See `Model.generate`: of references and repeats; a replay takes what its reference records.
    gpus
        GPUs that work side by side, by their number among those that this process sees: each has a process of its own
        for the (reference, hypothesis) pairs that it is given, and sees no other GPU; one that is named twice has two.
        No result depends on them, so that a study may go on with other ones. None: everything runs in this process.
    progress
        Called after every finished cell, and while one is under way.

    Returns
    -------
    StudyResult
        Also saved as ``results/study.json``.

    Raises
    ------
    ValueError
        For unknown or repeated names, a single repeat, nothing to do, or a `work_dir` of another study: other inputs,
        another checkpoint, another version of this package.
    RuntimeError
        When another process is at work in `work_dir`.
    """
    given = {name: list(traces) for name, traces in (references or {}).items()}
    names = [v.name for v in variants]
    chosen = list(claimed) if claimed is not None else names if prompts else [n for n in names if n in given]
    _check(variants, chosen, given, len(prompts), repeats)
    texts = [[int(token) for token in prompt] for prompt in prompts]
    noisy = texts[:noise_prompts] if repeats else []
    settings = {"max_new_tokens": max_new_tokens, "repeats": repeats, "processes": processes, "prompts": len(texts)}
    options = {"max_new_tokens": max_new_tokens}
    if max_num_batched_tokens is not None:
        options["max_num_batched_tokens"] = max_num_batched_tokens
    settings |= options
    plan = _plan(variants, chosen, texts, given, settings | {"noise_prompts": len(noisy)})
    deterministic = [v for v in variants if v.deterministic_loader is not None]
    counts = {name: len(given.get(name, texts)) for name in chosen}
    total = sum(counts.values()) * len(names) + sum(counts[name] for name in chosen if name not in given)
    total += len(noisy) * repeats * (len(names) + len(deterministic))
    with WorkDir(work_dir, plan) as work:
        run = StudyRun(variants, work, total, progress, gpus)
        try:
            found = _references(run, chosen, given, texts, options)
            _replay_all(run, found)
        finally:
            run.close()
        for kind, group in (("repeat", variants), ("deterministic", deterministic)):
            for variant in group if noisy else ():
                run.repeat(variant, kind, noisy, repeats, processes, options)
        return _finish(run, found, settings, len(noisy), repeats)


def _plan(
    variants: Sequence[StudyVariant],
    claimed: Sequence[str],
    prompts: Sequence[Sequence[int]],
    references: Mapping[str, Sequence[Trace]],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that the cells of a work directory depend on."""
    return {
        "version": PLAN_VERSION,
        "qforensics": str(sys.modules["qforensics"].__version__),
        "code": code_digests(),
        "variants": {v.name: {**v.identity, "deterministic": v.deterministic_loader is not None} for v in variants},
        "claimed": list(claimed),
        "prompts": [list(prompt) for prompt in prompts],
        "references": {name: [trace.digest for trace in traces] for name, traces in references.items()},
        **settings,
    }


def _references(
    run: StudyRun,
    chosen: Sequence[str],
    given: Mapping[str, list[Trace]],
    prompts: Sequence[Sequence[int]],
    options: Mapping[str, Any],
) -> dict[str, list[Trace]]:
    """References by claim, given or generated; a claim whose generation failed is absent (and in the errors)."""
    makers = [variant for variant in run.variants if variant.name in chosen and variant.name not in given]
    plan = []
    for variant in makers:
        jobs = [Job([("reference", variant.name, i)], Generate(p, options)) for i, p in enumerate(prompts)]
        plan.append((variant, jobs))
    run.compute("generate", plan)
    found = dict(given)
    for variant in makers:
        traces = [run.work.load("reference", variant.name, i) for i in range(len(prompts))]
        if all(trace is not None for trace in traces):
            found[variant.name] = [trace for trace in traces if trace is not None]
    return {name: found[name] for name in chosen if name in found}


def _replay_all(run: StudyRun, references: Mapping[str, Sequence[Trace]]) -> None:
    plan = []
    for variant in run.variants:
        jobs = []
        for claim, traces in references.items():
            jobs += replays_of(traces, [("replay", claim, variant.name, i) for i in range(len(traces))])
        plan.append((variant, jobs))
    run.compute("replay", plan)


def _finish(
    run: StudyRun, references: Mapping[str, Sequence[Trace]], settings: dict[str, Any], noisy: int, repeats: int
) -> StudyResult:
    created = datetime.now(UTC).isoformat()
    cells, by_claim = _compare_all(run, references)
    floors = _floors(run, "repeat", noisy, repeats)
    verdicts = _judge_all(run, by_claim, floors)
    result = StudyResult(
        created=created,
        claimed=tuple(references),
        verified=tuple(variant.name for variant in run.variants),
        settings=settings,
        cells=tuple(cells),
        floors=floors,
        deterministic_floors=_floors(run, "deterministic", noisy, repeats),
        verdicts=tuple(verdicts),
        errors=tuple(run.errors),
        environment=capture_environment().to_json(),
    )
    directory = run.work.path / "results"
    directory.mkdir(exist_ok=True)
    result.save(directory / "study.json")
    run.end()
    _write_seeds_files(run, directory, repeats if noisy else 0, settings, created)
    return result
