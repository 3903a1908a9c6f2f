"""The one error of this package, and the sentence it speaks."""

from pathlib import Path

from qforensics._refusal import refusal

__all__ = ["CheckpointError", "mismatch"]


class CheckpointError(ValueError):
    """A checkpoint that cannot be what it claims to be.

    The message names the file, the tensor or field, what was expected and what was found.
    """


def mismatch(file: Path | str, subject: str, *, expected: object, found: object) -> CheckpointError:
    """Build the error for one contradiction in a checkpoint.

    Parameters
    ----------
    file
        File that holds the contradiction.
    subject
        Tensor name, header field or configuration key.
    expected, found
        What a valid checkpoint would hold, and what this one holds.
    """
    return CheckpointError(refusal(file, subject, expected, found))
