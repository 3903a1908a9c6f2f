"""The prior experiment's logs (tests/data/seeds): every aggregate, SNR line and label from its per-reference matrices.

The logs print three significant digits, so every input is known to half a unit of its last digit. Each check derives
from that how far the recomputed number may be from the printed one, and no further.
"""

from __future__ import annotations

import math
import re
from functools import cache

import numpy as np
import pytest

from forensics_doubles import DATA
from qforensics import snr

NUMBER = r"(?:inf|\d\.\d\de[+-]\d\d)"


def half_unit(printed: str) -> float:
    """Half a unit of the last printed digit of d.dde+xx or d.d."""
    if printed == "inf":
        return 0.0
    if "e" in printed:
        mantissa, exponent = printed.split("e")
        return 0.5 * 10.0 ** (int(exponent) - len(mantissa.partition(".")[2]))
    return 0.5 * 10.0 ** -len(printed.partition(".")[2])


class Matrix:
    """A printed matrix: values and how far the true ones may be off."""

    def __init__(self, lines: list[str]) -> None:
        self.names = lines[0].split()
        cells = [line.split()[1:] for line in lines[1:]]
        assert [line.split()[0] for line in lines[1:]] == self.names
        self.values = np.array([[float(c) for c in row] for row in cells])
        self.slack = np.array([[half_unit(c) for c in row] for row in cells])


@cache
def log(name: str) -> str:
    return (DATA / "seeds" / f"{name}.txt").read_text()


def phase_text(name: str, phase: str) -> str:
    parts = re.split(
        r"(?:WITHIN|CROSS)-HARDWARE QUANTIZATION (?:EFFECTS|DETECTABILITY) \((PREFILL|DECODE)\)", log(name)
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))[phase.upper()]


def matrices(name: str, phase: str) -> tuple[list[Matrix], Matrix]:
    found = []
    lines = phase_text(name, phase).splitlines()
    for i, line in enumerate(lines):
        if re.fullmatch(r"( +\w+){3,4}", line) and not re.search(NUMBER, line):
            found.append(Matrix(lines[i : i + 1 + len(line.split())]))
    assert len(found) == 5
    return found[:4], found[4]


PHASES = [("generation", "prefill"), ("generation", "decode"), ("verification", "prefill"), ("verification", "decode")]


def bounds(name: str, phase: str):
    """Aggregate recomputed from the references, and its slack."""
    references, _ = matrices(name, phase)
    return (
        references[0].names,
        snr.aggregate([m.values for m in references]),
        np.mean([m.slack for m in references], axis=0),
    )


@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_aggregates(name, phase):
    _, found, slack = bounds(name, phase)
    _, printed = matrices(name, phase)
    np.testing.assert_array_equal(np.isinf(found), np.isinf(printed.values))
    at = np.isfinite(found)
    assert at.sum() >= 8
    allowed = (slack + printed.slack)[at] * (1 + 1e-9)
    assert (np.abs(found[at] - printed.values[at]) <= allowed).all()
    wrong = snr.aggregate([m.values for m in matrices(name, phase)[0][:3]])  # negative control: one reference left out
    assert not (np.abs(wrong[at] - printed.values[at]) <= allowed).all()


def close(found: float, printed: str, slack: float) -> bool:
    return abs(found - float(printed)) <= (slack + half_unit(printed)) * (1 + 1e-9)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_generation_statistics_and_classes(phase):
    names, found, slack = bounds("generation", phase)
    text = phase_text("generation", phase)
    pairs = snr.pair_distances(names, found)
    off = [v for v in found[~np.eye(len(names), dtype=bool)] if math.isfinite(v)]
    stats = re.search(rf"Mean: ({NUMBER})\s+Range: \[({NUMBER}), ({NUMBER})\]", text)
    for value, printed in zip((np.mean(off), min(off), max(off)), stats.groups(), strict=True):
        assert close(value, printed, slack.max())
    assert re.findall(r"Class (\d): \['(\w+)'\]", text) == [
        (str(c + 1), n) for c, n in zip(snr.classes(found), names, strict=True)
    ]
    printed_pairs = re.findall(rf"(\w+?)_vs_(\w+): ({NUMBER}) → (\w+) difference", text)
    assert len(printed_pairs) == 6
    for first, second, printed, word in printed_pairs:
        value = pairs[(first, second)] if (first, second) in pairs else pairs[(second, first)]
        assert (math.isinf(value) and printed == "inf") or close(value, printed, slack.max())
        assert snr.difference(value) == word


