"""`qforensics study` at Qwen3-8B's shapes, as a user runs it: six variants of one random model, checkpoints and all.

    PYTHONPATH=python python benchmarks/study_8b.py --folder /tmp/8b --executor cuda --device h200 --device a100

Makes the checkpoints (awq, gptq, torchao's, fp16: the same weights; files that forms share are hard links), runs the
command per device, and prints what its journal says: seconds to load, of every generated reference and every replay,
and the matrix of differing logprobs. `--layers 2 --prompt 64 --new 4 --executor cpu` is a check anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from qforensics._json import read_json, write_atomic
from qforensics.checkpoints import QuantizedLinear
from qforensics.checkpoints._config import LINEARS, ModelConfig
from qforensics.checkpoints._types import Array
from qforensics.quantize._pack import CONTAINERS, torchao_metadata
from qforensics.quantize._writer import SafetensorsWriter, TensorSpec, safetensors_name

CONFIG = ModelConfig(
    "qwen3", hidden_size=4096, intermediate_size=12288, num_layers=36, num_heads=32, num_kv_heads=8, head_dim=128,
    vocab_size=151936, rms_norm_eps=1e-6, rope_theta=1e6, max_positions=8192,
)  # fmt: skip
GROUP = 128
DRAWS = 2
"""Layers with weights of their own; the others repeat them, with other norms."""
FORMS = {"awq": "awq", "gptq": "gptq", "pytorch_int4": "pytorch_int4", "fp16": None}
VARIANTS = ("awq", "awq_marlin", "gptq", "gptq_marlin", "pytorch_int4", "fp16")
Tensors = dict[str, Array]


def draw_linear(n: int, k: int, rng: np.random.Generator) -> QuantizedLinear:
    """Codes around the zero point, of the scale that weights of deviation 1 / sqrt(k) have."""
    codes = np.frombuffer(rng.bytes(k * n), np.uint8).reshape(k, n) & 15
    scales = (rng.uniform(0.8, 1.2, (k // GROUP, n)) / 4.6 / np.sqrt(k)).astype(np.float16)
    return QuantizedLinear(codes, np.full((k // GROUP, n), 8, np.uint8), scales, GROUP)


def packed(linear: QuantizedLinear, form: str) -> Tensors:
    """The layer's tensors in a form, by the end of their names."""
    method = FORMS[form]
    if method is None:
        half = (linear.codes.astype(np.int8) - np.int8(8)).astype(np.float16).reshape(-1, GROUP, linear.out_features)
        return {"weight": np.ascontiguousarray((half * linear.scales[:, None]).reshape(linear.codes.shape).T)}
    if method == "pytorch_int4":
        offsets = np.zeros(linear.scales.shape, np.float32)
        linear = replace(linear, scales=linear.scales.astype(ml_dtypes.bfloat16), offsets=offsets)
    return CONTAINERS[method].pack(linear)


def write_file(
    path: Path, tensors: Iterator[tuple[str, Array]] | list[tuple[str, Array]], metadata: dict[str, str]
) -> None:
    listed = list(tensors)
    specs = [TensorSpec(name, safetensors_name(array.dtype), array.shape) for name, array in listed]
    with SafetensorsWriter(path, specs, {"format": "pt"} | metadata) as writer:
        for name, array in listed:
            writer.write(name, array)


def dense_tensors(config: ModelConfig, dtype: Any) -> list[tuple[str, Array]]:
    """Embedding, lm_head and norms; rows of the embedding are a block of normal ones, each time with other scales."""
    rng = np.random.default_rng(7)
    block = rng.standard_normal((1024, config.hidden_size), np.float32)
    found = []
    for name, shape in [*config.tensor_shapes(), ("lm_head.weight", (config.vocab_size, config.hidden_size))]:
        if len(shape) == 1:
            found.append((name, rng.uniform(0.5, 1.5, shape).astype(np.float16).astype(dtype)))
            continue
        table = np.empty(shape, dtype)
        for first in range(0, shape[0], len(block)):
            rows = table[first : first + len(block)]
            scales = rng.uniform(0.5, 1.5, (len(rows), 1)) / np.sqrt(config.hidden_size)
            rows[:] = (block[: len(rows)] * scales.astype(np.float32)).astype(np.float16).astype(dtype)
        found.append((name, table))
    return found


def make_models(folder: Path, layers: int, vocabulary: int) -> None:
    """Write the forms below `folder`; a directory per form, as `--model` takes them."""
    config = replace(CONFIG, num_layers=layers, vocab_size=vocabulary)
    shapes = dict(replace(config, num_layers=1).linear_shapes())
    for form in FORMS:
        (folder / form).mkdir(parents=True)
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        dense = {
            "F16": pool.submit(dense_tensors, config, np.float16),
            "BF16": pool.submit(dense_tensors, config, ml_dtypes.bfloat16),
        }
        linears = {
            (draw, name): draw_linear(*shapes[f"model.layers.0.{name}"], np.random.default_rng([draw, i]))
            for draw in range(DRAWS)
            for i, name in enumerate(LINEARS)
        }
        forms = {(form, key): pool.submit(packed, linear, form) for form in FORMS for key, linear in linears.items()}
        pending = [pool.submit(_write_dense, folder, dtype, future.result()) for dtype, future in dense.items()]
        for future in forms.values():
            future.result()
        for form in FORMS:
            for layer in range(layers):
                parts = {name: forms[form, (layer % DRAWS, name)].result() for name in LINEARS}
                pending.append(pool.submit(_write_layer, folder / form, layer, parts, form, shapes))
        for future in pending:
            future.result()
    for form, method in FORMS.items():
        _write_settings(folder / form, config, method)


