"""Dice, IoU, F1, precision and recall of masks, by class and near the line; Otsu's threshold to beat. numpy only."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.preprocess import Image, is_8_bits, stretch
from engine.train.data.dataset import VOID

BINS = 15
"""Equal bins of probability for the expected calibration error."""


TOLERANCE = 2
"""Pixels by which a line may lie beside the true one in the scores of thin classes."""

BACKGROUNDS = ("background", "ground", "other", "none", "nothing")
"""Names of a first class that is not scored: it is what no other class is."""

FOREGROUND = "foreground"
"""The name of the class of binary masks in what people read."""


@dataclass(frozen=True)
class Counts:
    """Pixels of one image for one class: in both masks, only predicted, only true, in neither.

    Of all predicted pixels `near_predicted` lie within TOLERANCE pixels of a true one, of the true ones `near_true` of
    a predicted one.
    """

    both: int
    predicted: int
    true: int
    neither: int = 0
    near_predicted: int = 0
    near_true: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def constant(self) -> Counts:
        """The counts of a mask that calls every pixel this class."""
        return Counts(self.both + self.true, self.predicted + self.neither, 0)

    @property
    def dice(self) -> float:
        """2 |A and B| / (|A| + |B|); nan when both masks are empty."""
        return _ratio(2 * self.both, 2 * self.both + self.predicted + self.true)

    @property
    def iou(self) -> float:
        """|A and B| / |A or B|; nan when both masks are empty."""
        return _ratio(self.both, self.both + self.predicted + self.true)

    @property
    def precision(self) -> float:
        """Share of the predicted pixels that are true; nan when none is predicted."""
        return _ratio(self.both, self.both + self.predicted)

    @property
    def recall(self) -> float:
        """Share of the true pixels that are predicted; nan when none is true."""
        return _ratio(self.both, self.both + self.true)

    @property
    def near_precision(self) -> float:
        """Share of the predicted pixels with a true one within TOLERANCE pixels; nan when none is predicted."""
        return _ratio(self.near_predicted, self.both + self.predicted)

    @property
    def near_recall(self) -> float:
        """Share of the true pixels with a predicted one within TOLERANCE pixels; nan when none is true."""
        return _ratio(self.near_true, self.both + self.true)

    @property
    def near_f1(self) -> float:
        """F1 of precision and recall within TOLERANCE pixels; nan when both masks are empty, 0 when one is."""
        precision, recall = self.near_precision, self.near_recall
        if math.isnan(precision) and math.isnan(recall):
            return math.nan
        return 2 * precision * recall / (precision + recall) if precision > 0 and recall > 0 else 0.0


EXACT = ("dice", "iou", "f1", "pooled_iou", "precision", "recall")
NEAR = ("near_f1", "near_precision", "near_recall")
SCORES = (*EXACT, *NEAR)
"""Fields of `Metrics`, to the pixel and within TOLERANCE of it. Of several classes each is the mean over them."""


@dataclass(frozen=True)
class Metrics:
    """How good the masks of `images` images are; nan where there is nothing to say.

    `dice` and `iou` are means over images, those left out in which a class is neither true nor predicted. The others
    are of all pixels pooled: `f1` (Dice's formula), `pooled_iou`, `precision`, `recall`, and `near_f1`,
    `near_precision`, `near_recall` within TOLERANCE pixels. With several classes every value is the mean over the
    classes, whose own metrics are in `by_class`.
    `constant` is what the best mask of one class everywhere has in place of `headline`.
    `pooled` are the counts of one class over all images.
    """

    images: int
    dice: float
    iou: float
    f1: float
    pooled_iou: float = math.nan
    precision: float = math.nan
    recall: float = math.nan
    near_f1: float = math.nan
    near_precision: float = math.nan
    near_recall: float = math.nan
    constant: float = math.nan
    pooled: Counts = Counts(0, 0, 0)
    by_class: Mapping[str, Metrics] = field(default_factory=dict)

    @property
    def headline(self) -> float:
        """The one number: mean Dice over images, or with several classes the mean of their pooled Dice."""
        return self.f1 if self.by_class else self.dice

    @property
    def never_found(self) -> tuple[str, ...]:
        """Classes that the true masks hold and of which not one pixel was found."""
        classes = self.by_class or {FOREGROUND: self}
        return tuple(name for name, own in classes.items() if own.pooled.true and not own.pooled.both)

    @property
    def remarks(self) -> list[str]:
        """What must be said beside any headline."""
        said = [f"never found: {', '.join(self.never_found)}"] if self.never_found else []
        if self.headline <= self.constant:
            said.append(f"no better than a constant mask, which has {self.constant:.3f}")
        return said

    def __str__(self) -> str:
        pooled = (
            f"{'mIoU' if self.by_class else 'IoU'} {self.pooled_iou:.4f}, precision {self.precision:.4f}, "
            f"recall {self.recall:.4f}, F1 within {TOLERANCE} pixels {self.near_f1:.4f}"
        )
        if not self.by_class:
            head = f"Dice {self.dice:.4f}, IoU {self.iou:.4f} (means over {self.images} images); "
            lines = [f"{head}all pixels: F1 {self.f1:.4f}, {pooled}; a constant mask: Dice {self.constant:.4f}"]
        else:
            head = f"Dice {self.f1:.4f}, {pooled} (all pixels of {self.images} images, mean of {len(self.by_class)} "
            lines = [f"{head}classes); a constant mask: Dice {self.constant:.4f}"]
            for name, own in self.by_class.items():
                found = f"Dice {own.f1:.4f}, IoU {own.pooled_iou:.4f}, precision {own.precision:.4f}"
                near = f"F1 {own.near_f1:.4f}, precision {own.near_precision:.4f}, recall {own.near_recall:.4f}"
                lines.append(f"  {name}: {found}, recall {own.recall:.4f}; within {TOLERANCE} pixels: {near}")
        return "\n".join([*lines, *self.remarks])


def count(predicted: NDArray[np.generic], true: NDArray[np.generic], known: NDArray[np.bool_] | None = None) -> Counts:
    """Counts of two masks of one shape; non-zero is foreground. What is not `known` does not count."""
    a, b = predicted != 0, true != 0
    if known is not None:
        a, b = a & known, b & known
    both, either = int((a & b).sum()), int((a | b).sum())
    near_predicted, near_true = int((a & _widened(b)).sum()), int((b & _widened(a)).sum())
    size = a.size if known is None else int(known.sum())
    return Counts(both, int(a.sum()) - both, int(b.sum()) - both, size - either, near_predicted, near_true)


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Every pixel within TOLERANCE (Euclidean) of `mask`."""
    reach = range(-TOLERANCE, TOLERANCE + 1)
    height, width = mask.shape
    padded = np.pad(mask, TOLERANCE)
    wide = np.zeros_like(mask)
    for y, x in ((y, x) for y in reach for x in reach if y * y + x * x <= TOLERANCE**2):
        wide |= padded[TOLERANCE + y : TOLERANCE + y + height, TOLERANCE + x : TOLERANCE + x + width]
    return wide


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Iterable[float]) -> float:
    """The mean of those that are numbers; nan where none is."""
    numbers = [value for value in values if not math.isnan(value)]
    return float(np.mean(numbers)) if numbers else math.nan


