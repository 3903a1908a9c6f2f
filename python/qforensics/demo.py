"""The demo: recordings replayed under every hypothesis, then the prior experiment's study beside the exact answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qforensics.comparison import PhaseSummary, pool
from qforensics.hypotheses import Hypothesis
from qforensics.prepare import DEFAULT_MODEL
from qforensics.recordings import prompts, recording
from qforensics.study import Progress, StudyVariant, study
from qforensics.study_result import StudyResult
from qforensics.trace import PHASES, Trace

__all__ = ["DemoPlan", "PairAnswer", "answers", "equal_replays", "forms", "replay_recordings", "run_studies"]

RECORDED_ON = "h200"
"""The GPU of the shipped recordings."""

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class DemoPlan:
    """What the demo runs.

    Attributes
    ----------
    recorded : tuple of str
        Names of recordings; each is claimed to be that variant on an H200.
    hypotheses : tuple of Hypothesis
        What the recordings are replayed as.
    decode_rows : int
        Decode steps of every recording that are replayed, after its whole prompt.
    variants : tuple of str
        Variants of the studies.
    device, verifier : str
        The GPU that makes the references, and the other one on which the prior experiment verified.
    prompts : int
    prompt_ids : int
        Prompts of the studies, and how many ids of each.
    new_tokens : int
        Greedy tokens of references and repeats.
    repeats : int
        Runs per noise floor, over two processes.
    threads : int or None
    """

    recorded: tuple[str, ...] = ("fp16", "awq", "awq_marlin", "gptq", "gptq_marlin")
    hypotheses: tuple[Hypothesis, ...] = tuple(
        Hypothesis(variant, device)
        for device in ("h200", "a100")
        for variant in ("fp16", "awq", "awq_marlin", "gptq", "gptq_marlin")
    )
    decode_rows: int = 8
    variants: tuple[str, ...] = ("awq", "awq_marlin", "gptq", "gptq_marlin", "openvino", "pytorch_int4")
    device: str = "a100"
    verifier: str = "h200"
    prompts: int = 2
    prompt_ids: int = 12
    new_tokens: int = 4
    repeats: int = 3
    threads: int | None = None


@dataclass(frozen=True)
class PairAnswer:
    """Two variants: what the prior experiment's ratio says, and how many logprobs differ when both replay exactly.

    `differing` and `compared` count both directions; `snr` and `label` are of one phase. `exact` names those of the two
    whose own replay gives every bit: without that, differing logprobs of the other one say nothing.
    """

    first: str
    second: str
    signal: float
    noise: float
    snr: float
    label: str
    differing: int
    compared: int
    exact: tuple[str, ...]


def forms(plan: DemoPlan) -> list[str]:
    """Prepared forms of the default model that the plan needs."""
    from qforensics.variants import variant

    names = [h.variant for h in plan.hypotheses] + list(plan.variants)
    return list(dict.fromkeys(variant(name).form for name in names))


def replay_recordings(plan: DemoPlan, directory: Path, progress: Report | None = None) -> StudyResult:
    """Part 1: every recording under every hypothesis; the claim of ``awq`` is ``awq@h200``."""
    references = {f"{name}@{RECORDED_ON}": [recording(name).head(plan.decode_rows)] for name in plan.recorded}
    variants = [h.study_variant(DEFAULT_MODEL, threads=plan.threads) for h in plan.hypotheses]
    return study(variants, work_dir=directory, references=references, repeats=0, progress=progress)


def equal_replays(plan: DemoPlan, directory: Path) -> list[tuple[str, ...]]:
    """Hypotheses of part 1 that computed the same bits for every recording, so that nothing here tells them apart."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for hypothesis in plan.hypotheses:
        folders = [directory / "traces" / "replay" / f"{name}@{RECORDED_ON}" for name in plan.recorded]
        files = [folder / hypothesis.name / "0.trace" for folder in folders]
        if all(file.exists() for file in files):
            key = tuple(Trace.load(file).numbers_digest for file in files)
            groups.setdefault(key, []).append(hypothesis.name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def run_studies(plan: DemoPlan, directory: Path, progress: Report | None = None) -> tuple[StudyResult, StudyResult]:
    """Part 2: (exact, prior).

    *exact*: references as `plan.device` would make them, noise floors, and every variant's replay on the same device.
    *prior*: the same references replayed on `plan.verifier`, as the prior experiment did (seed 004).
    """
    texts = [prompt[: plan.prompt_ids] for prompt in prompts()[: plan.prompts]]
    total = plan_cells(plan, len(texts))
    here = [_variant(plan, name, plan.device) for name in plan.variants]
    exact = study(
        here,
        texts,
        work_dir=directory / "exact",
        max_new_tokens=plan.new_tokens,
        repeats=plan.repeats,
        progress=_shifted(progress, 0, total),
    )
    references = {
        name: [
            Trace.load(directory / "exact" / "traces" / "reference" / name / f"{i}.trace") for i in range(len(texts))
        ]
        for name in exact.claimed
    }
    there = [_variant(plan, name, plan.verifier) for name in plan.variants]
    prior = study(
        there,
        work_dir=directory / "prior",
        references=references,
        repeats=0,
        progress=_shifted(progress, total - len(there) * len(references) * len(texts), total),
    )
    return exact, prior


def plan_cells(plan: DemoPlan, prompts: int) -> int:
    """Traces that part 2 makes."""
    n = len(plan.variants)
    racing = sum(Hypothesis(name, plan.device).racing for name in plan.variants)
    return prompts * n + 2 * prompts * n * n + plan.repeats * (n + racing)


def _variant(plan: DemoPlan, name: str, device: str) -> StudyVariant:
    return Hypothesis(name, device).study_variant(DEFAULT_MODEL, name=name, threads=plan.threads)


def _shifted(progress: Report | None, before: int, total: int) -> Report | None:
    if progress is None:
        return None
    return lambda p: progress(replace(p, done=before + p.done, total=total))


def _both_ways(result: StudyResult, first: str, second: str) -> PhaseSummary | None:
    pairs = ((first, second), (second, first))
    found = [result.pooled(a, b, phase) for a, b in pairs for phase in PHASES]
    kept = [summary for summary in found if summary is not None]
    return pool(kept) if len(kept) == len(found) else None


def answers(exact: StudyResult, prior: StudyResult, phase: str) -> list[PairAnswer]:
    """The prior experiment's answer for every pair of variants beside the exact one."""
    analysis = prior.snr(phase)
    ratios: Mapping[tuple[str, str], tuple[float, float, float, str]] = {
        (p.first, p.second): (p.signal, p.noise, p.snr, p.label) for p in (analysis.pairs if analysis else ())
    }
    found = []
    names: Sequence[str] = exact.claimed
    own = {name: [exact.pooled(name, name, p) for p in PHASES] for name in names}
    certain = [name for name, phases in own.items() if all(p is not None and p.exact for p in phases)]
    for first, second in itertools.combinations(names, 2):
        summary = _both_ways(exact, first, second)
        if summary is not None:
            ratio = ratios.get((first, second), (math.nan, math.nan, math.nan, "not computed"))
            both = tuple(name for name in (first, second) if name in certain)
            found.append(PairAnswer(first, second, *ratio, summary.differing, summary.compared, both))
    return found
