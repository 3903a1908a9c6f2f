"""Recorded engine outputs (JSON) into traces.

The form is the one that this project records vLLM in: ``traces`` (or ``alone`` and ``batch``) is a list of runs; a run
has ``prompt_ids``, ``prompt`` (per position a map token id -> float32 bits of the logprob, the first null), ``ids`` and
``decode`` (the same maps per generated id). A map holds the top 20 and the actual token. A file may say the engine's
``max_num_batched_tokens``, by which a replay makes its steps.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from qforensics._json import parse_json, read_bytes
from qforensics._refusal import refusal
from qforensics.trace import LogprobRows, Trace

__all__ = ["ImportFormatError", "import_trace"]

MAX_FILE_BYTES = 1 << 30
PARTS = ("traces", "alone", "batch", "again")
TOP_K = 20
LIMIT = "max_num_batched_tokens"


class ImportFormatError(ValueError):
    """A recording that is refused: names file, field, what was expected and what was found."""


class _Reader:
    """Reads one file's values, naming file and field in every refusal."""

    def __init__(self, path: str) -> None:
        self.path = path

    def refuse(self, where: str, expected: object, found: object) -> NoReturn:
        raise ImportFormatError(refusal(self.path, where, expected, found))

    def get(self, value: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
        if key not in value or not isinstance(value[key], kind):
            self.refuse(
                f"{where}{key}", f"a {kind.__name__}", type(value.get(key)).__name__ if key in value else "nothing"
            )
        return value[key]

    def token(self, value: Any, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
            self.refuse(where, "a token id (0 .. 2^31 - 1)", value if isinstance(value, int) else type(value).__name__)
        return value

    def tokens(self, value: Sequence[Any], where: str) -> list[int]:
        return [self.token(item, f"{where}[{i}]") for i, item in enumerate(value)]

    def row(self, value: Any, target: int, where: str) -> dict[int, np.float32]:
        """One position's map: 20 entries with the actual token among them, or 21 with it besides."""
        if not isinstance(value, dict):
            self.refuse(where, "a map token id -> float32 bits", type(value).__name__)
        if len(value) not in (TOP_K, TOP_K + 1):
            self.refuse(where, f"{TOP_K} or {TOP_K + 1} entries", len(value))
        ids: list[int] = []
        for key, bits in value.items():
            if not (key.isascii() and key.isdigit() and str(int(key[:11])) == key):
                self.refuse(where, "decimal token ids as keys", key)
            ids.append(self.token(int(key), where))
            if not isinstance(bits, int) or isinstance(bits, bool) or not 0 <= bits < 1 << 32:
                self.refuse(f"{where}[{key!r}]", "the 32 bits of a float32", bits)
        if target not in ids:
            self.refuse(where, f"the actual token {target} among the keys", f"{len(ids)} other ids")
        values = np.array(list(value.values()), np.uint32).view(np.float32)
        if not np.isfinite(values).all():
            self.refuse(where, "finite logprobs", values[~np.isfinite(values)][0])
        found = dict(zip(ids, values, strict=True))
        rest = [logprob for token, logprob in found.items() if token != target]
        if len(found) > TOP_K and found[target] > min(rest):
            self.refuse(
                where, f"an actual token below the {TOP_K} largest, as it is listed besides them", found[target]
            )
        return found

    def rows(self, maps: Sequence[Any], targets: Sequence[int], where: str) -> LogprobRows:
        found = [
            self.row(value, target, f"{where}[{i}]")
            for i, (value, target) in enumerate(zip(maps, targets, strict=True))
        ]
        return LogprobRows.from_mappings(targets, found, top_k=TOP_K)


def _select(reader: _Reader, data: Mapping[str, Any], index: int, part: str | None) -> tuple[str, Any]:
    if part is None:
        part = next((name for name in ("traces", "alone") if name in data), None)
        if part is None:
            reader.refuse("file", "`traces` or `alone`", sorted(data))
    elif part not in PARTS:
        raise ValueError(f"part: expected one of {', '.join(PARTS)}, found {part!r}")
    runs = reader.get(data, part, list, "")
    if not isinstance(index, int) or isinstance(index, bool):
        raise TypeError(f"index: expected an integer, found {type(index).__name__}")
    if not 0 <= index < len(runs):
        raise IndexError(f"{reader.path}: {part} holds {len(runs)} runs, index {index} was asked for")
    if not isinstance(runs[index], dict):
        reader.refuse(
            f"{part}[{index}]", "a run", "null (the second run was equal)" if runs[index] is None else runs[index]
        )
    return part, runs[index]


def _kernels(reader: _Reader, data: Mapping[str, Any]) -> list[str]:
    """Names of what ran, sorted; files of several calls hold one list per call."""
    recorded = data.get("kernels", [])
    if not isinstance(recorded, list):
        reader.refuse("kernels", "a list", type(recorded).__name__)
    names = [name for item in recorded for name in (item if isinstance(item, list) else [item])]
    if not all(isinstance(name, str) for name in names):
        reader.refuse("kernels", "kernel names", "other values")
    return sorted(set(names))


def _flag(data: Mapping[str, Any], key: str, index: int) -> bool | None:
    values = data.get(key)
    found = values[index] if isinstance(values, list) and index < len(values) else None
    return found if isinstance(found, bool) else None


def _limit(reader: _Reader, data: Mapping[str, Any]) -> dict[str, int]:
    if LIMIT not in data:
        return {}
    if type(data[LIMIT]) is not int or data[LIMIT] < 1:
        reader.refuse(LIMIT, "an integer of at least 1", data[LIMIT])
    return {LIMIT: data[LIMIT]}


def _provenance(reader: _Reader, data: Mapping[str, Any], part: str, index: int, digest: str) -> dict[str, Any]:
    variant = reader.get(data, "variant", str, "")
    gpu = reader.get(data, "gpu", str, "")
    versions = {name: reader.get(data, name, str, "") for name in ("vllm", "torch")}
    mode, attention = data.get("mode", "eager"), data.get("attention")
    if not isinstance(mode, str) or not isinstance(attention, (str, type(None))):
        reader.refuse("mode, attention", "text", [mode, attention])
    if part in ("traces", "again"):
        repeats = _flag(data, "run_to_run_same", index)
    else:
        repeats = _flag(data, f"{part}_repeats", index)
    again = data.get("again")
    return {
        **_limit(reader, data),
        "source": "recorded engine run",
        "variant": variant,
        "device": gpu,
        "engine": f"vllm {versions['vllm']}",
        "mode": mode,
        "attention": attention,
        "kernels": _kernels(reader, data),
        "batch": len(data["batch"]) if part == "batch" else 1,
        "repeats_bit_equal": repeats,
        "again_recorded": isinstance(again, list) and index < len(again) and again[index] is not None,
        "environment": {**versions, "gpu": gpu},
        "file": {"name": os.path.basename(reader.path), "sha256": digest, "part": part, "index": index},
    }


def _load(reader: _Reader) -> tuple[dict[str, Any], str]:
    try:
        raw = read_bytes(reader.path, limit=MAX_FILE_BYTES)
        data = parse_json(raw)
    except ValueError as error:
        raise ImportFormatError(refusal(reader.path, "file", "JSON", error)) from None
    if not isinstance(data, dict):
        reader.refuse("file", "a recording (an object)", type(data).__name__)
    return data, hashlib.sha256(raw).hexdigest()


def import_trace(path: str | os.PathLike[str], index: int = 0, *, part: str | None = None) -> Trace:
    """Read one recorded run into a `Trace`.

    Parameters
    ----------
    path
        A recording (JSON).
    index
        Which run of its part.
    part
        ``traces``, ``again`` (the second run, where it differed), ``alone`` or ``batch``; by default ``traces``, or
        ``alone`` where the file has no ``traces``.

    Returns
    -------
    Trace
        Top 20 and the actual token per position, bits as recorded, in canonical order.

    Raises
    ------
    ImportFormatError
        Naming file, field, expected and found.
    IndexError
        When the part holds no such run.

    Examples
    --------
    >>> trace = import_trace("tests/data/traces/vllm-0.21.0-h200/awq.json", 0)
    >>> trace.provenance["variant"], trace.prefill.rows, trace.decode.rows
    ('awq', 37, 32)
    """
    reader = _Reader(os.fspath(path))
    data, digest = _load(reader)
    part, run = _select(reader, data, index, part)
    where = f"{part}[{index}]."
    prompt_ids = reader.tokens(reader.get(run, "prompt_ids", list, where), f"{where}prompt_ids")
    generated = reader.tokens(reader.get(run, "ids", list, where), f"{where}ids")
    prompt, decode = (reader.get(run, key, list, where) for key in ("prompt", "decode"))
    for name, maps, ids in (("prompt", prompt, prompt_ids), ("decode", decode, generated)):
        if len(maps) != len(ids):
            reader.refuse(f"{where}{name}", f"{len(ids)} positions", len(maps))
    if not prompt_ids or prompt[0] is not None:
        reader.refuse(f"{where}prompt[0]", "null (nothing predicts the first id)", prompt[:1])
    return Trace(
        prompt_ids=np.array(prompt_ids, np.int32),
        generated_ids=np.array(generated, np.int32),
        prefill=reader.rows(prompt[1:], prompt_ids[1:], f"{where}prompt[1:]"),
        decode=reader.rows(decode, generated, f"{where}decode"),
        top_k=TOP_K,
        provenance=_provenance(reader, data, part, index, digest),
    )
