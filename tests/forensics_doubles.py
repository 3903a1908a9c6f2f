"""A small numeric stand-in for a model: logits are a fixed function of the prefix. Only for tests."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from qforensics import StudyVariant
from qforensics.trace import LogprobRows, Trace

DATA = Path(__file__).parent / "data"
RECORDED = DATA / "traces" / "vllm-0.21.0-h200"
TOP_K = 5
VOCABULARY = 40
POSITIONS = 64


def recorded_files() -> list[Path]:
    files = sorted(RECORDED.rglob("*.json"))
    assert len(files) == 10
    return files


def _random(*parts: object) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little"))


class FakeModel:
    """`weights` fix the logits, `kernel` moves them by about `size`; `racing` adds a different 1e-4 in every run."""

    def __init__(
        self, weights: str, kernel: str, *, size: float = 1e-3, racing: bool = False, slow: float = 0.0
    ) -> None:
        self.weights, self.kernel, self.size, self.racing, self.slow = weights, kernel, size, racing, slow

    def logprobs(self, prefix: Sequence[int], noise: np.random.Generator | None) -> np.ndarray:
        time.sleep(self.slow)
        logits = _random(self.weights, tuple(prefix)).normal(size=VOCABULARY) * 3
        logits += _random(self.kernel, tuple(prefix)).normal(size=VOCABULARY) * self.size
        if noise is not None:
            logits += noise.normal(size=VOCABULARY) * 1e-4
        return np.float32(logits - np.log(np.exp(logits).sum()))

    def _row(self, logprobs: np.ndarray, target: int, asked: Sequence[int] = ()) -> dict[int, np.float32]:
        top = np.argsort(-logprobs, kind="stable")[:TOP_K]
        return {int(i): logprobs[i] for i in {*map(int, top), target, *asked}}

    def _trace(self, prompt: list[int], generated: list[int], prefill: list, decode: list) -> Trace:
        racing = {"prefill": ["fake_atomic"], "decode": ["fake_atomic"]} if self.racing else {}
        return Trace(
            np.array(prompt, np.int32),
            np.array(generated, np.int32),
            LogprobRows.from_mappings(prompt[1:], prefill, top_k=TOP_K),
            LogprobRows.from_mappings(generated, decode, top_k=TOP_K),
            TOP_K,
            {
                "variant": self.kernel,
                "model": self.weights,
                "max_positions": POSITIONS,
                "kernels": ["fake_gemm"],
                "racing": racing,
            },
        )

    def generate(self, prompt_ids: Sequence[int], *, max_new_tokens: int) -> Trace:
        noise = np.random.default_rng() if self.racing else None
        prompt = [int(i) for i in prompt_ids]
        prefill = [self._row(self.logprobs(prompt[: i + 1], noise), prompt[i + 1]) for i in range(len(prompt) - 1)]
        generated, decode = [], []
        for _ in range(max_new_tokens):
            logprobs = self.logprobs(prompt + generated, noise)
            token = int(np.argmax(logprobs))
            decode.append(self._row(logprobs, token))
            generated.append(token)
        return self._trace(prompt, generated, prefill, decode)

    def teacher_force(self, trace: Trace) -> Trace:
        noise = np.random.default_rng() if self.racing else None
        prompt, generated = trace.prompt_ids.tolist(), trace.generated_ids.tolist()
        rows = []
        for phase, tokens, start in ((trace.prefill, prompt[1:], 1), (trace.decode, generated, len(prompt))):
            ids = prompt + generated
            asked = [phase.row(i)[0].tolist() for i in range(phase.rows)]
            rows.append([self._row(self.logprobs(ids[: start + i], noise), t, asked[i]) for i, t in enumerate(tokens)])
        return self._trace(prompt, generated, *rows)

    def teacher_force_batch(self, traces: Sequence[Trace]) -> list[Trace]:
        """As a kernel whose sums depend on the rows: a batch moves the logits as another kernel does."""
        together = FakeModel(self.weights, f"{self.kernel} x {len(traces)}", size=self.size)
        replays = [together.teacher_force(trace) for trace in traces]
        return [replace(r, provenance={**r.provenance, "batch": len(traces)}) for r in replays]


def load_one() -> FakeModel:
    return FakeModel("w1", "k1")


def load_other_kernel() -> FakeModel:
    return FakeModel("w1", "k2")


def load_other_weights() -> FakeModel:
    return FakeModel("w2", "k3")


def load_racing() -> FakeModel:
    return FakeModel("w1", "k4", racing=True)


def load_slow() -> FakeModel:
    return FakeModel("w1", "k1", slow=0.004)


def load_slow_other() -> FakeModel:
    return FakeModel("w1", "k2", slow=0.004)


def load_very_slow() -> FakeModel:
    return FakeModel("w1", "k1", slow=30.0)


def load_broken() -> FakeModel:
    raise RuntimeError("no such checkpoint")


class DyingModel(FakeModel):
    """Kills its own process on its second generation, as a power cut would."""

    runs = 0

    def generate(self, prompt_ids: Sequence[int], *, max_new_tokens: int) -> Trace:
        DyingModel.runs += 1
        if DyingModel.runs == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(prompt_ids, max_new_tokens=max_new_tokens)


def load_dying() -> FakeModel:
    return DyingModel("w1", "k1")


class PickyModel(FakeModel):
    """Fails on prompts that begin with some ids."""

    first = (4,)

    def teacher_force(self, trace: Trace) -> Trace:
        if trace.prompt_ids[0] in self.first:
            raise ValueError(f"no prompt that begins with {trace.prompt_ids[0]}")
        return super().teacher_force(trace)


def load_picky() -> FakeModel:
    return PickyModel("w1", "k1")


class SeeingModel(FakeModel):
    """Notes the GPUs that its process sees, and the process."""

    def _trace(self, *parts: list) -> Trace:
        trace = super()._trace(*parts)
        seen = {"gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()}
        return replace(trace, provenance={**trace.provenance, **seen})


def load_seeing() -> FakeModel:
    print("a library that prints")  # into what the study reads answers from
    return SeeingModel("w1", "k1", slow=0.01)


def load_seeing_too() -> FakeModel:
    return SeeingModel("w1", "k2", slow=0.01)


class LostModel(FakeModel):
    """Its process is killed in a replay, as by the system where memory runs out."""

    def teacher_force(self, trace: Trace) -> Trace:
        os.write(2, b"something went wrong")
        os.kill(os.getpid(), signal.SIGKILL)
        return trace


def load_lost() -> FakeModel:
    return LostModel("w1", "k1")


def small_trace(
    kernel: str = "k1", *, prompt: Sequence[int] = (1, 2, 3, 4), length: int = 6, **options: float
) -> Trace:
    return FakeModel("w1", kernel, **options).generate(prompt, max_new_tokens=length)


VARIANTS = [
    StudyVariant("one", load_one, description="first"),
    StudyVariant("kernel", load_other_kernel),
    StudyVariant("weights", load_other_weights),
]
PROMPTS = [[1, 2, 3], [4, 5, 6, 7]]
