"""Figures of results. A leaf; matplotlib is imported when a figure is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qforensics.comparison import Comparison
    from qforensics.noise import NoiseFloor
    from qforensics.study_result import StudyResult

__all__ = ["hypothesis_matrix", "noise_floor", "token_differences"]

BLUE, RED, GREY = "#0969da", "#cf222e", "#8c959f"


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure.subplots()


def hypothesis_matrix(result: StudyResult, ax: Axes | None = None, *, phase: str = "decode") -> Axes:
    """Claimed x verified: the share of differing logprobs as colour, their number as text; exact cells are framed."""
    rows, columns = len(result.claimed), len(result.verified)
    ax = _axes(ax, (1.6 + 1.1 * columns, 1.9 + 0.7 * rows))
    differing, compared = (result.matrix(phase, name) for name in ("differing", "compared"))
    share = np.divide(differing, compared, out=np.full_like(differing, np.nan), where=compared > 0)
    image = ax.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    for i in range(rows):
        for j in range(columns):
            _matrix_cell(ax, i, j, differing[i, j], share[i, j])
    ax.set_xticks(range(columns), result.verified, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(rows), result.claimed)
    ax.set_xlabel("replayed as")
    ax.set_ylabel("reference (claim)")
    ax.set_title(f"differing logprobs, {phase}")
    if ax.figure is not None:
        ax.figure.colorbar(image, ax=ax, label="share")
    return ax


def _matrix_cell(ax: Axes, row: int, column: int, differing: float, share: float) -> None:
    if np.isnan(differing) or np.isnan(share):
        ax.text(column, row, "none", ha="center", va="center", color=GREY)
        return
    colour = "white" if share > 0.5 else "black"
    ax.text(column, row, f"{int(differing):,}", ha="center", va="center", color=colour)
    if differing == 0:
        from matplotlib.patches import Rectangle

        ax.add_patch(Rectangle((column - 0.46, row - 0.45), 0.92, 0.9, fill=False, edgecolor="#1a7f37", linewidth=2))


def token_differences(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Largest |difference| per token, prefill then decode; rows with equal bits are drawn on the axis in grey."""
    ax = _axes(ax, (8.0, 3.2))
    start = 0
    for name, phase, colour in (("prefill", comparison.prefill, BLUE), ("decode", comparison.decode, RED)):
        at = start + np.arange(phase.rows)
        differs = phase.per_row.differing > 0
        size = phase.per_row.max_abs
        ax.vlines(at[differs], 0.0, size[differs], color=colour, linewidth=1.5)
        ax.plot(
            at[differs],
            size[differs],
            ".",
            color=colour,
            label=f"{name}: {int(differs.sum())} of {phase.rows} rows differ",
        )
        if not differs.all():  # an empty line that is not clipped takes room in a layout
            equal = at[~differs]
            ax.plot(equal, np.zeros(equal.size), ".", color=GREY, markersize=5, clip_on=False, zorder=3)
        start += phase.rows
        if name == "prefill" and phase.rows:
            ax.axvline(start - 0.5, color=GREY, linewidth=0.8, linestyle=":")
    ax.set_ylim(bottom=0.0)
    ax.margins(x=0.02)
    ax.set_xlabel("position (prefill | decode)")
    ax.set_ylabel("largest |difference|")
    ax.legend(frameon=False, loc="upper left")
    return ax


def noise_floor(floor: NoiseFloor, ax: Axes | None = None) -> Axes:
    """Largest |difference| of every pair of repeats, prefill and decode side by side."""
    at = np.arange(len(floor.pairs))
    ax = _axes(ax, (min(max(6.0, 3.0 + 0.35 * at.size), 16.0), 3.2))
    for shift, name, colour in ((-0.12, "prefill", BLUE), (0.12, "decode", RED)):
        sizes: Any = [getattr(pair, name).max_abs or 0.0 for pair in floor.pairs]
        ax.vlines(at + shift, 0.0, sizes, color=colour, linewidth=1.5)
        ax.plot(at + shift, sizes, "o", color=colour, label=name, clip_on=False)
    every = 1 + at.size // 40
    names = [f"{pair.prompt}: {pair.first}-{pair.second}" for pair in floor.pairs]
    ax.set_xticks(at[::every], names[::every], rotation=30, ha="right")
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("prompt: pair of repeats")
    ax.set_ylabel("largest |difference|")
    ax.margins(x=0.15 if at.size < 6 else 0.03)
    ax.set_title("bit-equal repeats" if floor.deterministic else floor.cause or "repeats differ, cause not recorded")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax
