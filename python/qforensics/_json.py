"""Strict JSON: what adversaries write is read with no surprises; what we write lands whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["canonical_json", "parse_json", "read_bytes", "read_json", "write_atomic", "write_json"]


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key!r} appears twice")
            seen.add(key)
    return found


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; NaN, Infinity, repeated keys and absurd nesting are refused.

    Raises
    ------
    ValueError
        With the parser's reason.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"JSON is not UTF-8: {error}") from None


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, ASCII; NaN and infinities are refused.

    Raises
    ------
    TypeError
        When the value holds something that JSON has no form for.
    ValueError
        When it holds NaN or an infinity, or refers to itself.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_bytes(path: str | os.PathLike[str], *, limit: int) -> bytes:
    """Bytes of a file of at most `limit` bytes (ValueError when larger)."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ValueError(f"{os.fspath(path)}: {size} bytes, expected at most {limit}")
        data = file.read(size + 1)  # never read(limit): that reserves the whole limit
    if len(data) != size:
        raise ValueError(f"{os.fspath(path)}: its size changed while it was read (from {size} bytes)")
    return data


def read_json(path: str | os.PathLike[str], *, limit: int) -> Any:
    """What a JSON file of at most `limit` bytes holds; ValueError, naming the file, where it is none."""
    data = read_bytes(path, limit=limit)
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old file or the whole new one."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:  # name the file that was asked for
            raise OSError(error.errno, error.strerror, os.fspath(target)) from None
        raise
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write a JSON object, indented, atomically."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    write_atomic(path, (text + "\n").encode())
