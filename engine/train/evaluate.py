"""Metrics of a model file on a data folder, as a table and as CSV, beside Otsu's threshold. Nothing of torch."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine import images
from engine.images import ObjectParams
from engine.preprocess import Image
from engine.train import metrics, saliency
from engine.train.data import dataset, empty
from engine.train.data.dataset import VOID
from engine.train.data.files import DataError
from engine.train.metrics import Counts, ObjectCounts
from engine.train.saliency import Curve, Saliency

DIVIDED = ("validation", "training")  # by the split of a run
PARTS = (*DIVIDED, "test", "all")

COLUMNS = {"Dice": "dice", "IoU": "iou", "F1": "f1", "precision": "precision", "recall": "recall",
           f"F1 {metrics.TOLERANCE} px": "near_f1", f"P {metrics.TOLERANCE} px": "near_precision",
           f"R {metrics.TOLERANCE} px": "near_recall", "constant": "constant"}  # fmt: skip
"""What a table shows of the metrics: head and field. P and R are precision and recall; "constant" is the score of the
best constant mask."""

MEAN_IOU = {"mIoU": "pooled_iou"}
"""What it shows of several classes beside: the mean of their IoU over all pixels; of one class, its own."""

EMPTY = "empty part"
"""The head of what it shows of empty parts, where they were looked at (`taken_for_objects`)."""


class Segments(Protocol):
    """What can be scored: an Engine, or a network in its place (`engine.train.network_engine`)."""

    def run(self, images: Sequence[Image], threshold: float | None = None) -> tuple[list[Any], Any]:
        """(masks, timings) of `images`."""

    def probabilities(self, image: Image) -> NDArray[np.float64]:
        """Of every pixel and class, [h, w, classes]; with one class the foreground's."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of index masks, the background first; none where masks are binary."""


@dataclass(frozen=True)
class Row:
    """One image's pixel counts for one class: of the model's mask and, where asked for, of Otsu's.

    `label` names the class where there are several. The image's `reliability` (`metrics.reliability`) stands in its
    first row, with several classes beside its `confusion` (`metrics.confusion`), with one its `curve`
    (`saliency.curve`), and beside what share of an `empty` part of it, sent alone, came back as objects. `objects` are
    counted without splitting and with it, where asked.
    """

    name: str
    stratum: str
    counts: Counts
    otsu: Counts | None = None
    label: str = ""
    reliability: NDArray[np.float64] | None = field(default=None, compare=False)
    objects: tuple[ObjectCounts, ObjectCounts] | None = None
    confusion: NDArray[np.int64] | None = field(default=None, compare=False)
    curve: Curve | None = field(default=None, compare=False)
    empty: float | None = None


def select(
    items: list[dataset.Sample],
    part: str,
    share: float,
    seed: int,
    failed: Callable[[DataError], None],
    parts: dataset.Parts | None = None,
) -> list[dataset.Sample]:
    """The `part` (of PARTS) of `items`: by the split that a run has kept, `parts`, or anew.

    What a run has not seen belongs to neither part. Raises DataError where nothing is left. For a new split sizes are
    read; of an image that has none `failed` is told, and the others are split.
    """
    if part == "all":
        return items
    if part == dataset.TEST:
        if not (test := [sample for sample in items if sample.part == dataset.TEST]):
            raise DataError("this data set has no test part of its own; try the part all")
        return test
    if parts:
        training, validation, _ = parts.divide(items)
        chosen = training if part == "training" else validation
        if not chosen:
            raise DataError(
                f"none of these {len(items)} samples was in the {part} part of this model; try the part all"
            )
        return chosen
    readable = []
    for sample in items:
        try:
            _ = sample.size
        except DataError as error:
            failed(error)
        else:
            readable.append(sample)
    training, validation = dataset.split(readable, share, seed)
    return {"training": training, "validation": validation}[part]


