"""A test part is neither learned from nor chosen by, whatever a run is told: highway RS 386 of the roads above all."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.train import checkpoint, export, split
from engine.train.config import Config
from engine.train.data import dataset, layouts
from engine.train.data.files import DataError
from engine.train.recipe import look
from engine.train.trainer import Trainer
from service import cli

HIGHWAYS = ("RS_290", "RS_290", "DF_010", "DF_010", "RS_386", "RS_386")
NAMES = [f"{1000 + k}_{highway}_{k}RS289112_{k}" for k, highway in enumerate(HIGHWAYS)]
TESTED = set(NAMES[4:])


@pytest.fixture
def roads(tmp_path: Path) -> Path:
    """Two photographs of each of three highways."""
    for k, name in enumerate(NAMES):
        folder = tmp_path / "roads" / "Dataset" / name
        folder.mkdir(parents=True)
        Image.fromarray(np.full((32, 32, 3), 20 * k, np.uint8)).save(folder / f"{name}_RAW.jpg")
        for layer in ("LANE", "CRACK", "POTHOLE"):
            Image.fromarray(np.full((32, 32), 255, np.uint8)).save(folder / f"{name}_{layer}.png")
    return tmp_path / "roads"


@pytest.fixture
def copied(roads: Path, tmp_path: Path) -> Path:
    """The same as images/ and masks/, of which nobody says a part."""
    for part, end in (("images", "RAW.jpg"), ("masks", "LANE.png")):
        (tmp_path / "copied" / part).mkdir(parents=True)
        for name in NAMES:
            with Image.open(roads / "Dataset" / name / f"{name}_{end}") as picture:
                picture.save(tmp_path / "copied" / part / f"{name}.png")
    return tmp_path / "copied"


def tiny(data: Path, out: Path, **more: Any) -> Config:
    return Config(str(data), str(out), width=2, samples=2, batch=2, crop=32, validation=0.5, device="cpu", **more)


def of_run(trainer: Trainer) -> set[str]:
    held = export.validation_samples(trainer.config, dataset.Parts.of(trainer.training, trainer.validation))
    assert [sample.name for sample in held] == [sample.name for sample in trainer.validation]
    return {sample.name for sample in (*trainer.training, *trainer.validation)}


@pytest.mark.parametrize("folder", ["roads", "copied"])
def test_no_flag_brings_a_test_part_into_a_run(folder: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    data = request.getfixturevalue(folder)
    flags: tuple[dict[str, Any], ...] = ({}, {"group": "^([0-9]+)"}, {"group": "[A-Z]{2}_[0-9]+"}, {"seed": 3})
    for k, more in enumerate(flags):
        used = of_run(Trainer(tiny(data, tmp_path / str(k), **more), quiet=True))
        assert used == set(NAMES) - TESTED, more


def test_a_folder_for_validation_brings_none_either(roads: Path, copied: Path, data: Path) -> None:
    found = split.samples(Config(str(data), "", validation=str(copied)))
    assert {sample.name for sample in found if sample.part == dataset.VALIDATION} == set(NAMES) - TESTED
    for name in set(NAMES) - TESTED:
        for part in ("images", "masks"):
            (copied / part / f"{name}.png").unlink()
    with pytest.raises(DataError, match="is a test part: nothing is chosen by it"):
        split.samples(Config(str(roads), "", validation=str(copied)))


def test_a_run_that_kept_another_split_does_not_go_on_with_it(roads: Path, tmp_path: Path) -> None:
    first = Trainer(tiny(roads, tmp_path / "run"), quiet=True)
    first.save()
    state = checkpoint.read(first.checkpoint)
    state["parts"] = {"training": sorted(NAMES[1:]), "validation": [NAMES[0]]}
    checkpoint.write(first.checkpoint, state)
    assert of_run(Trainer(tiny(roads, tmp_path / "run"), quiet=True)) == set(NAMES) - TESTED
    parts = dataset.Parts(frozenset(NAMES[:4]), frozenset(NAMES[4:]))
    with pytest.raises(DataError, match="too few samples"):
        Trainer(tiny(roads, tmp_path / "other"), quiet=True, parts=parts)


def test_an_index_that_gives_them_to_training_is_refused(copied: Path) -> None:
    for part in ("training", "validation"):
        with (copied / "index.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("name", "part"), (NAMES[4], part)])
        with pytest.raises(DataError, match=rf"{NAMES[4]}.*is of a test part, so it cannot be for {part}"):
            layouts.samples(copied)


def test_no_setting_follows_from_them(roads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert look.look({"data": str(roads), "classes": layouts.recognize(roads).classes}).samples == 4
    cli.main(["data", "check", str(roads)])
    assert "in 4 of 4 samples" in capsys.readouterr().out


def test_a_folder_that_is_all_test_is_refused(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in set(NAMES) - TESTED:
        for part in ("images", "masks"):
            (copied / part / f"{name}.png").unlink()
    for more in ([], ["--bits-only"]):
        assert cli.main(["train", str(copied), "-o", str(tmp_path / "run"), *more]) != 0
        assert "is a test part: nothing is learned from it" in capsys.readouterr().err


def test_of_a_test_part_alone_check_says_what_scores_on_it(roads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in set(NAMES) - TESTED:
        shutil.rmtree(roads / "Dataset" / name)
    cli.main(["data", "check", str(roads)])
    out = capsys.readouterr().out
    assert f"next: mbunet eval MODEL {roads} --part test\n" in out
    assert "too few samples" not in out
