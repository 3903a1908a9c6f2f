"""Models that run out of memory in the middle of a study, and do so for real: the allocator refuses. Only for tests."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import qforensics as qf
from forensics_doubles import TOP_K
from qforensics.trace import LogprobRows, Trace

WIDE = {"num_attention_heads": 64, "num_key_value_heads": 64, "hidden_size": 64, "intermediate_size": 64,
        "max_position_embeddings": 2048}  # fmt: skip
"""Of `family_models.write_model`: a key and a value of a token take 2 x 8,192 numbers per layer."""


def long_reference(ids: int) -> Trace:
    """A prompt of so many ids; what it says of them is made up."""
    prompt = np.arange(ids, dtype=np.int32) % 40
    maps = [{(int(target) + i) % 40: -1.0 - i for i in range(TOP_K)} for target in prompt[1:]]
    rows = LogprobRows.from_mappings(prompt[1:].tolist(), maps, top_k=TOP_K)
    none = LogprobRows.from_mappings([], [], top_k=TOP_K)
    return Trace(prompt, np.zeros(0, np.int32), rows, none, TOP_K, {"variant": "made up"})


class Limited:
    """A model whose replays get `slack` bytes more than its process has."""

    def __init__(self, model: qf.Model, slack: int) -> None:
        self.model, self.slack = model, slack

    def generate(self, prompt_ids: Sequence[int], *, max_new_tokens: int) -> Trace:
        return self.model.generate(prompt_ids, max_new_tokens=max_new_tokens)

    def teacher_force(self, trace: Trace) -> Trace:
        before = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + self.slack, before[1]))
        try:
            return self.model.teacher_force(trace)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


class LimitedGpu(Limited):
    """The same of a GPU's memory: another tensor holds the rest of it."""

    def teacher_force(self, trace: Trace) -> Trace:
        import torch

        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        held = torch.empty(free - self.slack, dtype=torch.uint8, device="cuda")
        try:
            return self.model.teacher_force(trace)
        finally:
            del held
            torch.cuda.empty_cache()


def load_limited(path: str, slack: int) -> Limited:
    return Limited(qf.load_model(path, variant="fp16", profile="fp32"), slack)


def load_limited_gpu(path: str, slack: int) -> Limited:
    return LimitedGpu(qf.load_model(path, variant="fp16", executor="cuda"), slack)