def evaluate(
    engine: Segments,
    samples: Iterable[dataset.Sample],
    threshold: float | None = None,
    otsu: bool = False,
    classes: Sequence[str] = (),
    closely: bool = False,
    failed: Callable[[DataError], None] | None = None,
    min_area: int = 0,
) -> list[Row]:
    """Run every image of `samples` (wrap them for a progress bar) and count its pixels against its mask.

    `threshold` is a probability, by default the model's own; with `otsu` Otsu's masks are counted too. `classes` names
    the classes of index masks; there Otsu has nothing to say. `closely` looks at probabilities as well, and at the
    largest empty part of each image, run by itself; with `min_area` objects of at least so many pixels are counted.
    A sample that cannot be used raises DataError, or where `failed` is given, that is told and the others go on.
    """
    rows = []
    for sample in samples:
        try:
            image, mask = sample.load(len(classes))
        except DataError as error:
            if failed is None:
                raise
            failed(error)
            continue
        (predicted,), _ = engine.run([image], threshold)
        baseline = metrics.count(metrics.otsu(image), mask, mask != VOID) if otsu and not classes else None
        probabilities = engine.probabilities(image) if closely else None
        trust = metrics.reliability(probabilities, mask) if probabilities is not None else None
        curve = None if probabilities is None or classes else saliency.curve(probabilities[..., 0], mask)
        taken = metrics.confusion(predicted, mask, len(classes)) if classes else None
        counted = metrics.by_class(predicted, mask, classes)
        alone = _objects_in_empty(engine, image, mask, threshold, classes) if closely else None
        for k, (name, counts) in zip(metrics.scored(classes), counted, strict=True):
            objects = _count_objects(predicted == k, mask == k, min_area) if min_area else None
            own = counts, baseline, name, trust, objects, taken, curve, alone
            rows.append(Row(sample.name, sample.stratum, *own))
            trust = taken = alone = None
    return rows


def _objects_in_empty(
    engine: Segments, image: Image, mask: NDArray[np.uint8], threshold: float | None, classes: Sequence[str]
) -> float | None:
    """What share of the largest empty part of `image`, run by itself, is taken for objects; None where it has none."""
    square = empty.largest(mask) if 0 not in metrics.scored(classes) else None
    if square is None:
        return None
    (found,), _ = engine.run([image[square].copy()], threshold)
    return float(np.count_nonzero(found) / found.size)


def _count_objects(
    predicted: NDArray[np.bool_], true: NDArray[np.bool_], min_area: int
) -> tuple[ObjectCounts, ObjectCounts]:
    """Without splitting what touches, and with it. The components of a true mask are its objects."""
    truth, _ = images.label(true.astype(np.uint8))
    found = (images.label(predicted.astype(np.uint8), ObjectParams(split, min_area))[0] for split in (False, True))
    plain, split = (metrics.match_objects(labels, truth) for labels in found)
    return plain, split


def calibration_error(rows: Iterable[Row]) -> float | None:
    """Expected calibration error over all pixels of `rows`; None where probabilities were not looked at."""
    found = [row.reliability for row in rows if row.reliability is not None]
    return metrics.calibration_error(np.sum(found, axis=0)) if found else None


def taken_for_objects(rows: Iterable[Row]) -> float | None:
    """What share of an empty part comes back as objects: the mean over all images that have one, None without any."""
    found = [row.empty for row in rows if row.empty is not None]
    return float(np.mean(found)) if found else None


def salient(rows: Iterable[Row]) -> Saliency | None:
    """MAE and maximum F-beta over `rows`; None with several classes, or where probabilities were not looked at."""
    found = [row.curve for row in rows if row.curve]
    return saliency.summarize(found) if found else None


def columns(rows: Iterable[Row]) -> dict[str, str]:
    """COLUMNS, and MEAN_IOU where there are several classes."""
    return {**COLUMNS, **(MEAN_IOU if any(row.label for row in rows) else {})}


