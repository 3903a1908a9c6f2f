"""The sentence in which every reader refuses a file: where, what was expected, what was found."""

from __future__ import annotations

import os

__all__ = ["refusal"]

LONGEST = 200


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def refusal(file: str | os.PathLike[str], subject: str, expected: object, found: object) -> str:
    """``FILE: SUBJECT: expected EXPECTED, found FOUND``, each part of a length that a file's author cannot choose."""
    return f"{os.fspath(file)}: {_cut(subject)}: expected {_cut(expected)}, found {_cut(found)}"
