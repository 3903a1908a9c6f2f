"""Recorded runs that the package ships: vLLM 0.21.0 on an H200, and the prompts they were made with."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

from qforensics.container import ContainerError
from qforensics.trace import Trace

__all__ = ["RECORDINGS", "prompts", "recording"]

RECORDINGS: Mapping[str, str] = MappingProxyType(
    {
        "fp16": "daadd9a17df5b0264aecccc2a7d17146338474b06b9d747bc939cbbe12405366",
        "awq": "a2bd41186d4696b81e770d55d464052af0a42e4dd989345d2a1d9a8f52f95e0a",
        "awq_marlin": "1e874079d1a48d459cd45d29036b1d37733899ef1c804258af23d6606d5265c6",
        "gptq": "542b887e63ebb0a4432a37e99d4fcedc39bdb2bd54683c2bae6e6be568ac4e30",
        "gptq_marlin": "62898b739e8b4810e954d1adf006f64968f565366b9aa4d4cb99805d742f51b8",
        "gptq-again": "478f0ab020ad73eb5c3f1072f916ac1e4270e6480d93daa93c8c46c0388130ff",
    }
)
"""Name -> `Trace.digest`. ``gptq-again`` is the engine's own second run of ``gptq``; the others repeat bit for bit."""


def recording(name: str) -> Trace:
    """A shipped recording: one prompt of 38 ids and 32 greedy tokens, top 20.

    Parameters
    ----------
    name
        One of `RECORDINGS`.

    Raises
    ------
    ValueError
        An unknown name, with the close ones.
    ContainerError
        The installed file is damaged.

    Examples
    --------
    >>> recording("awq").provenance["device"]
    'NVIDIA H200'
    """
    if name not in RECORDINGS:
        close = difflib.get_close_matches(name, RECORDINGS) or list(RECORDINGS)
        raise ValueError(f"unknown recording {name!r}; did you mean {' or '.join(close)}?")
    with resources.as_file(resources.files("qforensics") / "data" / "traces" / f"{name}.trace") as path:
        trace = Trace.load(path)
        if trace.digest != RECORDINGS[name]:
            raise ContainerError(path, "digest", RECORDINGS[name], trace.digest)
    return trace


def prompts() -> list[list[int]]:
    """Token ids of the prompts that every recording was made with."""
    text = (resources.files("qforensics") / "data" / "prompts.json").read_text(encoding="utf-8")
    return [[int(token) for token in prompt["ids"]] for prompt in json.loads(text)]