def table(rows: Sequence[Row]) -> str:
    """Text table of `columns` over all `rows`, by stratum and class, with what else was looked at, and remarks."""
    with_otsu, with_empty, shown = all(row.otsu for row in rows), taken_for_objects(rows) is not None, columns(rows)
    heads = ["Dice", "IoU", "F1"]
    lines = [f"{'stratum':<16}{'images':>8}" + "".join(f"{head:>10}" for head in shown)]
    if with_empty:
        lines[0] += f"{EMPTY:>12}"
    if with_otsu:
        lines[0] += "".join(f"{'Otsu ' + head:>11}" for head in heads)
    for title, chosen in parts(rows).items():
        own = score(chosen)
        line = f"{title:<16}{own.images:>8}" + "".join(f"{getattr(own, name):>10.4f}" for name in shown.values())
        if with_empty:
            line += f"{percent(taken_for_objects(chosen)):>12}"
        if with_otsu:
            otsu = metrics.summarize(row.otsu for row in chosen if row.otsu)
            line += "".join(f"{value:>11.4f}" for value in (otsu.dice, otsu.iou, otsu.f1))
        lines.append(line)
    return "\n".join([*lines, *score(rows).remarks])


def percent(share: float | None) -> str:
    """As text; "-" of nothing."""
    return "-" if share is None else f"{share:.1%}"


def score(rows: Iterable[Row]) -> metrics.Metrics:
    """The metrics of `rows`; raises ValueError when there are none."""
    return metrics.summarize_classes((row.label, row.counts) for row in rows)


def by_image(rows: Sequence[Row]) -> dict[str, float]:
    """Mean Dice over the classes of each image; 1 where there is nothing to find and nothing was found."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row.counts.dice)
    means = {name: [value for value in values if not math.isnan(value)] for name, values in found.items()}
    return {name: float(np.mean(values)) if values else 1.0 for name, values in means.items()}


def confusion_table(rows: Iterable[Row], classes: Sequence[str]) -> str:
    """Text table of what the pixels of every class were taken for, in percent of that class; "" where masks are binary.

    A class that occurs in no mask has no row.
    """
    total = sum(row.confusion for row in rows if row.confusion is not None)
    if not isinstance(total, np.ndarray):
        return ""
    wide = max(10, *(len(name) + 2 for name in classes))
    lines = [f"{'true, taken for':<16}" + "".join(f"{name:>{wide}}" for name in classes)]
    for name, taken in zip(classes, total, strict=True):
        if taken.sum():
            lines.append(f"{name:<16}" + "".join(f"{share:>{wide}.1%}" for share in taken / taken.sum()))
    return "\n".join(lines)


def object_table(rows: Sequence[Row]) -> str:
    """Text table of object F1 at IoU .5, pooled over all images, without splitting and with it."""
    lines = [f"{'stratum':<16}{'true':>8}" + "".join(f"{head:>12}" for head in ("found", "F1", "split found", "F1"))]
    for title, chosen in parts(rows).items():
        counted = [row.objects for row in chosen if row.objects]
        plain, split = (metrics.sum_objects(some) for some in zip(*counted, strict=True))
        cells = [f"{plain.found:>12}", f"{plain.f1:>12.4f}", f"{split.found:>12}", f"{split.f1:>12.4f}"]
        lines.append(f"{title:<16}{plain.true:>8}" + "".join(cells))
    return "\n".join(lines)


def parts(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """`rows` whole, under "all", and by stratum and by class, where there are any."""
    found = {"all": list(rows)}
    for stratum in sorted({row.stratum for row in rows} - {""}):
        found[stratum] = [row for row in rows if row.stratum == stratum]
    for label in dict.fromkeys(row.label for row in rows if row.label):
        found[f"class {label}"] = [row for row in rows if row.label == label]
    return found


def write_csv(rows: Iterable[Row], path: str | Path) -> None:
    """Write a line per image and class: their names, Dice and IoU of the model and of Otsu, where counted."""
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "stratum", "class", "dice", "iou", "otsu_dice", "otsu_iou"])
        for row in rows:
            both = [*_digits(row.counts), *(_digits(row.otsu) if row.otsu else ("", ""))]
            writer.writerow([row.name, row.stratum, row.label, *both])


def _digits(counts: Counts) -> tuple[str, str]:
    """Dice and IoU, empty where there is nothing to score."""
    return ("", "") if math.isnan(counts.dice) else (f"{counts.dice:.6f}", f"{counts.iou:.6f}")
