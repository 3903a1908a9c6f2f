"""Times of the engine on a GPU at Qwen3-8B's shapes, random weights of real scale, as JSON.

    PYTHONPATH=python:tests python benchmarks/cuda_engine.py --kernel marlin --device a100
    PYTHONPATH=python:tests python benchmarks/cuda_engine.py --executor native --kernel awq --device h200

One prompt without its logprobs, the same with them, and forced decode steps behind it; one run each after a short one
that starts everything; the last run again with every step call by call instead of from its recording (CUDA graph).
A step's fraction of the roofline: codes, scales, zero points and the lm_head read once, at the bandwidth that a read
can reach (4.0 TB/s on an H200). Memory is torch's peak: weights, their expanded form, the caches and whatever a step
holds.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from qforensics import _core
from qforensics._gpu import chosen_executor
from qforensics._model import executor_record
from qforensics.plans import make_plan
from random_engine import GROUP, RandomEngine, bits, embedding

GIB = 2**30
BANDWIDTH = 4.0e12


class Clock:
    """Seconds from a call's start to its prefill's end and to every decode step's."""

    def __init__(self) -> None:
        self.begin, self.times = time.perf_counter(), []

    def __call__(self, done: int, total: int) -> None:
        self.times.append(time.perf_counter() - self.begin)


def peak_gib() -> float:
    import torch

    peak = torch.cuda.max_memory_allocated() / GIB
    torch.cuda.reset_peak_memory_stats()
    return round(peak, 2)


def weight_bytes(config: dict[str, Any]) -> float:
    """What a decode step reads of the weights: codes, fp16 scales and 4-bit zero points, and the fp16 lm_head."""
    hidden, middle, head = config["hidden"], config["intermediate"], config["head_size"]
    queries, keys = config["heads"] * head, config["kv_heads"] * head
    numbers = hidden * (queries + 2 * keys) + queries * hidden + 3 * middle * hidden
    return config["layers"] * numbers * (0.5 + 2.5 / GROUP) + 2.0 * config["vocabulary"] * hidden


def timed(engine: RandomEngine, prompt: list[int], new_tokens: int, *, prompt_logprobs: bool) -> dict[str, Any]:
    clock = Clock()
    engine.run([prompt], new_tokens, prompt_logprobs=prompt_logprobs, progress=clock)
    steps = np.diff(clock.times)
    median = float(np.median(steps)) if len(steps) else None
    return {
        "prompt_ids": len(prompt), "prompt_logprobs": prompt_logprobs, "prefill_s": round(clock.times[0], 3),
        "decode_steps": len(steps), "decode_s": round(float(steps.sum()), 3),
        "decode_ms_median": None if median is None else round(median * 1e3, 3),
        "roofline": None if median is None else round(weight_bytes(engine.config) / BANDWIDTH / median, 3),
        "peak_gib": peak_gib(),
    }  # fmt: skip


def prompt_logprobs_cost(executor: str, device: str, rows: int) -> dict[str, Any]:
    """What prompt logprobs add to a prompt of `rows` + 1 ids: time against the lm_head's GEMM alone, and memory.

    One layer, since nothing else depends on their number. The lm_head alone is the kernel that the executor runs, over
    all rows at once, operands on the GPU.
    """
    import torch

    engine = RandomEngine(executor, layers=1, kernel="marlin", device=device)
    hidden, vocabulary = engine.config["hidden"], engine.config["vocabulary"]
    prompt = np.random.default_rng(2).integers(0, vocabulary, rows + 1).tolist()
    runs: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for _ in range(4):  # the first one starts everything
        for logprobs in runs:
            engine.run([prompt[:64]], 1, prompt_logprobs=logprobs)
            peak_gib()
            runs[logprobs].append(timed(engine, prompt, 1, prompt_logprobs=logprobs))
    without, with_them = (float(np.median([r["prefill_s"] for r in runs[flag][1:]])) for flag in (False, True))
    peaks = [max(r["peak_gib"] for r in runs[flag][1:]) for flag in (False, True)]
    schemes = executor_record(engine.engine)
    del engine
    torch.cuda.empty_cache()
    options = _core.KernelOptions()
    options.split, options.transposed, options.dense = 0, True, True
    plan = make_plan("cublas", (rows, vocabulary, hidden), -1, device, "fp16", options)._core_plan
    rng = np.random.default_rng(3)
    weight = _core.pack_dense(embedding(vocabulary, hidden, rng), "fp16")
    x = bits(rng.standard_normal((rows, hidden)))
    native = executor == "native" and _core.native_kernel_for(plan, _core.gpu_info(0)["compute_capability"])[0]
    if native:
        head = float(np.median(_core.time_gemm_native(plan, weight, x, 1, 5, True))) / 1e6
    else:
        head = float(np.median(_core.time_gemm_cuda(plan, weight, x, None, 3))) / 1e3
    return {
        "section": "prompt logprobs", "executor": executor, "emulated": device, "rows": rows, "vocabulary": vocabulary,
        "prefill_s": without, "with_logprobs_s": with_them, "lm_head_s": round(head, 4), "lm_head_native": bool(native),
        "ratio": round((with_them - without) / head, 3), "peak_gib": peaks, "schemes": schemes,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--executor", default="cuda", choices=("cuda", "native"))
    parser.add_argument("--logprobs-of", help="only what prompt logprobs cost, by this executor")
    parser.add_argument("--kernel", default="marlin")
    parser.add_argument("--device", default="a100")
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--prompt", type=int, default=8067)
    parser.add_argument("--new", type=int, default=100)
    args = parser.parse_args()
    if args.logprobs_of:
        chosen_executor(args.logprobs_of)
        print(json.dumps(prompt_logprobs_cost(args.logprobs_of, args.device, args.prompt - 1)))
        return
    chosen_executor(args.executor)
    begin = time.perf_counter()
    engine = RandomEngine(args.executor, layers=args.layers, kernel=args.kernel, device=args.device)
    load = time.perf_counter() - begin
    prompt = np.random.default_rng(2).integers(0, 151936, args.prompt).tolist()
    engine.run([prompt[:64]], 3)
    result = {
        "gpu": _core.gpu_info(0)["name"], "emulated": args.device, "kernel": args.kernel, "layers": args.layers,
        "load_s": round(load, 1), "after_start_gib": peak_gib(), "runs": [],
    }  # fmt: skip
    short = prompt[:512]
    for ids, logprobs, new, recorded in (
        (prompt, False, 1, True), (prompt, True, args.new + 1, True), (prompt, False, args.new + 1, False),
        (short, False, args.new + 1, True), (short, False, args.new + 1, False),
    ):  # fmt: skip
        engine.engine.set_recording(on=recorded)
        run = {"recorded": recorded, **timed(engine, ids, new, prompt_logprobs=logprobs)}
        result["runs"].append(run)
        print(json.dumps(run), flush=True)
    print(json.dumps(result | {"executor": executor_record(engine.engine)}))


if __name__ == "__main__":
    main()
