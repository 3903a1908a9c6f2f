"""The prior experiment's result files, one JSON per variant (source: seed 001; arithmetic and texts: seed 000)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qforensics._json import JsonFileError
from qforensics.trace import Trace

__all__ = ["check_variant_record", "error_record", "run_statistics", "variant_record"]

EXPERIMENT = "quantization_nondeterminism_investigation"
STATISTICS = ("l2_mean", "l2_std", "l2_max", "l2_min", "std_per_token_mean", "std_per_token_max", "std_per_token_min")
IMPROVED = 2.0
"""Ratio of mean L2 above which the seeds' text says that deterministic mode reduces noise."""


def run_statistics(runs: Sequence[Trace]) -> dict[str, Any]:
    """The seeds' statistics over repeats of one prompt: L2 of each run's chosen-token logprobs to the first run's.

    Exactness is equality of bits (the seeds allowed 1e-10). Runs are aligned by index and cut to the shortest, as the
    seeds aligned them: where `tokens_identical` is false, later positions had other contexts.
    """
    if not runs:
        raise ValueError("run_statistics: expected at least one run")
    ids = [run.generated_ids.tolist() for run in runs]
    chosen = [run.decode.target_logprobs() for run in runs]
    exact = all(ids[0] == other for other in ids) and all(chosen[0].tobytes() == other.tobytes() for other in chosen)
    found: dict[str, Any] = {"tokens_identical": all(ids[0] == other for other in ids), "logprobs_exact": exact}
    length = min(map(len, chosen))
    if exact or length == 0:
        return found | dict.fromkeys(STATISTICS, 0.0)
    table = np.array([values[:length] for values in chosen], np.float64)
    l2 = np.linalg.norm(table[1:] - table[0], axis=1)
    spread = table.std(axis=0)
    values = (l2.mean(), l2.std(), l2.max(), l2.min(), spread.mean(), spread.max(), spread.min())
    return found | {name: float(value) for name, value in zip(STATISTICS, values, strict=True)}


def _runs(runs: Sequence[Trace]) -> dict[str, Any]:
    return {
        "stats": run_statistics(runs),
        "tokens": [run.generated_ids.tolist() for run in runs],
        "logprobs": [[float(v) for v in run.decode.target_logprobs()] for run in runs],
    }


def _kernels(trace: Trace) -> dict[str, Any]:
    """Kernel profile in the seeds' categories; times and counts are null where the run did not measure them."""
    listed = trace.provenance.get("kernels") or []
    kernels: list[dict[str, Any]] = []
    for item in listed:
        entry = item if isinstance(item, dict) else {"name": item}
        time, count = entry.get("time_us"), entry.get("count")
        mean = time / count if time is not None and count else None
        kernels.append({"name": str(entry.get("name")), "cuda_time_us": time, "count": count, "avg_time_us": mean})

    def named(*words: str) -> list[dict[str, Any]]:
        return [kernel for kernel in kernels if any(word in kernel["name"].lower() for word in words)]

    return {
        "profiling_succeeded": bool(kernels),
        "all_kernels": kernels,
        "marlin_kernels": named("marlin"),
        "gemm_kernels": named("gemm"),
        "dequant_kernels": named("dequant", "quant"),
    }


def _root_cause(baseline: Mapping[str, Any], deterministic: Mapping[str, Any] | None) -> tuple[str, list[str]]:
    """Cause and findings for a baseline whose repeats differ."""
    if deterministic is None:
        text = "Could not test deterministic mode (not supported)"
        return text, [f"⚠ {text}", "Suggests operations incompatible with deterministic algorithms"]
    if deterministic["logprobs_exact"]:
        cause = "Non-deterministic parallel reduction, likely in kernel accumulation logic"
        return cause, ["✓ DETERMINISTIC MODE FIXES IT", "Can be fixed but at performance cost"]
    before, after = baseline["l2_mean"], deterministic["l2_mean"]
    if after == 0 or before / after > IMPROVED:
        amount = f"{before / after:.1f}x reduction in mean L2" if after else "no L2 left in the chosen tokens' logprobs"
        cause = "Partially non-deterministic parallel reduction"
        return cause, ["⚠ DETERMINISTIC MODE REDUCES NOISE", amount, "Partial fix, some non-determinism remains"]
    cause = "NOT parallel reduction races, likely in quantization/dequantization logic itself"
    findings = ["Root cause is NOT parallel reduction races", "Likely in quantization/dequantization logic itself"]
    return cause, ["❌ DETERMINISTIC MODE DOESN'T HELP", *findings]


