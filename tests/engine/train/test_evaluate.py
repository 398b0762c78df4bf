"""Evaluation of a stand-in engine whose masks are known."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.train import evaluate
from engine.train.data import dataset, layouts
from engine.train.metrics import Counts


class Threshold:
    """Calls pixels above 115 foreground, as the discs are, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[float | None] = []

    def run(self, images: Sequence[NDArray[np.uint8]], threshold: float | None = None) -> tuple[list[Any], None]:
        self.asked.append(threshold)
        return [(image.mean(2) > 115).astype(np.uint8) for image in images], None


def test_every_image_is_scored_beside_otsu(data: Path) -> None:
    engine: Any = Threshold()
    rows = evaluate.evaluate(engine, layouts.samples(data), threshold=0.4, otsu=True)
    assert engine.asked == [0.4] * 12
    assert [row.counts.dice for row in rows] == [1.0] * 12
    assert all(row.otsu and row.otsu.dice > 0.9 for row in rows)
    lines = evaluate.table(rows).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["all", "12"], ["even", "6"], ["odd", "6"]]
    assert lines[0].split() == ["stratum", "images", "Dice", "IoU", "F1", "Otsu", "Dice", "Otsu", "IoU", "Otsu", "F1"]
    assert len({len(line) for line in lines}) == 1


def test_the_table_has_one_line_without_groups() -> None:
    rows = [evaluate.Row("a", "", Counts(1, 0, 0)), evaluate.Row("b", "", Counts(0, 3, 0))]
    assert evaluate.table(rows).splitlines()[1].split() == ["all", "2", "0.5000", "0.5000", "0.4000"]


def test_csv_has_one_line_per_image(tmp_path: Path) -> None:
    rows = [evaluate.Row("a", "g", Counts(2, 1, 1), Counts(1, 0, 0)), evaluate.Row("b", "", Counts(1, 0, 0))]
    evaluate.write_csv(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert read[0] == {
        "name": "a",
        "stratum": "g",
        "class": "",
        "dice": "0.666667",
        "iou": "0.500000",
        "otsu_dice": "1.000000",
        "otsu_iou": "1.000000",
    }
    assert read[1]["otsu_dice"] == ""


def test_evaluation_needs_no_torch() -> None:
    code = "import sys, engine.train.evaluate; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_parts_are_those_of_training(data: Path, part: str) -> None:
    items = layouts.samples(data)
    training, validation = dataset.split(items, 0.25, 3)
    failures: list[Exception] = []
    assert (
        evaluate.select(items, part, 0.25, 3, failures.append) == {"training": training, "validation": validation}[part]
    )
    assert evaluate.select(items, "all", 0.25, 3, failures.append) == items
    assert not failures


def test_objects_are_scored_without_splitting_and_with_it(data: Path) -> None:
    engine: Any = Threshold()
    rows = evaluate.evaluate(engine, layouts.samples(data), threshold=0.4, min_area=1)
    assert all(row.objects and row.objects[0].f1 == 1.0 for row in rows)
    head, everything, *strata = evaluate.object_table(rows).splitlines()
    assert head.split() == ["stratum", "true", "found", "F1", "split", "found", "F1"]
    name, true, found, f1, *_ = everything.split()
    assert (name, true, f1) == ("all", found, "1.0000")
    assert [line.split()[0] for line in strata] == ["even", "odd"]
    assert len({len(line) for line in (everything, *strata)}) == 1
