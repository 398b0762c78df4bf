"""Evaluation of a stand-in engine whose masks are known."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.model import ClassInfo
from engine.train import card, evaluate, trainer, validation
from engine.train.config import Config
from engine.train.data import dataset, layouts
from engine.train.experiments import measure, table
from engine.train.metrics import Counts
from service import cli
from tests.models import random_model


class Threshold:
    """Calls pixels above 115 foreground, as the discs are, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[float | None] = []

    def run(self, images: Sequence[NDArray[np.uint8]], threshold: float | None = None) -> tuple[list[Any], None]:
        self.asked.append(threshold)
        return [(image.mean(2) > 115).astype(np.uint8) for image in images], None

    def probabilities(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.where(image.mean(2, keepdims=True) > 115, 0.9, 0.1)


def test_every_image_is_scored_beside_otsu(data: Path) -> None:
    engine: Any = Threshold()
    rows = evaluate.evaluate(engine, layouts.samples(data), threshold=0.4, otsu=True)
    assert engine.asked == [0.4] * 12
    assert [row.counts.dice for row in rows] == [1.0] * 12
    assert all(row.otsu and row.otsu.dice > 0.9 for row in rows)
    lines = evaluate.table(rows).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["all", "12"], ["even", "6"], ["odd", "6"]]
    heads = " ".join(lines[0].split())
    near = "F1 2 px P 2 px R 2 px"
    assert heads == f"stratum images Dice IoU F1 precision recall {near} constant Otsu Dice Otsu IoU Otsu F1"
    assert len({len(line) for line in lines}) == 1


def test_an_empty_part_of_every_image_is_run_by_itself(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for k, (side, noise) in enumerate([(90, 90), (90, 0), (30, 0)]):  # the last has no part that is large enough
        image = np.full((side, side, 3), 50, np.uint8)
        image[:4], image[::2, ::2] = 180, np.uint8(50 + noise)
        Image.fromarray(image).save(tmp_path / "images" / f"{k}.png")
        Image.fromarray(np.arange(side)[:, None].repeat(side, 1) < 4).save(tmp_path / "masks" / f"{k}.png")
    engine: Any = Threshold()
    rows = evaluate.evaluate(engine, layouts.samples(tmp_path), closely=True)
    assert [row.empty is None for row in rows] == [False, False, True]
    assert rows[0].empty == pytest.approx(1 / 4, abs=0.02)
    assert rows[1].empty == 0
    assert evaluate.taken_for_objects(rows) == pytest.approx(1 / 8, abs=0.01)
    head, line, *_ = evaluate.table(rows).splitlines()
    assert head.endswith(evaluate.EMPTY)
    assert line.endswith(evaluate.percent(evaluate.taken_for_objects(rows)))
    assert evaluate.taken_for_objects(evaluate.evaluate(engine, layouts.samples(tmp_path))) is None


def test_salient_objects_are_scored_where_probabilities_are_at_hand(data: Path) -> None:
    engine: Any = Threshold()
    rows = evaluate.evaluate(engine, layouts.samples(data), closely=True)
    found = evaluate.salient(rows)
    assert found is not None
    assert (round(found.mae, 6), found.max_f) == (0.1, 1.0)
    assert f"as salient objects are scored: {found}" in card.write(random_model(3), rows, "all")
    assert evaluate.salient([replace(row, curve=None) for row in rows]) is None


def test_the_table_has_one_line_without_groups() -> None:
    rows = [evaluate.Row("a", "", Counts(1, 0, 0)), evaluate.Row("b", "", Counts(0, 3, 0))]
    assert evaluate.table(rows).splitlines()[1].split()[:7] == [
        "all",
        "2",
        "0.5000",
        "0.5000",
        "0.4000",
        "0.2500",
        "1.0000",
    ]


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


class Blind:
    """Finds every pixel of class 1 and none of class 2."""

    class_names = ("background", "pothole", "crack")

    def run(self, images: Sequence[NDArray[np.uint8]], threshold: float | None = None) -> tuple[list[Any], None]:
        return [np.where(image[..., 0] == 1, 1, 0).astype(np.uint8) for image in images], None


def test_a_class_that_is_never_found_stands_in_every_headline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for k in range(4):  # a pothole in each, a crack in the first
        mask = np.zeros((32, 32), np.uint8)
        mask[4:12, 4:12] = 1
        mask[20, :] = 2 if k == 0 else 0
        Image.fromarray(mask).save(tmp_path / "masks" / f"{k}.png")
        Image.fromarray(np.repeat(mask[..., None], 3, 2)).save(tmp_path / "images" / f"{k}.png")
    samples, engine = layouts.samples(tmp_path), Blind()
    said = "never found: crack"
    assert "mIoU" not in evaluate.columns([evaluate.Row("a", "", Counts(1, 0, 0))])
    scored: Any = engine
    rows = evaluate.evaluate(scored, samples, classes=engine.class_names)
    assert evaluate.score(rows).headline == 0.5
    assert said in evaluate.table(rows)
    assert "mIoU" in evaluate.table(rows).splitlines()[0]
    confused = evaluate.confusion_table(rows, engine.class_names)
    assert confused.splitlines()[-1].split() == ["crack", "100.0%", "0.0%", "0.0%"]
    assert evaluate.confusion_table(rows[:0], engine.class_names) == ""
    infos = tuple(ClassInfo(name, (0, 0, 0)) for name in engine.class_names)
    model = replace(random_model(3), classes=infos)
    assert f"**{said}**" in card.write(model, rows, "all")
    assert confused in card.write(model, rows, "all")
    config = Config(str(tmp_path), str(tmp_path / "run"), width=3, samples=2, batch=2, crop=32, device="cpu",
                    validation=0.5, seed=1, classes=engine.class_names)  # fmt: skip
    monkeypatch.setattr(validation, "engine_of", lambda network, config: nullcontext(engine))
    monkeypatch.setattr(trainer, "BATCH_NORM_SAMPLES", 2)
    monkeypatch.setattr(dataset, "split", lambda items, *_: (items[2:], items[:2]))
    run = trainer.Trainer(config, quiet=True)
    found = run.run()
    assert (found.headline, found.never_found) == (0.5, ("crack",))
    assert said in str(found)
    assert run._shown(0.5, 1.0)["never found"] == "crack"
    with run.class_log.open(newline="") as file:
        assert {row["class"]: row["f1"] for row in csv.DictReader(file)} == {"pothole": "1.0", "crack": "0.0"}
    row = {"name": "masked-0", "method": "Masked", **measure.columns(found)}
    assert f"masked-0: {said}" in table.markdown([row])
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: found)
    assert cli.main(["train", str(tmp_path), "-o", str(tmp_path / "again"), "--bits-only", "--width", "3"]) == 0
    assert said in capsys.readouterr().out


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
