"""JSON that someone else wrote: bounded size, no duplicate keys, no NaN, no crash on nesting."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qforensics._json import parse_json
from qforensics.checkpoints._errors import CheckpointError, mismatch

__all__ = ["choice", "flag", "integer_field", "parse_object", "read_object"]

#: Larger than any published configuration (and than the index of a model with 100,000 tensors).
MAX_JSON_BYTES = 32 * 2**20


def parse_object(text: str | bytes, file: Path | str, subject: str = "JSON") -> dict[str, Any]:
    """Parse one JSON object.

    Parameters
    ----------
    text
        UTF-8 JSON.
    file, subject
        Named in the error.

    Raises
    ------
    CheckpointError
        Not an object, or what `parse_json` refuses.
    """
    try:
        value = parse_json(text)
    except ValueError as error:  # over-long integers too
        raise mismatch(file, subject, expected="valid JSON", found=error) from None
    if not isinstance(value, dict):
        raise mismatch(file, subject, expected="a JSON object", found=type(value).__name__)
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from `path`; see `parse_object`. The size is checked before anything is read."""
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise mismatch(path, "size", expected=f"at most {MAX_JSON_BYTES} bytes", found=f"{size} bytes")
        return parse_object(path.read_bytes(), path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def choice(value: object, options: Iterable[str], file: Path | str, key: str) -> str:
    """Return `value` if it is one of the strings in `options`."""
    if not isinstance(value, str) or value not in options:
        raise mismatch(file, key, expected=" or ".join(options), found=repr(value))
    return value


def flag(data: Mapping[str, Any], key: str, file: Path | str, *, default: bool) -> bool:
    """Return ``data[key]`` as a bool; `default` where it is absent."""
    value = data.get(key, default)
    if not isinstance(value, bool):
        raise mismatch(file, key, expected="true or false", found=repr(value))
    return value


def integer_field(
    data: Mapping[str, Any],
    key: str,
    file: Path | str,
    *,
    low: int = 1,
    high: int = 2**31 - 1,
    default: int | None = None,
) -> int:
    """Return ``data[key]`` as an integer in [low, high]; `default` where it is absent or null."""
    value = data.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise mismatch(file, key, expected=f"an integer in {low}..{high}", found=repr(value))
    return value
