"""Per-variant files: the seeds' fields, statistics and texts."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from forensics_doubles import DATA, FakeModel, small_trace
from qforensics._json import JsonFileError
from qforensics.seeds_format import check_variant_record, error_record, run_statistics, variant_record


def published_form() -> dict:
    """The usage guide's example; its left-out values become empty ones."""
    text = (DATA / "seeds" / "variant.txt").read_text().replace("[...]", "[]").replace("{...}", "{}")
    return json.loads(text)


def racing_runs(count: int, length: int = 5) -> list:
    return [FakeModel("w1", "k1", racing=True).generate([1, 2, 3], max_new_tokens=length) for _ in range(count)]


def record(runs, **options):
    settings = {"timestamp": "2026-11-21T00:00:00+00:00", "config": {"max_tokens": 5}, "description": "d"} | options
    return variant_record("awq", runs, **settings)


def keys(value) -> object:
    return {k: keys(v) for k, v in value.items()} if isinstance(value, dict) else None


def test_fields_are_the_published_ones():
    wanted = keys(published_form())
    found = keys(record(racing_runs(3), deterministic_runs=[small_trace()] * 3, config=published_form()["config"]))
    wanted["deterministic"]["stats"] = found["baseline"]["stats"]
    assert found == wanted
    assert json.loads(json.dumps(record(racing_runs(2)), allow_nan=False))["success"] is True


def test_statistics_are_the_seeds_arithmetic():
    runs = racing_runs(4)
    chosen = np.array(
        [
            [
                dict(zip(*(x.tolist() for x in r.decode.row(i)), strict=True))[t]
                for i, t in enumerate(r.generated_ids.tolist())
            ]
            for r in runs
        ]
    )
    l2 = [np.linalg.norm(chosen[0] - row) for row in chosen[1:]]
    spread = chosen.std(axis=0)
    found = run_statistics(runs)
    assert found["logprobs_exact"] is False
    wanted = {
        "l2_mean": np.mean(l2), "l2_std": np.std(l2), "l2_max": max(l2), "l2_min": min(l2),
        "std_per_token_mean": spread.mean(), "std_per_token_max": spread.max(), "std_per_token_min": spread.min(),
    }  # fmt: skip
    for name, value in wanted.items():
        # the same double arithmetic up to the order of at most five additions
        assert abs(found[name] - value) <= 5 * 2**-52 * max(l2), name
    assert wanted["l2_mean"] > 0


def test_exact_runs_have_zeros_and_the_word():
    found = record([small_trace()] * 3)
    stats = found["baseline"]["stats"]
    assert stats["tokens_identical"] is True
    assert stats["logprobs_exact"] is True
    assert {v for k, v in stats.items() if k.startswith(("l2", "std"))} == {0.0}
    assert found["verdict"]["summary"] == "BASELINE IS DETERMINISTIC"
    assert found["verdict"]["is_deterministic"] is True
    assert found["deterministic"] == {"succeeded": False, "stats": None, "tokens": None, "logprobs": None}
    assert found["prompt_length"] == 4
    assert found["baseline"]["tokens"] == [small_trace().generated_ids.tolist()] * 3


def test_one_bit_is_not_exact():
    a, b = small_trace("k1"), small_trace("k2", size=1e-6)
    assert run_statistics([a, b])["logprobs_exact"] is False


def test_verdict_when_deterministic_mode_fixes_it():
    found = record(racing_runs(3), deterministic_runs=[small_trace()] * 3)["verdict"]
    published = published_form()["verdict"]
    for name in ("is_deterministic", "deterministic_mode_tested", "summary", "root_cause"):
        assert found[name] == published[name], name
    number = r"\d\.\d\de-\d\d"
    pattern = re.sub(
        number,
        "NUMBER",
        re.escape(published["forensic_implications"]).replace(r"\-", "-").replace(r"1\.23e-05", "NUMBER"),
    )
    assert re.fullmatch(pattern.replace("NUMBER", number), found["forensic_implications"])
    assert re.fullmatch(f"Mean L2 deviation: {number}", found["details"][0])
    assert re.fullmatch(f"Max L2 deviation: {number}", found["details"][1])
    assert found["details"][2:] == ["✓ DETERMINISTIC MODE FIXES IT", "Can be fixed but at performance cost"]


def test_verdict_when_it_helps_a_little_or_not_at_all():
    loud = [small_trace("k1"), small_trace("k2", size=0.05)]
    quiet = [small_trace("k1"), small_trace("k2", size=0.001)]
    helped = record(loud, deterministic_runs=quiet)["verdict"]["details"]
    assert helped[2] == "⚠ DETERMINISTIC MODE REDUCES NOISE"
    assert re.fullmatch(r"[\d.]+x reduction in mean L2", helped[3])
    useless = record(quiet, deterministic_runs=quiet)["verdict"]["details"]
    assert useless[2:] == [
        "❌ DETERMINISTIC MODE DOESN'T HELP", "Root cause is NOT parallel reduction races",
        "Likely in quantization/dequantization logic itself",
    ]  # fmt: skip
    untested = record(loud)["verdict"]
    assert untested["deterministic_mode_tested"] is False
    assert untested["root_cause"] == "Could not test deterministic mode (not supported)"


def test_kernels_by_category():
    from dataclasses import replace

    kernels = [{"name": "Marlin<1>", "time_us": 30.0, "count": 3}, "gptq_dequant", "cutlass_gemm"]
    found = record([replace(small_trace(), provenance={"kernels": kernels})] * 2)["kernels"]
    assert found["profiling_succeeded"] is True
    assert found["marlin_kernels"] == [{"name": "Marlin<1>", "cuda_time_us": 30.0, "count": 3, "avg_time_us": 10.0}]
    assert [k["name"] for k in found["gemm_kernels"]] == ["cutlass_gemm"]
    assert [k["name"] for k in found["dequant_kernels"]] == ["gptq_dequant"]
    assert found["all_kernels"][1]["cuda_time_us"] is None


def test_error_form():
    assert error_record("openvino", "no") == {"variant": "openvino", "error": "no", "success": False}
    with pytest.raises(ValueError, match="at least one run"):
        run_statistics([])


def test_records_that_are_read_back():
    good = record(racing_runs(2))
    assert check_variant_record(good, "r.json") is good
    assert check_variant_record(error_record("awq", "no memory"), "r.json")["error"] == "no memory"
    assert check_variant_record(published_form() | {"description": ""}, "r.json")["success"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": []}, "verdict: expected an object, found list"),
        ({"verdict": {"summary": "s", "root_cause": 3}}, "verdict/root_cause: expected a str, found int"),
        ({"baseline": {"stats": {"l2_mean": "0"}}}, "baseline/stats/l2_mean: expected a number or a flag, found str"),
        ({"baseline": None}, "baseline: expected an object, found NoneType"),
        ({"description": None}, "description: expected a str, found NoneType"),
        ({"success": False}, "error: expected a str, found nothing"),
        ({"success": "yes"}, "success: expected a bool, found str"),
    ],
)
def test_records_that_are_refused(change, message):
    with pytest.raises(JsonFileError, match=f"r.json: {message}"):
        check_variant_record(record(racing_runs(2)) | change, "r.json")