def scored(classes: Sequence[str]) -> dict[int, str]:
    """What is scored, by its index: every class, but not a first one of BACKGROUNDS; of binary masks 1, ""."""
    return {k: name for k, name in enumerate(classes) if k or name not in BACKGROUNDS} or {1: ""}


def by_class(
    predicted: NDArray[np.generic], true: NDArray[np.uint8], classes: Sequence[str] = ()
) -> list[tuple[str, Counts]]:
    """(name, counts) of each class that is `scored`; pixels that are VOID do not count."""
    known = true != VOID if (true == VOID).any() else None
    if not classes:
        return [("", count(predicted, true, known))]
    return [(name, count(predicted == k, true == k, known)) for k, name in scored(classes).items()]


def confusion(predicted: NDArray[np.generic], true: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Pixels by true class (row) and by the class that they were taken for (column), less those that are VOID."""
    known = true != VOID
    both = true[known].astype(np.int64) * classes + predicted[known]
    return np.bincount(both, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class ObjectCounts:
    """Objects of one or more images: found, true, and found ones that match a true one."""

    matched: int
    found: int
    true: int

    @property
    def f1(self) -> float:
        """2 matched / (found + true); 1 where there are neither."""
        total = self.found + self.true
        return 2 * self.matched / total if total else 1.0


def match_objects(found: NDArray[np.int32], true: NDArray[np.int32]) -> ObjectCounts:
    """Counts of two label images of one shape, 0 being background: objects match where their IoU is above .5.

    Above a half an object has one match at most, so there is nothing to choose.
    """
    count = int(found.max(initial=0)) + 1
    pairs, both = np.unique(true.astype(np.int64) * count + found, return_counts=True)
    of_true, of_found = np.divmod(pairs, count)
    areas_true, areas_found = np.bincount(true.ravel()), np.bincount(found.ravel())
    matched = (of_true > 0) & (of_found > 0) & (3 * both > areas_true[of_true] + areas_found[of_found])
    return ObjectCounts(int(matched.sum()), count - 1, int(true.max(initial=0)))


def sum_objects(counts: Iterable[ObjectCounts]) -> ObjectCounts:
    """Counts over all images."""
    items = list(counts)
    return ObjectCounts(sum(c.matched for c in items), sum(c.found for c in items), sum(c.true for c in items))


def summarize(counts: Iterable[Counts]) -> Metrics:
    """Metrics of one class over the images behind `counts`; raises ValueError when there are none."""
    items = list(counts)
    if not items:
        raise ValueError("no images to score")
    pooled = functools.reduce(Counts.__add__, items)
    return Metrics(
        len(items),
        *(_mean(c.dice for c in items), _mean(c.iou for c in items), pooled.dice),
        *(pooled.iou, pooled.precision, pooled.recall, pooled.near_f1, pooled.near_precision, pooled.near_recall),
        constant=_mean(c.constant.dice if c.both + c.true else 0.0 for c in items),
        pooled=pooled,
    )


def summarize_classes(labeled: Iterable[tuple[str, Counts]]) -> Metrics:
    """Metrics over pairs of a class's name and its counts in one image; raises ValueError when there are none.

    A lone class without a name is the foreground of binary masks.
    """
    by_class: dict[str, list[Counts]] = {}
    for name, counts in labeled:
        by_class.setdefault(name, []).append(counts)
    found = {name: summarize(counts) for name, counts in by_class.items()}
    if set(found) <= {""}:
        return found[""] if found else summarize([])
    classes = found.values()
    values: dict[str, Any] = {name: _mean(getattr(own, name) for own in classes) for name in SCORES}
    present = [own for own in classes if not math.isnan(own.f1)]
    best = max((_or_zero(own.pooled.constant.dice) for own in present), default=math.nan)
    images = max(own.images for own in classes)
    return Metrics(images, **values, constant=best / max(len(present), 1), by_class=found)


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def reliability(probabilities: NDArray[np.float64], true: NDArray[np.generic]) -> NDArray[np.float64]:
    """A reliability diagram of one image, float64 [3, BINS]: pixels, sum of probabilities, pixels it holds of.

    `probabilities` [h, w, classes] are the foreground's with one class; with several, the largest one counts, and it
    holds where its class is the true one. Pixels that are VOID are left out.
    """
    if probabilities.shape[2] == 1:
        claimed, holds = probabilities[..., 0].ravel(), (true != 0).ravel()
    else:
        claimed, holds = probabilities.max(2).ravel(), (probabilities.argmax(2) == true).ravel()
    known = true.ravel() != VOID
    claimed, holds = claimed[known], holds[known]
    bins = np.minimum((claimed * BINS).astype(np.intp), BINS - 1)
    return np.stack([np.bincount(bins, w, minlength=BINS) for w in (np.ones_like(claimed), claimed, holds)])


def calibration_error(total: NDArray[np.float64]) -> float:
    """Expected calibration error of summed `reliability`: mean |claimed - true| share over bins, by their pixels."""
    count, claimed, holds = total
    return float(np.abs(claimed - holds).sum() / count.sum())


def otsu(image: Image) -> NDArray[np.bool_]:
    """Foreground of [h, w, 3] by Otsu's threshold on luma, the smaller of the two classes being foreground.

    Images of 16 bits are stretched to 8 before.
    """
    grey = np.rint((image if is_8_bits(image) else stretch(image)) @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    below = np.cumsum(share)
    mean_below = np.cumsum(share * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean_below[-1] * below - mean_below) ** 2 / (below * (1 - below))
    bright: NDArray[np.bool_] = grey > int(np.argmax(np.nan_to_num(between, posinf=0)))
    return bright if bright.mean() <= 0.5 else ~bright
