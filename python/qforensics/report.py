"""Reports of a study: text for terminals (with rich where it is installed) and one HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from io import StringIO

from qforensics.snr import SnrAnalysis
from qforensics.study_result import StudyResult
from qforensics.trace import PHASES

__all__ = ["report_html", "report_tables", "report_text"]

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""(title, head, rows)"""


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2e}"


def _matrix(result: StudyResult, phase: str) -> Table:
    rows = []
    for claim in result.claimed:
        found = [result.pooled(claim, name, phase) for name in result.verified]
        rows.append([claim, *(f"{s.differing:,} of {s.compared:,}" if s else "failed" for s in found)])
    return f"Differing logprobs, {phase} (rows: claim, columns: replayed as)", ["", *result.verified], rows


def _verdicts(result: StudyResult) -> Table:
    rows = []
    for v in result.verdicts:
        why = "; ".join(v.reasons[:2] if v.outcome == "inconclusive" else v.reasons[:1])
        rows.append([v.claim, v.outcome, why, ", ".join(v.matching) or "-"])
    return "Verdicts", ["claim", "verdict", "reason", "0 differing under"], rows


def _floor_rows(result: StudyResult) -> Table:
    rows = []
    for mode, floors in (("", result.floors), (" (deterministic)", result.deterministic_floors)):
        for name, floor in floors.items():
            classes = "; ".join(str(max(c) + 1) for c in floor.classes)
            sizes = [_number(getattr(floor, phase).max_abs) for phase in PHASES]
            why = "bit-equal" if floor.deterministic else floor.cause or "cause not recorded"
            rows.append([name + mode, f"{floor.repeats} in {floor.processes}", classes, *sizes, why])
    return (
        "Noise floors",
        ["variant", "repeats in processes", "distinct outcomes", *(f"max |d| {p}" for p in PHASES), "cause"],
        rows,
    )


def _snr(phase: str, analysis: SnrAnalysis) -> Table:
    def ratio(value: float) -> str:
        return "-" if math.isnan(value) else "inf" if math.isinf(value) else f"{value:.1f}x"

    rows = [["all", _number(analysis.signal), _number(analysis.noise), ratio(analysis.snr), analysis.label.lower()]]
    rows += [
        [f"{p.first} vs {p.second}", _number(p.signal), _number(p.noise), ratio(p.snr), p.label.lower()]
        for p in analysis.pairs
    ]
    return (
        f"Signal to noise as the prior experiment reckons it, {phase}",
        ["pair", "signal", "noise", "SNR", "label"],
        rows,
    )


def report_tables(result: StudyResult) -> list[Table]:
    """Every table of a study as (title, head, rows) of text."""
    tables = [_verdicts(result), *(_matrix(result, phase) for phase in PHASES)]
    if result.floors or result.deterministic_floors:
        tables.append(_floor_rows(result))
    tables += [_snr(phase, analysis) for phase in PHASES if (analysis := result.snr(phase))]
    if result.errors:
        tables.append(
            ("Failures", ["variant", "stage", "error"], [[e.variant, e.stage, e.error] for e in result.errors])
        )
    return tables


def _plain(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *rows]
    ]
    return "\n".join([title, "-" * len(title), *lines])


def report_text(result: StudyResult, *, width: int = 120, plain: bool = False) -> str:
    """The study's tables as text.

    Parameters
    ----------
    width
        Columns that rich may use.
    plain
        Without rich: aligned columns, no boxes (also where rich is not installed).
    """
    tables = report_tables(result)
    if not plain:
        try:
            from rich.console import Console
            from rich.table import Table as RichTable
            from rich.text import Text
        except ImportError:
            plain = True
    if plain:
        return "\n\n".join(_plain(*table) for table in tables) + "\n"
    console = Console(file=StringIO(), width=width, force_terminal=False)
    for title, head, rows in tables:
        console.print(title, markup=False)
        drawn = RichTable(*head)
        for row in rows:
            drawn.add_row(*(Text(cell) for cell in row))
        console.print(drawn)
        console.print()
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
table{border-collapse:collapse;margin:.4rem 0 1.6rem}
td,th{border:1px solid #d0d7de;padding:.25rem .6rem;text-align:left}
th{background:#f6f8fa}h2{font-size:1.05rem;margin-bottom:.2rem}"""


def report_html(result: StudyResult) -> str:
    """The study's tables as one HTML page with no outside resources."""
    parts = []
    for title, head, rows in report_tables(result):
        lines = [f"<tr>{''.join(f'<th>{escape(c)}</th>' for c in head)}</tr>"]
        lines += [f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in rows]
        parts.append(f"<h2>{escape(title)}</h2>\n<table>\n" + "\n".join(lines) + "\n</table>")
    head_html = f'<meta charset="utf-8"><title>qforensics study</title><style>{STYLE}</style>'
    body = f"<h1>qforensics study</h1><p>{escape(result.created)}</p>" + "\n".join(parts)
    return f'<!doctype html><html lang="en"><head>{head_html}</head><body>{body}</body></html>\n'
