"""The loaded model: it moves requests into the engine and answers back into traces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qforensics import _core, _libtorch, variants
from qforensics._assemble import assemble
from qforensics._memory import release_unused
from qforensics._requests import LIMIT, recorded_limit, request_of
from qforensics._sfu import sfu_tables
from qforensics._supported import check_quantization, engine_config, llama3_scaling
from qforensics.checkpoints import Checkpoint
from qforensics.devices import DeviceProfile
from qforensics.environment import capture_environment
from qforensics.plans import device_numbers
from qforensics.prepare import DEFAULT_MODEL, FORMS
from qforensics.text import Tokenizer
from qforensics.trace import LogprobRows, Trace

__all__ = ["ENGINE", "Model", "Progress"]

ENGINE = "vllm-0.21"
Progress = Callable[[int, int], None]
LAYERS_AHEAD = 8
NO_SCALING = (1.0, 1.0, 4.0, 8192)
_DTYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}


class Model:
    """A loaded model; make one with `load_model`.

    Attributes
    ----------
    checkpoint : Checkpoint
    variant : Variant
    device : DeviceProfile
        The GPU whose arithmetic is computed.
    profile : str
    kernel : str
        What the quantized layers run (a name of ``qforensics.kernels``).
    deterministic : bool
        Racing sums are added in one canonical order instead of a drawn one.
    executor : str
        Where it is computed: "cpu", "cuda" or "native".
    """

    reports_progress = True

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        variant: variants.Variant,
        device: DeviceProfile,
        profile: str,
        kernel: str,
        layer_kernel: Callable[[tuple[int, int, int]], str] | None,
        executor: str,
        threads: int,
        isa: str,
        seed: int,
        deterministic: bool,
        progress: Progress | None,
    ) -> None:
        self.checkpoint, self.variant, self.device = checkpoint, variant, device
        self.profile, self.kernel, self.deterministic = profile, kernel, deterministic
        self.executor = executor
        self._layer_kernel = layer_kernel or (lambda layer: kernel)
        self._threads, self._isa, self._seed, self._runs = threads, isa, seed, 0
        self._dtype = "float32" if profile == "fp32" else variant.dtype
        self._engine = self._build(progress)
        self._digest: str | None = None
        self._text: Tokenizer | None = None

    def _build(self, progress: Progress | None) -> Any:
        config, dtype = engine_config(self.checkpoint), _DTYPES[self._dtype]
        check_quantization(self.checkpoint, self.variant)
        rotary_cache, notes = self._rotary_cache(dtype)
        engine = _import_engine(self.executor).Engine(
            config=config,
            dtype=dtype,
            profile=self.profile,
            compute_major=self.device.compute_capability[0],
            executor=self.executor,
            isa=self._isa,
            threads=self._threads,
            device=_core.DeviceNumbers(device_numbers(self.device)),
            deterministic=self.deterministic,
            special=None if self.profile == "fp32" else sfu_tables(),  # the fp32 definitions have their own functions
        )
        engine.set_tensor("rotary_cache", -1, rotary_cache)
        self._notes = notes + assemble(
            engine,
            self.checkpoint,
            kernel=self._layer_kernel,
            dense_kernel="fp32" if self._dtype == "float32" else "cublas",
            dtype=self._dtype,
            dequantize=self.variant.quantization is None and self.checkpoint.format == "gguf",
            ahead=0 if self.executor == "cpu" else min(self._threads, LAYERS_AHEAD),
            progress=progress,
        )
        engine.finish()
        release_unused()
        return engine

    def _rotary_cache(self, dtype: str) -> tuple[NDArray[Any], tuple[str, ...]]:
        """The table of cosines and sines, and what of it no recording confirms."""
        config, major = self.checkpoint.config, self.device.compute_capability[0]
        runtime = _core.OperatorRuntime(self.profile, major, sfu_tables(), self._isa, self._threads)
        scaling = llama3_scaling(self.checkpoint) or NO_SCALING
        cache = runtime.rotary_cache(dtype, config.rope_theta, config.head_dim, config.max_positions, *scaling)
        return cache, tuple(runtime.unconfirmed)

    def teacher_force(
        self,
        trace: Trace,
        *,
        top_k: int | None = None,
        max_num_batched_tokens: int | None = None,
        progress: Progress | None = None,
    ) -> Trace:
        """Replay a trace's ids: its prompt in the chunks that it records, then its generated ids one step each.

        Parameters
        ----------
        trace
            Ids to force. Its entries name the token ids whose logprobs are wanted beside the top-k.
        top_k
            Largest logprobs kept per row; the trace's own by default.
        max_num_batched_tokens
            See `generate`; by default what the trace records, no limit where it records none.
        progress
            Called with (tokens done, tokens in all).

        Returns
        -------
        Trace
            The same ids, with what this model computes for them.
        """
        limit = max_num_batched_tokens
        return self.teacher_force_batch([trace], top_k=top_k, max_num_batched_tokens=limit, progress=progress)[0]

    def teacher_force_batch(
        self,
        traces: Sequence[Trace],
        *,
        top_k: int | None = None,
        max_num_batched_tokens: int | None = None,
        progress: Progress | None = None,
    ) -> list[Trace]:
        """Replay several traces as one batch; see `generate_batch` for its steps.

        Raises
        ------
        ValueError
            Also where the traces record different ``max_num_batched_tokens``, or one that is no limit.
        """
        requests = [
            request_of(
                trace.prompt_ids,
                forced=trace.generated_ids,
                new_tokens=trace.generated_ids.size,
                prefill=trace.prefill,
                decode=trace.decode,
            )
            for trace in traces
        ]
        limit = recorded_limit(traces) if max_num_batched_tokens is None else max_num_batched_tokens
        top_k = top_k or max(trace.top_k for trace in traces)
        return self._run(requests, top_k, limit, progress, mode="teacher_force")

    def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        top_k: int = 20,
        max_num_batched_tokens: int | None = None,
        progress: Progress | None = None,
    ) -> Trace:
        """Generate greedily (largest logprob, the lowest id among equals).

        Parameters
        ----------
        prompt_ids
            Token ids, at least one.
        max_new_tokens
            Decode rows of the trace; generation does not stop at end-of-text ids.
        top_k
            Largest logprobs kept per row.
        max_num_batched_tokens
            Rows of a step at most, vLLM's option of that name: a longer prompt goes through in chunks of so many. None:
            every prompt in one step. The rows of a step choose kernels, their partitions and attention's splits, so
            that chunks have bits of their own; under the ``fp32`` profile with its kernel they have the same.
        """
        return self.generate_batch(
            [prompt_ids],
            max_new_tokens=max_new_tokens,
            top_k=top_k,
            max_num_batched_tokens=max_num_batched_tokens,
            progress=progress,
        )[0]

    def generate_batch(
        self,
        prompts: Iterable[Sequence[int]],
        *,
        max_new_tokens: int,
        top_k: int = 20,
        max_num_batched_tokens: int | None = None,
        progress: Progress | None = None,
    ) -> list[Trace]:
        """Generate for several prompts as one batch: all prompts in one step, then decode steps of all together.

        With `max_num_batched_tokens` a step takes, in the order of the prompts, what is left of a prompt or one decoded
        token of each, while there is room (source: vLLM 0.21's scheduler; no such run was recorded).
        """
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}")
        requests = [request_of(np.asarray(prompt), forced=(), new_tokens=max_new_tokens) for prompt in prompts]
        return self._run(requests, top_k, max_num_batched_tokens, progress, mode="generate")

    def encode(self, text: str) -> list[int]:
        """Ids of a text by the checkpoint's own ``tokenizer.json``, for `generate`; no chat template is applied."""
        return self._tokenizer().encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids by the checkpoint's own ``tokenizer.json``."""
        return self._tokenizer().decode(ids)

    def _tokenizer(self) -> Tokenizer:
        self._text = self._text or Tokenizer(self.checkpoint.path)
        return self._text

    def _check_length(self, request: Mapping[str, Any]) -> None:
        """The last id is never fed back: it needs no position."""
        needed = request["prompt"].size + max(request["new_tokens"] - 1, 0)
        if needed > self.checkpoint.config.max_positions:
            sizes = f"{request['prompt'].size} prompt ids and {request['new_tokens']} new ones"
            raise ValueError(f"{sizes}: expected at most {self.checkpoint.config.max_positions} positions")

    def _run(
        self, requests: list[dict[str, Any]], top_k: int, limit: int | None, progress: Progress | None, *, mode: str
    ) -> list[Trace]:
        for request in requests:
            self._check_length(request)
        seed = (self._seed + self._runs * 0x9E3779B97F4A7C15) % (1 << 64)  # a new run draws new races
        self._runs += 1
        if self._engine.lacks_lg2(max((r["prompt"].size + r["new_tokens"] for r in requests), default=0)):
            self._engine.set_special(sfu_tables(lg2=True))
            release_unused()
        answer = self._engine.run(requests, top_k, seed, progress, limit)
        release_unused()
        provenance = self._provenance(answer, mode=mode, batch=len(requests)) | {LIMIT: limit}
        return [
            Trace(
                prompt_ids=request["prompt"].astype(np.int32),
                generated_ids=sequence["generated"].astype(np.int32),
                prefill=LogprobRows(**sequence["prefill"]),
                decode=LogprobRows(**sequence["decode"]),
                top_k=top_k,
                provenance=provenance,
            )
            for request, sequence in zip(requests, answer["sequences"], strict=True)
        ]

    def _provenance(self, answer: Mapping[str, Any], *, mode: str, batch: int) -> dict[str, Any]:
        notes = {phase: answer[f"{phase}_notes"] for phase in ("prefill", "decode")}
        if self._digest is None:
            self._digest = self.checkpoint.digest()
        layers = {name: {str(m): k for m, k in by_rows.items()} for name, by_rows in self._engine.kernels().items()}
        return {
            "mode": mode,
            "variant": self.variant.name,
            "device": self.device.name,
            "profile": self.profile,
            "engine": ENGINE,
            "dtype": self._dtype,
            "kernel": self.kernel,
            "kernels": sorted({kernel for by_rows in layers.values() for kernel in by_rows.values()}),
            "layers": layers,
            "rows": [[phase, rows] for phase, rows in answer["steps"]],
            "batch": batch,
            "deterministic": self.deterministic,
            "racing": {phase: sorted(note["racing"]) for phase, note in notes.items()},
            "unconfirmed": {phase: sorted({*note["unconfirmed"], *self._notes}) for phase, note in notes.items()},
            "isa": self._isa,
            "executor": executor_record(self._engine),
            "threads": self._threads,
            "process": os.getpid(),
            "model": DEFAULT_MODEL if self._digest in FORMS.values() else self.checkpoint.path.name,
            "max_positions": self.checkpoint.config.max_positions,
            "digests": {"checkpoint": self._digest},
            "environment": capture_environment(isa=self._isa, threads=self._threads).to_json(),
        }

    def __repr__(self) -> str:
        what = f"{self.checkpoint.path.name} as {self.variant.name} on {self.device.name}"
        return f"Model({what}, {self.profile}, kernel {self.kernel})"


def executor_record(engine: Any) -> dict[str, Any]:
    """Where an engine computed, JSON-able; of a GPU its name and what took the plans: schemes of the emulator or native
    kernels ("kernel awq"), by the plan's kernel and by kind of layer and number of rows."""
    found = dict(engine.executor())
    if "gpu" in found:
        found["schemes"] = {kernel: sorted(names) for kernel, names in found["schemes"].items()}
        found["layers"] = {
            kind: {str(rows): sorted(names) for rows, names in by_rows.items()}
            for kind, by_rows in found["layers"].items()
        }
    return found


def _import_engine(executor: str = "cpu") -> Any:
    try:
        _libtorch.load(cuda=executor != "cpu")
    except ImportError:
        raise ImportError(
            "loading a model needs torch >= 2.11 (pip install 'qforensics[engine]'); judging saved traces does not"
        ) from None
    try:
        from qforensics import _engine  # type: ignore[attr-defined]
    except ImportError as error:
        raise ImportError(
            f"qforensics._engine is not usable: {error}. It is built where torch is installed at build time: "
            "reinstall with --no-build-isolation."
        ) from None
    return _engine