def test_generation_snr():
    text = log("generation")
    floors = re.findall(rf"^  \w+: decode=({NUMBER}), prefill={NUMBER}$", text, re.M)
    assert len(floors) == 4
    _, found, slack = bounds("generation", "decode")
    analysis = snr.generation_snr([float(f) for f in floors], found)
    noise, signal, ratio, words = re.search(
        rf"Noise floor \(within-format variance\): ({NUMBER})\nCross-format distance: ({NUMBER})\n"
        r"SNR: ([\d.]+)×\n.* is (\w+ detectable)",
        text,
    ).groups()
    assert close(analysis.noise, noise, np.mean([half_unit(f) for f in floors]))
    assert close(analysis.signal, signal, slack.max())
    assert close(
        analysis.snr, ratio, analysis.snr * (slack.max() / analysis.signal + half_unit(floors[-1]) / 4 / analysis.noise)
    )
    assert analysis.label.lower() == words.lower() == "marginally detectable"


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_verification_snr(phase):
    names, found, slack = bounds("verification", phase)
    text = phase_text("verification", phase)
    analysis = snr.verification_snr(names, found)
    noise = re.search(rf"same config\):\s+Mean: ({NUMBER})", text).group(1)
    noise_slack = np.diag(slack).mean()
    assert close(analysis.noise, noise, noise_slack)
    blocks = re.findall(
        rf"\((?:all pairs|meaningful pairs only)\):\s+Count: (\d+)\s+Mean: ({NUMBER})\s+"
        r"SNR \((?:all|meaningful)\): ([\d.]+)×",
        text,
    )
    assert len(blocks) == 2
    summary = re.search(rf"{phase.title()} SNR \(meaningful\): +([\d.]+)×", log("verification")).group(1)
    off_slack = slack[~np.eye(3, dtype=bool)].mean()
    for count, mean, ratio in [*blocks, (6, blocks[0][1], summary)]:
        assert analysis.count == int(count)
        assert close(analysis.signal, mean, off_slack)
        assert close(analysis.snr, ratio, analysis.snr * (off_slack / analysis.signal + noise_slack / analysis.noise))


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_verification_pairs_and_labels(phase):
    names, found, slack = bounds("verification", phase)
    text = phase_text("verification", phase)
    analysis = snr.verification_snr(names, found)
    lines = re.findall(rf"(\w+) vs (\w+):\s+Signal: ({NUMBER}), Noise: ({NUMBER})\s+SNR: ([\d.]+)× → (.*)", text)
    table = re.findall(rf"^(\w+?)_vs_(\w+) +({NUMBER}) +({NUMBER}) +([\d.]+)×$", text, re.M)
    assert len(lines) == len(table) == len(analysis.pairs) == 3
    by_name = {(p.first, p.second): p for p in analysis.pairs}
    for first, second, signal, noise, ratio, *words in [*lines, *table]:
        pair = by_name[(first, second)]
        i, j = names.index(first), names.index(second)
        signal_slack, noise_slack = (slack[i, j] + slack[j, i]) / 2, (slack[i, i] + slack[j, j]) / 2
        assert close(pair.signal, signal, signal_slack)
        assert close(pair.noise, noise, noise_slack)
        assert close(pair.snr, ratio, pair.snr * (signal_slack / pair.signal + noise_slack / pair.noise))
        assert not words or pair.label == words[0]
    order = sorted(analysis.pairs, key=lambda p: -p.snr)
    assert [(p.first, p.second) for p in order] == [(row[0], row[1]) for row in table]


def test_equivalent_pairs_are_left_out():
    m = np.array([[1.0, 0.0, 4.0], [0.0, 1.0, 4.0], [6.0, 6.0, 1.0]])
    analysis = snr.verification_snr(["a", "b", "c"], m, equivalent=[("a", "b")])
    assert (analysis.count, analysis.signal, analysis.snr) == (4, 5.0, 5.0)
    assert snr.classes(m - np.eye(3)) == [0, 0, 1]


def test_exact_diagonals_give_an_infinite_ratio_and_clean_json():
    analysis = snr.verification_snr(["a", "b"], [[0.0, 2.0], [2.0, 0.0]])
    assert analysis.snr == math.inf
    assert analysis.to_json()["snr"] is None
    assert analysis.to_json()["pairs"][0]["signal"] == 2.0
    assert math.isnan(snr.verification_snr(["a", "b"], np.zeros((2, 2))).snr)
