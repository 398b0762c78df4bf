"""Scores of a model file on a data folder, as a table and as CSV, beside Otsu's threshold. numpy and PIL only."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.train import folder, scores
from engine.train.scores import Counts

PARTS = ("validation", "training", "all")


class Segments(Protocol):
    """What can be scored: an Engine, or a checkpoint in its place (`engine.train.export.CheckpointEngine`)."""

    def run(self, images: Sequence[NDArray[np.uint8]], threshold: float | None = None) -> tuple[list[Any], Any]:
        """(masks, timings) of `images`."""


@dataclass(frozen=True)
class Row:
    """One image's pixel counts: of the model's mask and, where asked for, of Otsu's."""

    name: str
    group: str
    counts: Counts
    otsu: Counts | None = None


def select(items: list[folder.Pair], part: str, share: float = 0.2, seed: int = 0) -> list[folder.Pair]:
    """The `part` ("validation", "training" or "all") of `items`, split as training splits them."""
    if part == "all":
        return items
    training, validation = folder.split(items, share, seed)
    return {"training": training, "validation": validation}[part]


def evaluate(
    engine: Segments, pairs: Iterable[folder.Pair], threshold: float | None = None, otsu: bool = False
) -> list[Row]:
    """Run every image of `pairs` (wrap them for a progress bar) and count its pixels against its mask.

    `threshold` is a probability, by default the model's own; with `otsu` Otsu's masks are counted too. Raises
    DataError for a pair that cannot be used.
    """
    rows = []
    for pair in pairs:
        image, mask = pair.load()
        (predicted,), _ = engine.run([image], threshold)
        baseline = scores.count(scores.otsu(image), mask) if otsu else None
        rows.append(Row(pair.name, pair.group, scores.count(predicted, mask), baseline))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Text table of mean Dice, IoU and F1 over all `rows` and by group, with Otsu's beside them where counted."""
    with_otsu = all(row.otsu for row in rows)
    heads = ["Dice", "IoU", "F1"]
    lines = [f"{'group':<16}{'images':>8}" + "".join(f"{head:>8}" for head in heads)]
    if with_otsu:
        lines[0] += "".join(f"{'Otsu ' + head:>11}" for head in heads)
    groups = sorted({row.group for row in rows} - {""})
    for title, chosen in [("all", list(rows)), *((group, [r for r in rows if r.group == group]) for group in groups)]:
        own = scores.summarise(row.counts for row in chosen)
        line = f"{title:<16}{own.images:>8}" + _cells(own, 8)
        if with_otsu:
            line += _cells(scores.summarise(row.otsu for row in chosen if row.otsu), 11)
        lines.append(line)
    return "\n".join(lines)


def write_csv(rows: Iterable[Row], path: str | Path) -> None:
    """Write one line per image: name, group, Dice and IoU of the model and of Otsu (empty where not counted)."""
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "group", "dice", "iou", "otsu_dice", "otsu_iou"])
        for row in rows:
            both = [*_pair(row.counts), *(_pair(row.otsu) if row.otsu else ("", ""))]
            writer.writerow([row.name, row.group, *both])


def _cells(result: scores.Scores, width: int) -> str:
    return "".join(f"{value:>{width}.4f}" for value in (result.dice, result.iou, result.f1))


def _pair(counts: Counts) -> tuple[str, str]:
    return f"{counts.dice:.6f}", f"{counts.iou:.6f}"