def _verdict(baseline: Mapping[str, Any], deterministic: Mapping[str, Any] | None) -> dict[str, Any]:
    head = {"is_deterministic": baseline["logprobs_exact"], "deterministic_mode_tested": deterministic is not None}
    if baseline["logprobs_exact"]:
        return head | {
            "summary": "BASELINE IS DETERMINISTIC",
            "root_cause": "None: repeated runs are bit-exact",
            "forensic_implications": "Noise level: 0 L2. Any differing bit is a systematic deviation.",
            "details": ["✓ BASELINE IS DETERMINISTIC"],
        }
    cause, findings = _root_cause(baseline, deterministic)
    mean, largest = baseline["l2_mean"], baseline["l2_max"]
    return head | {
        "summary": "BASELINE IS NON-DETERMINISTIC",
        "root_cause": cause,
        "forensic_implications": f"Noise level: ~{mean:.2e} L2. For detection, need systematic deviation >> noise. "
        "Recommend: 3-5 samples for statistical significance",
        "details": [f"Mean L2 deviation: {mean:.2e}", f"Max L2 deviation: {largest:.2e}", *findings],
    }


def variant_record(
    variant: str,
    runs: Sequence[Trace],
    *,
    deterministic_runs: Sequence[Trace] = (),
    timestamp: str,
    config: Mapping[str, Any],
    description: str = "",
) -> dict[str, Any]:
    """One variant's result file.

    Parameters
    ----------
    variant
        Its name.
    runs, deterministic_runs
        Repeats of one prompt, as usual and in deterministic mode (none: not tested).
    timestamp
        ISO 8601.
    config
        Run settings; `tensor_parallel`, `max_tokens` and so on, as the seeds name them.
    """
    baseline = _runs(runs)
    tested = _runs(deterministic_runs) if deterministic_runs else dict.fromkeys(("stats", "tokens", "logprobs"))
    provenance = runs[0].provenance
    return {
        "variant": variant,
        "experiment": EXPERIMENT,
        "timestamp": timestamp,
        "model": str(provenance.get("model", "")),
        "quantization": str(provenance.get("variant", variant)),
        "description": description,
        "config": dict(config),
        "prompt_length": int(runs[0].prompt_ids.size),
        "baseline": baseline,
        "deterministic": {"succeeded": bool(deterministic_runs), **tested},
        "kernels": _kernels(runs[0]),
        "verdict": _verdict(baseline["stats"], tested["stats"]),
        "success": True,
    }


def error_record(variant: str, error: str) -> dict[str, Any]:
    """The result file of a variant that failed."""
    return {"variant": variant, "error": error, "success": False}


_FAILED: dict[str, Any] = {"variant": str, "success": bool, "error": str}
_DONE: dict[str, Any] = {
    "variant": str,
    "success": bool,
    "description": str,
    "verdict": {"summary": str, "root_cause": str, "forensic_implications": str},
    "baseline": {"stats": {}},
}


def _require_fields(data: object, fields: Mapping[str, Any], path: str | os.PathLike[str], place: str) -> None:
    if not isinstance(data, dict):
        raise JsonFileError(path, place or "file", "an object", type(data).__name__)
    for key, kind in fields.items():
        where = f"{place}/{key}" if place else key
        if isinstance(kind, dict):
            _require_fields(data.get(key), kind, path, where)
        elif not isinstance(data.get(key), kind):
            found = type(data[key]).__name__ if key in data else "nothing"
            raise JsonFileError(path, where, f"a {kind.__name__}", found)


def check_variant_record(data: object, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object of a variant's result file back, when it has the fields that are shown.

    Raises
    ------
    JsonFileError
        Naming file, field, expected and found.
    """
    done = isinstance(data, dict) and data.get("success") is True
    _require_fields(data, _DONE if done else _FAILED, path, "")
    assert isinstance(data, dict)
    if done:
        for name, value in data["baseline"]["stats"].items():
            if not isinstance(value, bool | int | float):
                raise JsonFileError(path, f"baseline/stats/{name}", "a number or a flag", type(value).__name__)
    return data
