"""The model file beside full precision, a constant mask and Otsu's threshold, on the images held for validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.train import evaluate, metrics, thresholds
from engine.train.data.dataset import Sample
from engine.train.evaluate import Row, Segments
from engine.train.metrics import Metrics

BITS, FULL, OTSU, CONSTANT = "bits", "full precision", "Otsu's threshold", "a constant mask"


@dataclass(frozen=True)
class Compared:
    """Rows of every image and class: of the bits, Otsu's beside them, and of full precision where there is one.

    With one class full precision's masks are those from the probability `full_threshold` on.
    """

    bits: list[Row]
    full: list[Row]
    full_threshold: float = 0.5

    @property
    def scores(self) -> dict[str, Metrics]:
        """By what made the masks."""
        found = {BITS: evaluate.score(self.bits)}
        if self.full:
            found = {FULL: evaluate.score(self.full), **found}
        if all(row.otsu for row in self.bits):
            found[OTSU] = metrics.summarize(row.otsu for row in self.bits if row.otsu)
        return found

    @property
    def lost(self) -> float | None:
        """What bits have lost of full precision's headline."""
        return evaluate.score(self.full).headline - evaluate.score(self.bits).headline if self.full else None

    @property
    def summary(self) -> str:
        """The headline of bits, beside full precision's where there is one."""
        own = evaluate.score(self.bits)
        said = f"{'Dice (all pixels, mean of the classes)' if own.by_class else 'Dice'} {own.headline:.4f} by bits"
        if self.lost is None:
            return f"{said}."
        change = "gained" if self.lost < 0 else "lost"
        return f"{said}, {own.headline + self.lost:.4f} in full precision: {abs(self.lost):.4f} {change}."

    @property
    def remarks(self) -> list[str]:
        """What must be said aloud, of bits and of full precision."""
        scores = self.scores
        said = [f"{who}: {remark}" for who, found in scores.items() if who != OTSU for remark in found.remarks]
        if OTSU in scores and scores[OTSU].headline > scores[BITS].headline:
            said.append(f"{OTSU} is better than the bits: {scores[OTSU].headline:.3f}")
        return said

    def most_different(self, count: int) -> list[str]:
        """Names of the images where bits are furthest below full precision; without it, where bits are worst."""
        bits, full = evaluate.by_image(self.bits), evaluate.by_image(self.full)
        distance = {name: abs(full[name] - own) if full else 1 - own for name, own in bits.items()}
        return sorted(distance, key=lambda name: (-distance[name], name))[:count]

    def dice(self, name: str) -> tuple[float, float | None]:
        """Of one image: the bits' mean Dice over its classes, and full precision's."""
        return evaluate.by_image(self.bits)[name], evaluate.by_image(self.full).get(name)


def compare(
    bits: Segments, full: Segments | None, held: Sequence[Sample], classes: Sequence[str], otsu: bool
) -> Compared:
    """Score both on `held`: bits by their own threshold, full precision by the best for these images, as theirs is."""
    rows = evaluate.evaluate(bits, held, otsu=otsu, classes=classes, closely=True)
    if full is None:
        return Compared(rows, [])
    if classes:
        return Compared(rows, evaluate.evaluate(full, held, classes=classes))
    return Compared(rows, *_at_its_best(full, held))


def _at_its_best(full: Segments, held: Sequence[Sample]) -> tuple[list[Row], float]:
    """Rows of full precision by the threshold that suits `held` best, and that; each image is run once."""
    loaded = (sample.load() for sample in held)
    pairs = [(thresholds.levels(full.probabilities(image)[..., 0]), mask) for image, mask in loaded]
    chosen = thresholds.best(thresholds.dice_of_levels(pairs))
    rows = []
    for sample, (levels, mask) in zip(held, pairs, strict=True):
        ((_, counts),) = metrics.by_class(thresholds.reaches(levels, chosen), mask)
        rows.append(Row(sample.name, sample.stratum, counts))
    return rows, chosen


def table(found: Compared) -> list[list[str]]:
    """Rows of cells, the head first: who, and the columns of `evaluate`; the constant mask has a headline alone."""
    columns = evaluate.columns(found.bits)
    heads = [name for name in columns if name != "constant"]
    rows = [["", *heads]]
    for who, scores in found.scores.items():
        rows.append([who, *(_digits(getattr(scores, columns[head])) for head in heads)])
    own = evaluate.score(found.bits)
    column = "F1" if own.by_class else "Dice"
    rows.append([CONSTANT, *(_digits(own.constant) if head == column else "" for head in heads)])
    return rows


def class_table(found: Compared) -> list[list[str]]:
    """Rows of cells, the head first: every class's pooled Dice; none with one class."""
    scores = found.scores
    names = list(scores[BITS].by_class)
    if not names:
        return []
    heads = [f"{what}, {who}" for what in ("Dice", "recall") for who in scores]
    rows = [["class", *heads]]
    for name in names:
        own = [scores[who].by_class[name] for who in scores]
        rows.append([name, *(_digits(one.f1) for one in own), *(_digits(one.recall) for one in own)])
    return rows


def _digits(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