def _write_dense(folder: Path, dtype: str, tensors: list[tuple[str, Array]]) -> None:
    forms = [form for form, method in FORMS.items() if (CONTAINERS[method].dense_dtype if method else "F16") == dtype]
    first = folder / forms[0] / "dense.safetensors"
    write_file(first, tensors, {})
    for form in forms[1:]:
        os.link(first, folder / form / "dense.safetensors")


def _write_layer(folder: Path, layer: int, parts: dict[str, Tensors], form: str, shapes: dict[str, Any]) -> None:
    prefix = f"model.layers.{layer}."
    named = [(f"{prefix}{name}.{end}", array) for name, tensors in parts.items() for end, array in tensors.items()]
    linears = {prefix + name: shapes[f"model.layers.0.{name}"] for name in parts}
    torchao = torchao_metadata(linears, [], dict.fromkeys(linears, GROUP)) if form == "pytorch_int4" else {}
    write_file(folder / f"layer-{layer:02}.safetensors", named, torchao)


def _write_settings(folder: Path, config: ModelConfig, method: str | None) -> None:
    data = config.to_hf()
    if method is not None:
        data["quantization_config"] = CONTAINERS[method].settings(GROUP)
        data["dtype"] = "bfloat16" if CONTAINERS[method].dense_dtype == "BF16" else "float16"
    write_atomic(folder / "config.json", json.dumps(data).encode())
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with open(file, "rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        found |= {name: file.name for name in header if name != "__metadata__"}
    index = {"metadata": {}, "weight_map": found}
    write_atomic(folder / "model.safetensors.index.json", json.dumps(index).encode())


def run_study(args: argparse.Namespace, device: str, output: Path) -> dict[str, Any]:
    """The command, its time, and what its journal and its result say."""
    command = [
        sys.executable, "-m", "qforensics", "study", "--model", args.folder, "--variants", *args.variants,
        "--devices", device, "--prompts", args.folder / "prompts.json", "--max-new-tokens", args.new,
        "--repeats", "0", "--executor", args.executor, "--output-dir", output,
    ]  # fmt: skip
    if args.gpus:
        command += ["--gpus", args.gpus]
    began = time.perf_counter()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if not (output / "results" / "study.json").exists():
        raise RuntimeError(f"study ended with {done.returncode}: {done.stderr[-2000:]} {done.stdout[-2000:]}")
    times: dict[str, list[float]] = defaultdict(list)
    for line in (output / "journal.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] in ("loaded", "done"):
            parts = entry["cell"].split("/")
            kind = "load" if entry["event"] == "loaded" else parts[0]
            times[f"{kind} {parts[-2] if len(parts) > 1 else parts[0]}"].append(entry["seconds"])
    result = read_json(output / "results" / "study.json", limit=1 << 28)
    return {
        "device": device, "executor": args.executor, "gpus": args.gpus, "total_s": round(seconds, 2),
        "seconds": {
            name: [len(found), *(round(f(found), 3) for f in (min, statistics.median, max))]
            for name, found in times.items()
        },
        "verdicts": {v["claim"]: v["outcome"] for v in result["verdicts"]},
        "errors": [e["error"][:300] for e in result["errors"]],
        "differing": matrix(result["cells"]),
    }  # fmt: skip


def matrix(cells: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Differing of compared logprobs: claimed -> verified."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for cell in cells:
        for phase in ("prefill", "decode"):
            for i, what in enumerate(("differing", "compared")):
                sums[cell["claimed"], cell["verified"]][i] += cell[phase][what]
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for (claimed, verified), (differing, compared) in sums.items():
        found[claimed][verified] = f"{differing}/{compared}"
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True, help="for the checkpoints (about 30 GB) and the results")
    parser.add_argument("--layers", type=int, default=CONFIG.num_layers)
    parser.add_argument("--vocabulary", type=int, default=CONFIG.vocab_size)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=2048)
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    parser.add_argument("--executor", default="cuda")
    parser.add_argument("--device", action="append", default=[])
    parser.add_argument("--gpus", help="as of `qforensics study`")
    parser.add_argument("--name", default="study", help="of the results' folder; one that is there is gone on with")
    args = parser.parse_args()
    if not args.folder.exists():
        began = time.perf_counter()
        make_models(args.folder, args.layers, args.vocabulary)
        print(json.dumps({"written_s": round(time.perf_counter() - began, 1)}), flush=True)
    ids = np.random.default_rng(2).integers(0, args.vocabulary, (args.prompts, args.prompt)).tolist()
    write_atomic(args.folder / "prompts.json", json.dumps(ids).encode())
    for device in args.device or ["h200"]:
        output = args.folder / f"{args.name}-{device}"
        print(json.dumps(run_study(args, device, output)), flush=True)


if __name__ == "__main__":
    main()
