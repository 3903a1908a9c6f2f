"""Traces: token ids and logprobs per position, prefill and decode apart, with where they came from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qforensics import _html
from qforensics._json import canonical_json, parse_json
from qforensics._rows_check import check_order, check_structure
from qforensics.container import ArraySpec, ContainerError, array_digest, read_container, write_container

__all__ = ["LogprobRows", "Trace"]

KIND, VERSION = "trace", 1
PHASES = ("prefill", "decode")

_ARRAYS = {
    "prompt_ids": ArraySpec(np.int32),
    "generated_ids": ArraySpec(np.int32),
    **{f"{phase}.offsets": ArraySpec(np.int64) for phase in ("prefill", "decode")},
    **{f"{phase}.ids": ArraySpec(np.int32) for phase in ("prefill", "decode")},
    **{f"{phase}.logprobs": ArraySpec(np.float32) for phase in ("prefill", "decode")},
}


def _vector(value: Any, dtype: type[np.generic], name: str) -> NDArray[Any]:
    """A read-only, contiguous copy, refused unless it is a vector of exactly that dtype."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != 1:
        found = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"{name}: expected a vector of {np.dtype(dtype).name}, found {found}")
    copy = value.copy()
    copy.flags.writeable = False
    return copy


@dataclass(frozen=True, eq=False, repr=False)
class LogprobRows:
    """Logprobs per predicted token: row i owns entries ``offsets[i] .. offsets[i + 1]`` of `ids` and `logprobs`.

    Parameters
    ----------
    targets
        int32 [rows]: the token id that each row predicts; every row holds it.
    offsets
        int64 [rows + 1].
    ids
        int32 [entries], unique within a row.
    logprobs
        float32 [entries], natural logarithm, finite.

    Raises
    ------
    TypeError
        For a wrong dtype or number of dimensions.
    ValueError
        For an inconsistent structure, with row and values.
    """

    targets: NDArray[np.int32]
    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name, dtype in (("targets", np.int32), ("offsets", np.int64), ("ids", np.int32), ("logprobs", np.float32)):
            object.__setattr__(self, name, _vector(getattr(self, name), dtype, name))
        check_structure(self.targets, self.offsets, self.ids, self.logprobs)

    @classmethod
    def from_mappings(
        cls, targets: Sequence[int], rows: Iterable[Mapping[int, float | np.float32]], *, top_k: int
    ) -> LogprobRows:
        """Rows in canonical order from one id -> logprob mapping per row (the target is one of its keys)."""
        ids: list[int] = []
        logprobs: list[float | np.float32] = []
        offsets = [0]
        for target, row in zip(targets, rows, strict=True):
            ranked = sorted(row, key=lambda token: (-row[token], token))
            rest = sorted(ranked[top_k:], key=lambda token: (token != target, token))
            ids += ranked[:top_k] + rest
            logprobs += [row[token] for token in ranked[:top_k] + rest]
            offsets.append(len(ids))
        return cls(
            targets=np.array(targets, np.int32),
            offsets=np.array(offsets, np.int64),
            ids=np.array(ids, np.int32),
            logprobs=np.array(logprobs, np.float32),
        )

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.targets.size

    @property
    def entries(self) -> int:
        """Number of (id, logprob) entries over all rows."""
        return self.ids.size

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Ids int32 [n] and logprobs float32 [n] of one row."""
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.ids[part], self.logprobs[part]

    def head(self, rows: int) -> LogprobRows:
        """The first `rows` rows."""
        entries = int(self.offsets[rows])
        return LogprobRows(self.targets[:rows], self.offsets[: rows + 1], self.ids[:entries], self.logprobs[:entries])

    def target_logprobs(self) -> NDArray[np.float32]:
        """float32 [rows]: the logprob of every row's target."""
        row_of = np.repeat(np.arange(self.rows), np.diff(self.offsets))
        found: NDArray[np.float32] = self.logprobs[self.ids == self.targets[row_of]]
        return found

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
        """(offsets, ids, logprobs, targets), as `_core` takes them."""
        return self.offsets, self.ids, self.logprobs, self.targets

    def __eq__(self, other: object) -> bool:
        """Equality of bytes."""
        if not isinstance(other, LogprobRows):
            return NotImplemented
        names = ("targets", "offsets", "ids", "logprobs")
        return all(getattr(self, name).tobytes() == getattr(other, name).tobytes() for name in names)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"LogprobRows({self.rows} rows, {self.entries} entries)"


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """Ids and logprobs of one run, with provenance.

    Parameters
    ----------
    prompt_ids, generated_ids
        int32 [P], int32 [G]; P >= 1.
    prefill
        P - 1 rows; row i predicts ``prompt_ids[i + 1]``.
    decode
        G rows; row i predicts ``generated_ids[i]``.
    top_k
        Every row starts with the `top_k` largest logprobs (value descending, then id ascending), then its target where
        it is not among them, then any further ids, ascending.
    provenance
        JSON-able: what produced the numbers. Keys that this package reads: ``variant``, ``model``, ``kernels`` (names,
        or objects with ``name``, ``count``, ``time_us``), ``device``, ``profile``, ``isa``, ``threads``, ``process``
        (any value that tells processes apart), and ``racing`` and ``unconfirmed``, what is on the path of each phase:
        ``{"prefill": [names], "decode": [names]}``, or one list for both. Treat it as read-only.

    Raises
    ------
    TypeError, ValueError
        Naming the field, what was expected and what was found.
    """

    prompt_ids: NDArray[np.int32]
    generated_ids: NDArray[np.int32]
    prefill: LogprobRows
    decode: LogprobRows
    top_k: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_ids", _vector(self.prompt_ids, np.int32, "prompt_ids"))
        object.__setattr__(self, "generated_ids", _vector(self.generated_ids, np.int32, "generated_ids"))
        if self.prompt_ids.size == 0:
            raise ValueError("prompt_ids: expected at least one id, found none")
        if not isinstance(self.top_k, int) or isinstance(self.top_k, bool) or self.top_k < 1:
            raise ValueError(f"top_k: expected an integer of at least 1, found {self.top_k!r}")
        self._check_rows("prefill", self.prefill, self.prompt_ids[1:])
        self._check_rows("decode", self.decode, self.generated_ids)
        object.__setattr__(self, "provenance", parse_json(canonical_json(dict(self.provenance))))

    def _check_rows(self, name: str, rows: LogprobRows, targets: NDArray[np.int32]) -> None:
        if not isinstance(rows, LogprobRows):
            raise TypeError(f"{name}: expected LogprobRows, found {type(rows).__name__}")
        if not np.array_equal(rows.targets, targets):
            raise ValueError(
                f"{name}: expected the {targets.size} targets that the ids give, found {rows.rows} other ones"
            )
        try:
            check_order(rows.targets, rows.offsets, rows.ids, rows.logprobs, self.top_k)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def on_path(self, key: str) -> dict[str, tuple[str, ...]]:
        """Names under ``racing`` or ``unconfirmed`` per phase; decode inherits prefill's, whose cache it reads."""
        recorded = self.provenance.get(key) or {}
        lists = recorded if isinstance(recorded, dict) else dict.fromkeys(PHASES, recorded)
        if not set(lists) <= set(PHASES) or not all(isinstance(names, list) for names in lists.values()):
            raise ValueError(
                f"provenance {key!r}: expected lists of names for 'prefill' and 'decode', found {recorded!r}"
            )
        prefill = set(map(str, lists.get("prefill", [])))
        decode = prefill | set(map(str, lists.get("decode", [])))
        return {"prefill": tuple(sorted(prefill)), "decode": tuple(sorted(decode))}

    def head(self, decode_rows: int) -> Trace:
        """The prompt and the first `decode_rows` generated ids; the trace itself where it has no more.

        The provenance says what was cut: ``head_of`` is the whole trace's digest.
        """
        if isinstance(decode_rows, bool) or not isinstance(decode_rows, int) or decode_rows < 0:
            raise ValueError(f"decode_rows: expected an integer of at least 0, found {decode_rows!r}")
        if decode_rows >= self.decode.rows:
            return self
        decode = self.decode.head(decode_rows)
        provenance = {**self.provenance, "head_of": self.digest}
        return Trace(self.prompt_ids, self.generated_ids[:decode_rows], self.prefill, decode, self.top_k, provenance)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {"prompt_ids": self.prompt_ids, "generated_ids": self.generated_ids}
        for phase, rows in (("prefill", self.prefill), ("decode", self.decode)):
            found |= {f"{phase}.offsets": rows.offsets, f"{phase}.ids": rows.ids, f"{phase}.logprobs": rows.logprobs}
        return found

    def _digest(self, **parts: Any) -> str:
        digests = {name: array_digest(array) for name, array in self._arrays().items()}
        return hashlib.sha256(canonical_json({"arrays": digests, "top_k": self.top_k} | parts).encode()).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of ids, logprobs and provenance."""
        return self._digest(provenance=self.provenance)

    @property
    def numbers_digest(self) -> str:
        """SHA-256 (hex) of ids and logprobs alone: equal for bit-equal runs, wherever they ran."""
        return self._digest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace to a safe container, atomically."""
        fields = {"top_k": self.top_k, "provenance": self.provenance}
        write_container(path, kind=KIND, version=VERSION, fields=fields, arrays=self._arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read and check a trace (ContainerError when anything about it is wrong)."""
        fields, arrays = read_container(path, kind=KIND, version=VERSION, arrays=_ARRAYS)
        if set(fields) != {"top_k", "provenance"} or not isinstance(fields["provenance"], dict):
            raise ContainerError(os.fspath(path), "fields", "`top_k` and an object `provenance`", sorted(fields))
        prompt, generated = arrays["prompt_ids"], arrays["generated_ids"]
        try:
            phases = {}
            for phase, targets in (("prefill", prompt[1:]), ("decode", generated)):
                phases[phase] = LogprobRows(
                    targets, *(arrays[f"{phase}.{part}"] for part in ("offsets", "ids", "logprobs"))
                )
            return cls(prompt, generated, phases["prefill"], phases["decode"], fields["top_k"], fields["provenance"])
        except (TypeError, ValueError) as error:
            raise ContainerError(os.fspath(path), "trace", "a well-formed trace", error) from None

    def __eq__(self, other: object) -> bool:
        """Equality of bytes of everything, provenance included."""
        return self.digest == other.digest if isinstance(other, Trace) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        where = " on ".join(str(self.provenance[key]) for key in ("variant", "device") if key in self.provenance)
        ids = f"{self.prompt_ids.size} prompt + {self.generated_ids.size} generated ids"
        return f"Trace({where or 'unknown origin'}: {ids}, top {self.top_k})"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [
            ("prompt ids", self.prompt_ids.size),
            ("generated ids", self.generated_ids.size),
            ("top k", self.top_k),
        ]
        rows += [("logprobs (prefill / decode)", f"{self.prefill.entries:,} / {self.decode.entries:,}")]
        rows += [(key, self.provenance[key]) for key in ("variant", "device", "profile") if key in self.provenance]
        return _html.section("Trace", _html.table([*rows, ("digest", self.digest[:16])]))
