"""The prior experiment's signal-to-noise arithmetic, reproduced beside the exact answer (source: seeds 003 and 004).

Its distances are `inf` where two runs share no context, its means skip them, and its labels are ratios without an error
rate: they are reported here as that experiment would have, and no verdict reads them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qforensics import _core

__all__ = [
    "PairSnr",
    "SnrAnalysis",
    "aggregate",
    "classes",
    "difference",
    "generation_snr",
    "label",
    "pair_distances",
    "verification_snr",
]

LABELS = ((3.0, "NOT RELIABLY DETECTABLE"), (10.0, "MARGINALLY DETECTABLE"), (math.inf, "CLEARLY DETECTABLE"))
"""(upper bound of the SNR, words) as the seeds print them; the bounds are the seeds', not this package's."""

DIFFERENCES = ((0.1, "SMALL"), (1.0, "MODERATE"), (math.inf, "LARGE"))
"""(upper bound of a distance, word). Seed 003 prints words, not bounds: SMALL up to 0.0858, MODERATE at 0.257, LARGE
from 5.54 and where contexts differ. These powers of ten lie between and give every printed word; no verdict reads them.
"""


@dataclass(frozen=True)
class PairSnr:
    """Two configurations: mean of both directions over mean of both diagonals."""

    first: str
    second: str
    signal: float
    noise: float
    snr: float
    label: str


@dataclass(frozen=True)
class SnrAnalysis:
    """The seeds' numbers of one matrix. `snr` is `inf` where the noise is exactly 0."""

    noise: float
    signal: float
    count: int
    snr: float
    label: str
    pairs: tuple[PairSnr, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-able form; non-finite numbers become null."""
        data = asdict(self) | {"pairs": [asdict(pair) for pair in self.pairs]}
        return {k: _finite_or_none(v) for k, v in data.items()} | {
            "pairs": [{k: _finite_or_none(v) for k, v in pair.items()} for pair in data["pairs"]]
        }


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def label(snr: float) -> str:
    """The seeds' words for a ratio."""
    return next(words for bound, words in LABELS if snr < bound or bound == math.inf)


def difference(distance: float) -> str:
    """The seeds' word for a distance between two configurations on one machine (seed 003)."""
    return next(word for bound, word in DIFFERENCES if distance < bound or bound == math.inf)


def aggregate(matrices: ArrayLike) -> NDArray[np.float64]:
    """Mean over references of matrices [references, n, n]; `inf` stays `inf`."""
    return np.asarray(np.asarray(matrices, np.float64).mean(axis=0))


def _finite_mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    finite = [float(v) for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if finite else math.inf


def _ratio(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf if signal > 0.0 else math.nan
    return signal / noise


def _off_diagonal(matrix: NDArray[np.float64], skip: Sequence[tuple[int, int]] = ()) -> list[float]:
    n = matrix.shape[0]
    return [
        float(matrix[i, j]) for i in range(n) for j in range(n) if i != j and (i, j) not in skip and (j, i) not in skip
    ]


def classes(matrix: ArrayLike) -> list[int]:
    """Equivalence classes of configurations at distance exactly 0, transitively (the seeds took < 1e-9)."""
    distances = np.asarray(matrix, np.float64)
    return [int(c) for c in _core.equivalence_classes(np.ascontiguousarray(distances == 0.0).astype(np.uint8))]


def pair_distances(names: Sequence[str], matrix: ArrayLike) -> dict[tuple[str, str], float]:
    """Mean of both directions for every pair of configurations."""
    m = np.asarray(matrix, np.float64)
    return {
        (names[i], names[j]): float((m[i, j] + m[j, i]) / 2) for i, j in itertools.combinations(range(len(names)), 2)
    }


def generation_snr(floors: Sequence[float], matrix: ArrayLike) -> SnrAnalysis:
    """One machine (seed 003): mean finite off-diagonal distance over the mean noise floor of the configurations."""
    m = np.asarray(matrix, np.float64)
    off = [v for v in _off_diagonal(m) if math.isfinite(v)]
    noise, signal = _finite_mean(floors), _finite_mean(off)
    snr = _ratio(signal, noise)
    return SnrAnalysis(noise, signal, len(off), snr, label(snr), ())


def verification_snr(
    names: Sequence[str], matrix: ArrayLike, *, equivalent: Sequence[tuple[str, str]] = ()
) -> SnrAnalysis:
    """Two machines (seed 004): off-diagonal over diagonal means, overall and per pair.

    Parameters
    ----------
    names
        Configurations, in the matrix' order.
    matrix
        [n, n] aggregate distances; rows claimed, columns verified.
    equivalent
        Pairs that the reference itself could not tell apart; left out ("meaningful pairs only").
    """
    m = np.asarray(matrix, np.float64)
    index = {name: i for i, name in enumerate(names)}
    skip = [(index[a], index[b]) for a, b in equivalent]
    off = [v for v in _off_diagonal(m, skip) if math.isfinite(v)]
    noise, signal = _finite_mean(np.diag(m)), _finite_mean(off)
    pairs = []
    for (first, second), distance in pair_distances(names, m).items():
        own = float((m[index[first], index[first]] + m[index[second], index[second]]) / 2)
        pairs.append(PairSnr(first, second, distance, own, _ratio(distance, own), label(_ratio(distance, own))))
    snr = _ratio(signal, noise)
    return SnrAnalysis(noise, signal, len(off), snr, label(snr), tuple(pairs))
