"""HTML fragments of results for notebooks. A leaf: it knows strings, not results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["badge", "section", "table"]

_COLOURS = {"match": "#1a7f37", "mismatch": "#cf222e", "inconclusive": "#9a6700"}


def badge(outcome: str) -> str:
    """A verdict's outcome as a coloured word."""
    colour = _COLOURS.get(outcome, "#57606a")
    return f'<span style="color:white;background:{colour};padding:0 .5em;border-radius:.5em">{escape(outcome)}</span>'


def table(rows: Iterable[Sequence[object]], *, head: Sequence[object] = ()) -> str:
    """A table; every cell is escaped."""

    def line(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    top = f"<thead>{line(head, 'th')}</thead>" if head else ""
    return f"<table>{top}<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"


def section(title: str, *parts: str) -> str:
    """A title over parts that are HTML already."""
    return f"<div><b>{escape(title)}</b>{''.join(parts)}</div>"
