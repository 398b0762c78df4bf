"""What a training run looks like: its curves, and a sheet of example masks. The only place that imports matplotlib."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # without pyplot a figure draws by Agg and needs no display
from numpy.typing import NDArray

from engine.train import log
from engine.train.data.dataset import VOID
from engine.train.metrics import TOLERANCE

PANELS = {
    "Loss": ("loss",),
    "Validation": ("dice", "iou", "f1"),
    "Learning rate": ("learning_rate",),
    "Zeros": ("zeros",),
}
CLASS_PANELS = {"Dice by class": "f1", f"F1 by class within {TOLERANCE} pixels": "near_f1"}
Color = tuple[int, int, int]

RIGHT, EXTRA, MISSED = (64, 192, 96), (224, 64, 64), (64, 112, 240)
"""Colours of an overlay: the right class, another one than the background or than the true one, none for a true one."""


def curves(log_csv: Path, out_png: Path, class_csv: Path | None = None) -> None:
    """Draw the columns of a training log over the samples seen, and those of the log of classes over the steps."""
    rows = log.read(log_csv)
    by_class = log.read_classes(class_csv) if class_csv else {}
    figure = Figure(figsize=(10, 9 if by_class else 6), layout="constrained")
    panels = list(figure.subplots(3 if by_class else 2, 2).flat)
    for axes, (title, column) in zip(panels[len(PANELS) :], CLASS_PANELS.items(), strict=bool(by_class)):
        for name, found in by_class.items():
            axes.plot([row["step"] for row in found], [row[column] for row in found], label=name, marker="o", ms=3)
        axes.set(title=title, xlabel="steps", ylim=(0, 1))
        axes.grid(alpha=0.3)
        axes.legend()
    for axes, (title, columns) in zip(panels, PANELS.items(), strict=False):
        for column in columns:
            points = [(row["samples"], row[column]) for row in rows if column in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=column, marker="o" if title == "Validation" else "", ms=3)
        axes.set(title=title, xlabel="samples")
        axes.grid(alpha=0.3)
        if len(columns) > 1:
            axes.legend()
    figure.savefig(out_png, dpi=100)


def history(stages: Mapping[str, Sequence[Mapping[str, float]]], score: str) -> bytes:
    """A PNG of the rows of several logs, stage after stage: loss, and `score`, the column of validation's headline."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, (title, column) in zip(figure.subplots(1, 2), {"Loss": "loss", "Validation": score}.items(), strict=True):
        begin = 0.0
        for name, rows in stages.items():
            points = [(begin + row["samples"], row[column]) for row in rows if column in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, marker="o" if title == "Validation" else "", ms=3)
            begin += max((row["samples"] for row in rows), default=0.0)
        axes.set(title=title, xlabel="samples, stage after stage")
        axes.grid(alpha=0.3)
        if axes.get_lines():
            axes.legend()
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    return png.getvalue()


def colors(count: int) -> list[tuple[int, int, int]]:
    """`count` colors to tell classes apart: black for the background, then hues the golden ratio apart."""
    hues = [colorsys.hsv_to_rgb(0.35 + 0.618034 * k, 0.7, 0.9) for k in range(count - 1)]
    return [(0, 0, 0), *((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues)][:count]


def beside(
    image: NDArray[np.uint8], truth: NDArray[Any], masks: Mapping[str, NDArray[Any]], classes: int
) -> dict[str, NDArray[np.uint8]]:
    """What to show of an image uint8 [h, w, 3], by caption: itself, of several classes the truth, `masks` on it."""
    if not classes:
        return {"image": image, **{name: overlay(image, truth, own) for name, own in masks.items()}}
    shown = colors(classes)
    return {"image": image, **{name: painted(image, own, shown) for name, own in {"truth": truth, **masks}.items()}}


def painted(image: NDArray[np.uint8], mask: NDArray[Any], colors: Sequence[Color]) -> NDArray[np.uint8]:
    """uint8 [h, w, 3]: `image` half covered by the color of every pixel's class; the background shows the image."""
    mixed: NDArray[np.uint8] = image.copy()
    for k, color in enumerate(colors[1:], start=1):
        where = mask == k
        mixed[where] = mixed[where] // 2 + np.array(color, np.uint8) // 2
    return mixed


def examples(
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[Any]],
    predictions: Sequence[NDArray[Any]],
    out_png: Path,
) -> None:
    """Draw a sheet with one row per image: the image [h, w, 3], its mask [h, w], the prediction [h, w] on the image."""
    figure = Figure(figsize=(9, 3 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), 3, squeeze=False)
    for row, image, mask, prediction in zip(grid, images, masks, predictions, strict=True):
        row[0].imshow(image)
        row[1].imshow((mask != 0) & (mask != VOID), cmap="gray", vmin=0, vmax=1)
        row[2].imshow(overlay(image, mask, prediction))
    for axes, title in zip(grid[0], ("image", "truth", "green right, red extra, blue missed"), strict=True):
        axes.set_title(title)
    for axes in grid.flat:
        axes.set_axis_off()
    figure.savefig(out_png, dpi=80)


def overlay(image: NDArray[np.uint8], mask: NDArray[Any], prediction: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 [h, w, 3]: `image` half covered by RIGHT, EXTRA and MISSED."""
    right, known = mask == prediction, mask != VOID
    found, missed = (prediction != 0) & known, (mask != 0) & (prediction == 0) & known
    mixed: NDArray[np.uint8] = image.copy()
    for where, color in ((found & right, RIGHT), (found & ~right, EXTRA), (missed, MISSED)):
        mixed[where] = mixed[where] // 2 + np.array(color, np.uint8) // 2
    return mixed
