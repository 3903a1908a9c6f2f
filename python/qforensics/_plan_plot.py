"""The picture of a reduction plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qforensics.kernels import Plan

_MAX_RANGES = 4000  # drawn K ranges per leaf: more would be a solid bar anyway


def plot(plan: Plan, ax: Any = None) -> Any:
    """Left: which tree each output owns. Right: leaves along K, top to bottom, and the order of their additions."""
    import matplotlib.pyplot as plt

    if ax is None:
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=[1, 2], layout="constrained")
        _draw_regions(plan, left)
    else:
        figure, right = ax.figure, ax
    index = _largest_tree(plan)
    _draw_tree(plan, index, right)
    m, n, k = plan.shape
    figure.suptitle(f"{plan.kernel}, M = {m}, N = {n}, K = {k}, {plan.device}")
    return figure


def _largest_tree(plan: Plan) -> int:
    sizes = [0] * len(plan.trees)
    for r0, r1, c0, c1, tree in plan.regions:
        sizes[tree] += (r1 - r0) * (c1 - c0)
    return max(range(len(sizes)), key=sizes.__getitem__)


def _draw_regions(plan: Plan, ax: Any) -> None:
    from matplotlib.patches import Rectangle

    for r0, r1, c0, c1, tree in plan.regions:
        tile = Rectangle((c0, r0), c1 - c0, r1 - r0, facecolor=f"C{tree % 10}", edgecolor="white", linewidth=0.5)
        ax.add_patch(tile)
    ax.set(xlim=(0, plan.shape[1]), ylim=(plan.shape[0], 0), xlabel="column", ylabel="row")
    ax.set_title(f"{len(plan.trees)} tree{'s' if len(plan.trees) > 1 else ''} over the output")


def _draw_tree(plan: Plan, index: int, ax: Any) -> None:
    tree, k = plan.trees[index], plan.shape[2]
    leaves, adds = tree["leaves"], tree["adds"]
    for leaf, walks in enumerate(leaves):
        ranges = [(start + i * stride, length) for start, length, stride, count in walks for i in range(count)]
        ax.broken_barh(ranges[:_MAX_RANGES], (leaf - 0.35, 0.7), facecolor=f"C{index % 10}", linewidth=0)
    place = {leaf: (k * 1.02, float(leaf)) for leaf in range(len(leaves))}
    depth = dict.fromkeys(range(len(leaves)), 0)
    for i, (left, right) in enumerate(adds):
        node = len(leaves) + i
        depth[node] = 1 + max(depth[left], depth[right])
        x = k * (1.02 + 0.35 * depth[node] / (1 + len(adds)))
        y = (place[left][1] + place[right][1]) / 2
        for child in (left, right):
            ax.plot([place[child][0], x, x], [place[child][1], place[child][1], y], color="0.3", linewidth=0.8)
        ax.plot([x], [y], marker="o", markersize=3, color="0.1")
        place[node] = (x, y)
    ax.set(ylim=(len(leaves) - 0.4, -0.6), xlabel="k", ylabel="leaf", xlim=(0, k * 1.4))
    ax.set_title(f"tree {index}: " + ("leaves race (atomics)" if tree["racing"] else f"{len(leaves)} leaves"))
