"""Text to token ids and back by a checkpoint's ``tokenizer.json``: for people only, traces and replays hold ids."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qforensics.checkpoints import load
from qforensics.prepare import DEFAULT_MODEL, FORMS, prepared_path
from qforensics.trace import Trace

__all__ = ["Tokenizer", "quoted", "tokenizer_of", "tokenizer_of_trace"]

FILE = "tokenizer.json"
MAX_FILE_BYTES = 1 << 28


class Tokenizer:
    """The ``tokenizer.json`` of a checkpoint directory, read by the `tokenizers` library.

    Parameters
    ----------
    checkpoint
        The directory where the file lies, or a file beside it.

    Raises
    ------
    ValueError
        No such file, or one that `tokenizers` refuses.
    ImportError
        When `tokenizers` is not installed.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        path = Path(checkpoint)
        self.path = (path if path.is_dir() else path.parent) / FILE
        if not self.path.is_file():
            raise ValueError(f"{self.path}: expected a file to read text with, found none; give token ids instead")
        if self.path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{self.path}: expected at most {MAX_FILE_BYTES} bytes, found {self.path.stat().st_size}")
        try:
            import tokenizers
        except ImportError:
            raise ImportError("text needs the tokenizers package (pip install 'qforensics[hub]'); ids do not") from None
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(self.path))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{self.path}: expected a tokenizer, found {error}") from None

    def encode(self, text: str) -> list[int]:
        """Ids of a text, with the special tokens that the tokenizer itself adds."""
        return [int(token) for token in self._tokenizer.encode(text).ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included; ids that the vocabulary lacks are left out, as the library does."""
        return str(self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=False))

    def __repr__(self) -> str:
        return f"Tokenizer({self.path})"


def quoted(text: str) -> str:
    """The text in quotes, its control characters escaped: a model's output may hold a terminal's commands."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in json.dumps(text, ensure_ascii=False))


def tokenizer_of(model: str | Path) -> Tokenizer:
    """The tokenizer of the embedded default (where it is prepared), of a checkpoint, or of a hub id, which is fetched.

    Raises
    ------
    ValueError
        Nothing there; see `Tokenizer`.
    """
    if str(model) != DEFAULT_MODEL:
        path = Path(model)
        if path.exists():
            return Tokenizer(path)
        close = difflib.get_close_matches(str(model), [DEFAULT_MODEL])
        if close:
            raise ValueError(f"{path}: expected a checkpoint, found nothing; did you mean {close[0]}?")
        return Tokenizer(load(model).path)
    prepared = [prepared_path(form) for form in FORMS]
    return Tokenizer(next((path for path in prepared if (path / FILE).is_file()), prepared[0]))


def tokenizer_of_trace(trace: Trace) -> Tokenizer | None:
    """The tokenizer of the model that a trace names by its checkpoint's digest, where that is the embedded default."""
    digests = trace.provenance.get("digests")
    known = isinstance(digests, dict) and digests.get("checkpoint") in FORMS.values()
    if not known:
        return None
    try:
        return tokenizer_of(DEFAULT_MODEL)
    except (ValueError, ImportError):
        return None
