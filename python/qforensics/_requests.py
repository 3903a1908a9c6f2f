"""From traces and prompts to what the engine takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from qforensics.trace import LogprobRows, Trace

__all__ = ["LIMIT", "recorded_limit", "request_of"]

LIMIT = "max_num_batched_tokens"


def recorded_limit(traces: Sequence[Trace]) -> int | None:
    """The limit of a step's rows that the traces were made with."""
    limits = [trace.provenance.get(LIMIT) for trace in traces]
    limit = limits[0]
    if limits != [limit] * len(limits) or not (limit is None or (type(limit) is int and limit >= 1)):
        raise ValueError(f"provenance {LIMIT!r}: expected the same integer of at least 1, or null, found {limits}")
    return limit


def request_of(
    prompt: np.ndarray,
    *,
    forced: Iterable[int],
    new_tokens: int,
    prefill: LogprobRows | None = None,
    decode: LogprobRows | None = None,
) -> dict[str, Any]:
    """A sequence's part of a call, as ``_engine`` takes it; `prefill` and `decode` hold the ids that are asked for."""
    if prompt.size == 0:
        raise ValueError("prompt_ids: expected at least one id, found none")
    if prompt.ndim != 1 or not np.issubdtype(prompt.dtype, np.integer):
        raise TypeError(f"prompt_ids: expected a vector of integers, found {prompt.dtype} {list(prompt.shape)}")
    none = np.empty(0, np.int64), np.empty(0, np.int32)
    prefill_offsets, prefill_ids = (prefill.offsets, prefill.ids) if prefill is not None else none
    decode_offsets, decode_ids = (decode.offsets, decode.ids) if decode is not None else none
    return {
        "prompt": np.ascontiguousarray(prompt, np.int64),
        "forced": np.ascontiguousarray(np.fromiter(forced, np.int64)),
        "new_tokens": int(new_tokens),
        "prompt_logprobs": True,
        "prefill_offsets": prefill_offsets,
        "prefill_ids": prefill_ids,
        "decode_offsets": decode_offsets,
        "decode_ids": decode_ids,
    }
