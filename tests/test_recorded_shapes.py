"""Recordings of many other shapes on an H200: random M, N, K, group sizes and batches, each replayed bit for bit."""

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from qforensics import kernels, operators
from vector_cases import INPUTS, VECTORS

RECORDED = json.loads((VECTORS / "shapes.json").read_text())
DTYPES = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
GEMMS = {case["name"] + f"-{case['seed']}": case for case in RECORDED["gemms"]}
TALL = [name for name, case in GEMMS.items() if case["kernel"] == "machete" and case["K"] == 1536]


def recorded(key: str) -> np.ndarray:
    with np.load(VECTORS / "shapes.npz") as arrays:
        return np.asarray(arrays[key])


def gemm_differing(case: dict[str, Any], device: str, executor: str = "cpu") -> int:
    kernel, m, n, k, group, seed = (case[word] for word in ("kernel", "M", "N", "K", "group", "seed"))
    groups, dtype = (1 if group == -1 else k // group), DTYPES[case["dtype"]]
    symmetric = kernel == "gptq_marlin" or (kernel == "machete" and not case["zp"])
    options: dict[str, Any] = {word: case[word] for word in ("fp32_reduce", "inner_k_tiles") if word in case}
    if case.get("bias"):
        options["bias"] = INPUTS.activations(seed + 500000, 1, n, "normal")[0].astype(dtype)
    if case.get("act_order"):
        options["group_index"] = np.random.default_rng(seed).permutation(np.arange(k) // group).astype(np.int32)
    out = kernels.emulate(
        kernel,
        INPUTS.activations(seed, m, k, case["family"]).astype(dtype),
        INPUTS.codes(seed, k, n),
        INPUTS.zeros(seed, groups, n, symmetric),
        INPUTS.scales(seed, groups, n),
        group_size=group,
        device=device,
        seed=0,
        executor=executor,
        **options,
    )
    rows, columns = recorded(case["id"] + "r"), recorded(case["id"] + "c")
    return int((out.view(np.uint16)[np.ix_(rows, columns)] != recorded(case["id"])).sum())


@pytest.mark.parametrize("name", GEMMS)
def test_gemms(name: str) -> None:
    assert gemm_differing(GEMMS[name], "h200") == 0


@pytest.mark.parametrize("name", TALL)
def test_another_number_of_multiprocessors_changes_bits(name: str) -> None:
    """Outputs with more row than column tiles, whose cuts of K an earlier plan had wrong."""
    assert gemm_differing(GEMMS[name], "h100 pcie") > 0


def test_the_rest_of_k_goes_to_the_warps_in_pieces_of_inner_k_tiles() -> None:
    """Pieces of 4 tiles where 2 ran, and the other way round, change bits."""
    rest = [
        case for case in GEMMS.values() if case["kernel"] == "pytorch_int4" and case["K"] % 128 and case["M"] == 200
    ]
    assert sum(gemm_differing(dict(case, inner_k_tiles=6 - case["inner_k_tiles"]), "h200") for case in rest) > 0


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.asarray(INPUTS.activations(seed, int(np.prod(shape[:-1])), shape[-1], "normal").reshape(shape))


def attention_differing(case: dict[str, Any], sms: int = 132) -> int:
    queries, keys = zip(*case["seqs"], strict=True)
    dtype, size, seed = DTYPES[case["dtype"]], case["d"], case["seed"]
    q = (normal(seed, sum(queries), case["heads"], size).astype(dtype) * dtype.type(2)).astype(dtype)
    k, v = (normal(seed + more, sum(keys), case["kv_heads"], size).astype(dtype) for more in (100000, 200000))
    parts = [np.split(q, np.cumsum(queries)[:-1]), *(np.split(x, np.cumsum(keys)[:-1]) for x in (k, v))]
    out = np.concatenate(operators.attention(*parts, scale=size**-0.5, sm_count=sms))
    return int((out.view(np.uint16)[case["rows"]] != recorded(case["id"])).sum())


@pytest.mark.parametrize("case", RECORDED["attention"], ids=lambda c: f"{c['id']}-{c['kind']}-{c['d']}-{c['dtype']}")
def test_attention(case: dict[str, Any]) -> None:
    """Head sizes 64 and 128, fp16 and bf16; prompts, decode steps, chunks behind earlier keys, and batches of them."""
    assert attention_differing(case) == 0


def test_attention_depends_on_the_number_of_multiprocessors() -> None:
    long = [case for case in RECORDED["attention"] if max(keys for _, keys in case["seqs"]) > 1316]
    assert sum(attention_differing(case, sms=20) for case in long) > 0


@pytest.mark.parametrize("case", RECORDED["log_softmax"], ids=lambda c: f"{c['columns']}-{c['dtype']}")
def test_log_softmax(case: dict[str, Any]) -> None:
    logits = (normal(case["seed"], 3, case["columns"]) * np.float16(4)).astype(DTYPES[case["dtype"]])
    out = np.ascontiguousarray(operators.log_softmax(logits)[:, :: case["step"]])
    np.testing.assert_array_equal(out.view(np.uint32), recorded(case["id"]).view(np.uint32))


def test_log_softmax_depends_on_the_order_of_the_sum() -> None:
    wrong = 0
    for case in RECORDED["log_softmax"]:
        logits = (normal(case["seed"], 3, case["columns"]) * np.float16(4)).astype(DTYPES[case["dtype"]])
        out = operators.log_softmax(np.ascontiguousarray(logits[:, ::-1]))[:, ::-1][:, :: case["step"]]
        wrong += int((np.ascontiguousarray(out).view(np.uint32) != recorded(case["id"]).view(np.uint32)).sum())
    assert wrong > 0
