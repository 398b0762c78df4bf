"""The paper's figures, drawn from our own runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Row = Mapping[str, Any]
METRICS = {"dice": "Dice", "iou": "IoU", "f1": "F1"}


def zeros_per_block(rows: Sequence[Row], out: Path) -> None:
    """Figure 3(a): the share of zeros that each masked block reached, over all configurations that mask it."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for block in row["masked"].split():
            found.setdefault(block, []).append(row[f"zeros_{block}"])

    def draw(axes: Axes) -> None:
        axes.boxplot(list(found.values()), tick_labels=list(found))
        axes.set(ylabel="share of zero weights", ylim=(0, 1))
        axes.tick_params("x", rotation=45)

    _picture(out, [draw])


def dice_against_operations(rows: Sequence[Row], out: Path) -> None:
    """Figure 3(b): Dice against products per 512 x 512 image (one activation bit times one weight bit), by backend."""

    def of(backend: str, meaning: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            x = [row[f"{backend}_products"] / 1e9 for row in rows]
            points = axes.scatter(x, [row["dice"] for row in rows], c=[row["blocks"] for row in rows], s=18)
            axes.set(xlabel=f"10⁹ bit products, {meaning}", ylabel="Dice")
            _bar(axes, points, "masked blocks")

        return draw

    _picture(out, [of("bmma", "BMMA: a masked weight is two"), of("cpu", "CPU: non-zero weights")])


def shapley(
    blocks: Sequence[str],
    values: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    out: Path,
) -> None:
    """Figure 3(c): what masking each block adds to Dice, with 95 % intervals."""

    def draw(axes: Axes) -> None:
        around = np.clip([values - low, high - values], 0, None)
        axes.bar(blocks, values, yerr=around, capsize=3, color="#4070c0")
        axes.tick_params("x", rotation=45)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(ylabel="Shapley value (Dice)")

    _picture(out, [draw])


def cost_profile(costs: Mapping[str, Mapping[str, float]], out: Path) -> None:
    """Figure 4: the cost score of masking each block, by backend; below zero masking saves."""

    def draw(axes: Axes) -> None:
        for i, (backend, scores) in enumerate(costs.items()):
            axes.bar(np.arange(len(scores)) + 0.4 * i - 0.2, list(scores.values()), 0.4, label=backend)
            axes.set_xticks(range(len(scores)), list(scores), rotation=45)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(ylabel="cost score of masking")
        axes.legend()

    _picture(out, [draw])


def pareto(rows: Sequence[Row], out: Path) -> None:
    """Figure 7: Dice, IoU and F1 against measured frames per second; the line joins what nothing else beats in both."""

    def of(metric: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            x, y = np.array([row["fps"] for row in rows]), np.array([row[metric] for row in rows])
            points = axes.scatter(x, y, c=[row["blocks"] for row in rows], s=18)
            best = front(x, y)
            axes.step(x[best], y[best], color="#c04040", where="pre", linewidth=1)
            axes.set(xlabel="frames/s, 512 x 512", ylabel=METRICS[metric])
            _bar(axes, points, "masked blocks")

        return draw

    _picture(out, [of(metric) for metric in METRICS])


def front(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices, by rising x, of the points that no other point reaches or passes in both x and y."""
    kept: list[int] = []
    for i in np.lexsort((y, x))[::-1]:
        if not kept or y[i] > y[kept[-1]]:
            kept.append(int(i))
    return np.array(kept[::-1], np.intp)


def zeros_curve(rows: Sequence[Row], out: Path) -> None:
    """Dice against the share of zeros asked for, and against the engine's milliseconds."""

    def of(column: str, label: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for by in dict.fromkeys(row["zeros_by"] for row in rows):
                chosen = sorted((row for row in rows if row["zeros_by"] == by), key=lambda row: float(row[column]))
                points = [(row[column], row["dice"]) for row in chosen]
                axes.plot(*zip(*points, strict=True), marker="o", ms=4, label=f"shared out by {by}")
            axes.set(xlabel=label, ylabel="Dice")
            axes.legend()

        return draw

    _picture(out, [of("zeros", "share of zeros"), of("ms", "ms per 512 x 512 image")])


def bits_per_block(rows: Sequence[Row], out: Path) -> None:
    """Appendix A.3: Dice with one block's weights at another width, all other blocks masked."""
    (base,) = [row["dice"] for row in rows if not row["block"]]

    def draw(axes: Axes) -> None:
        blocks = list(dict.fromkeys(row["block"] for row in rows if row["block"]))
        for kind in dict.fromkeys(row["weights"] for row in rows if row["block"]):
            by_block = {row["block"]: row["dice"] for row in rows if row["weights"] == kind}
            axes.plot(blocks, [by_block[block] for block in blocks], marker="o", ms=4, label=kind)
        axes.axhline(base, color="black", linewidth=0.8, linestyle="--", label="every block masked")
        axes.set(ylabel="Dice")
        axes.tick_params("x", rotation=45)
        axes.legend()

    _picture(out, [draw])


def dice_against_milliseconds(rows: Sequence[Row], full: int, score: str, out: Path) -> None:
    """`score` against measured milliseconds: a line over the zeros for every width and number of activation bits.

    Full precision, whose activation bits are `full`, is a dashed line of its width's color.
    """

    def draw(axes: Axes) -> None:
        for k, width in enumerate(dict.fromkeys(row["width"] for row in rows)):
            color = f"C{k}"
            for bits in dict.fromkeys(row["activation_bits"] for row in rows):
                own = [row for row in rows if (row["width"], row["activation_bits"]) == (width, bits)]
                if bits == full:
                    for row in own:
                        axes.axhline(row[score], color=color, linestyle="--", linewidth=0.8)
                    continue
                own.sort(key=lambda row: float(row["ms"]))
                label = f"width {width}, {bits} bit{'s' if bits > 1 else ''}"
                points = [(float(row["ms"]), float(row[score])) for row in own]
                axes.plot(*zip(*points, strict=True), color=color, label=label, marker="os"[bits - 1], ms=5)
                for row, point in zip(own, points, strict=True):
                    share = f"{row['zeros']:.0%}"
                    axes.annotate(share, point, xytext=(3, 3), textcoords="offset points", fontsize=6)
        axes.set(xscale="log", xlabel="ms per 512 x 512 image", ylabel="Dice")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")  # a decade or less of milliseconds: powers of ten would say little
        axes.legend(title="zeros beside the points; dashed: full precision", fontsize=7, title_fontsize=7)

    _picture(out, [draw])


def methods(rows: Sequence[Row], score: str, label: str, paper: Mapping[str, float], out: Path) -> None:
    """A table's `score` (called `label`): a dot for every run, a bar at a method's mean, hollow what a `paper` prints.

    Beside it the milliseconds of an image, where they were measured.
    """
    names = list(dict.fromkeys(row["method"] for row in rows))[::-1]
    panels = {score: label, **({"ms": "ms per 512 x 512 image"} if any("ms" in row for row in rows) else {})}
    figure = Figure(figsize=(4.5 + 2.7 * len(panels), 1 + 0.32 * len(names)), layout="constrained")
    axes_of = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (column, head) in zip(axes_of, panels.items(), strict=True):
        for y, name in enumerate(names):
            values = [row[column] for row in rows if row["method"] == name and column in row]
            axes.plot(values, [y] * len(values), "o", color="#4070c0", ms=4, alpha=0.7)
            if values:
                axes.plot([float(np.mean(values))] * 2, [y - 0.3, y + 0.3], color="#c04040", linewidth=1.5)
        axes.set_xlabel(head)
        axes.grid(alpha=0.3)
    printed = [(paper[name], y) for y, name in enumerate(names) if name in paper]
    if printed:
        axes_of[0].plot(*zip(*printed, strict=True), "o", mfc="none", color="black", ms=5, label="the paper")
        axes_of[0].legend(fontsize=7, loc="lower right")
    axes_of[0].set_yticks(range(len(names)), names)
    figure.savefig(out, dpi=90)


def _picture(out: Path, panels: Sequence[Callable[[Axes], None]]) -> None:
    figure = Figure(figsize=(6.5 if len(panels) == 1 else 4.3 * len(panels), 3.4), layout="constrained")
    for axes, draw in zip(np.atleast_1d(figure.subplots(1, len(panels))).flat, panels, strict=True):
        draw(axes)
        axes.grid(alpha=0.3)
    figure.savefig(out, dpi=90)


def _bar(axes: Axes, points: Any, label: str) -> None:
    figure = axes.get_figure()
    assert figure is not None
    figure.colorbar(points, ax=axes, label=label)
