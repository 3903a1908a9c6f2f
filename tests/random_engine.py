"""An engine over random weights of an 8B model's shapes and scale, made without a checkpoint: no hub is needed, and a
layer's codes are drawn once."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from qforensics import _core
from qforensics._model import _import_engine
from qforensics._sfu import sfu_tables
from qforensics.devices import device as find_device
from qforensics.environment import selected_isa
from qforensics.plans import device_numbers

PROFILE, GROUP = "vllm-0.21-eager", 128
#: Qwen3-8B: config.json of the model's public repository.
QWEN3_8B = {
    "layers": 36, "hidden": 4096, "intermediate": 12288, "heads": 32, "kv_heads": 8, "head_size": 128,
    "vocabulary": 151936, "rms_epsilon": 1e-6,
}  # fmt: skip
THETA, POSITIONS = 1e6, 8192


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.astype(np.float16)).view(np.uint16)


def codes_weight(n: int, k: int, rng: np.random.Generator) -> Any:
    """Codes around the zero point, as quantizing normal weights of deviation 1 / sqrt(k) gives them."""
    codes = np.frombuffer(rng.bytes(k * n), np.uint8).reshape(k, n) & 15
    scales = bits(rng.uniform(0.8, 1.2, (k // GROUP, n)) / 4.6 / np.sqrt(k))
    zeros = np.full((k // GROUP, n), 8, np.uint8)
    return _core.pack_codes(np.ascontiguousarray(codes), zeros, scales, "fp16", GROUP, None, None)


def embedding(vocabulary: int, hidden: int, rng: np.random.Generator) -> np.ndarray:
    """Rows [vocabulary, hidden] as bits; a block of normal rows, each time with other scales."""
    block = rng.standard_normal((1024, hidden), np.float32)
    out = np.empty((vocabulary, hidden), np.uint16)
    for first in range(0, vocabulary, len(block)):
        rows = out[first : first + len(block)]
        scales = rng.uniform(0.5, 1.5, (len(rows), 1)) / np.sqrt(hidden)
        rows[:] = bits(block[: len(rows)] * scales.astype(np.float32))
    return out


class RandomEngine:
    """`kernel` runs the quantized layers. The same seed gives the same weights under every executor."""

    def __init__(self, executor: str, *, layers: int, kernel: str, device: str, seed: int = 1) -> None:
        gpu = find_device(device)
        self.config = {**QWEN3_8B, "layers": layers}
        rng = np.random.default_rng(seed)
        isa, threads = selected_isa(), len(os.sched_getaffinity(0))
        self.engine = _import_engine(executor).Engine(
            config=self.config, dtype="fp16", profile=PROFILE, compute_major=gpu.compute_capability[0],
            executor=executor, isa=isa, threads=threads, device=_core.DeviceNumbers(device_numbers(gpu)),
            deterministic=False, special=sfu_tables(lg2=True),
        )  # fmt: skip
        runtime = _core.OperatorRuntime(PROFILE, gpu.compute_capability[0], sfu_tables(), isa, threads)
        cache = runtime.rotary_cache("fp16", THETA, self.config["head_size"], POSITIONS, 1.0, 1.0, 4.0, 8192)
        self.engine.set_tensor("rotary_cache", -1, cache)
        self._fill(kernel, rng)
        self.engine.finish()

    def _fill(self, kernel: str, rng: np.random.Generator) -> None:
        hidden, middle, head = self.config["hidden"], self.config["intermediate"], self.config["head_size"]
        queries, keys = self.config["heads"] * head, self.config["kv_heads"] * head
        shapes = {
            "qkv_proj": (queries + 2 * keys, hidden), "o_proj": (hidden, queries),
            "gate_up_proj": (2 * middle, hidden), "down_proj": (hidden, middle),
        }  # fmt: skip
        table = embedding(self.config["vocabulary"], hidden, rng)
        self.engine.set_tensor("embedding", -1, table)
        dense = self._options(transposed=True)
        self.engine.set_linear("lm_head", -1, "cublas", dense, _core.pack_dense(table, "fp16"), None)
        del table
        weights = {name: codes_weight(n, k, rng) for name, (n, k) in shapes.items()}
        norms = {"input_norm": hidden, "post_attention_norm": hidden, "q_norm": head, "k_norm": head}
        for layer in range(self.config["layers"]):
            for name, size in norms.items():
                self.engine.set_tensor(name, layer, bits(rng.uniform(0.5, 1.5, size)))
            for name, weight in weights.items():
                self.engine.set_linear(name, layer, kernel, self._options(), weight.copy(), None)
        self.engine.set_tensor("final_norm", -1, bits(rng.uniform(0.5, 1.5, hidden)))

    @staticmethod
    def _options(*, transposed: bool = False) -> Any:
        options = _core.KernelOptions()
        options.split, options.transposed = 0, transposed
        return options

    def run(
        self, prompts: list[list[int]], new_tokens: int, *, prompt_logprobs: bool = True, top_k: int = 20,
        progress: Any = None,
    ) -> Any:  # fmt: skip
        """What `_engine` answers; the generated ids are drawn, not chosen, so that every run forces the same ones."""
        rng = np.random.default_rng(9)
        none = np.empty(0, np.int64), np.empty(0, np.int32)
        requests = [
            {
                "prompt": np.asarray(prompt, np.int64),
                "forced": rng.integers(0, self.config["vocabulary"], new_tokens),
                "new_tokens": new_tokens, "prompt_logprobs": prompt_logprobs,
                "prefill_offsets": none[0], "prefill_ids": none[1],
                "decode_offsets": none[0], "decode_ids": none[1],
            }
            for prompt in prompts
        ]  # fmt: skip
        return self.engine.run(requests, top_k, 0, progress)
