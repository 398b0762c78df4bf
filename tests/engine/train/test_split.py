"""A run's samples by their folder: those of another one are held, the data set's own test part is left alone."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.train import split
from engine.train.config import Config
from engine.train.data import dataset, layouts
from engine.train.data.check import check
from engine.train.data.dataset import Parts
from engine.train.data.files import DataError
from engine.train.trainer import Trainer
from tests.engine.train.test_trainer import tiny


def test_images_that_both_folders_have_are_told(data: Path, tmp_path: Path) -> None:
    held = tmp_path / "held"
    for part in ("images", "masks"):
        (held / part).mkdir(parents=True)
        shutil.copy(data / part / "disc00.png", held / part / "copy.png")
    config = Config(str(data), "", validation=str(held))
    found = layouts.recognize(data)
    everything = split.with_held(found.samples, config, config.selection)
    told = [fault.what for fault in check(replace(found, samples=everything), 0, config.share, 0)]
    assert told == ["is held for validation, and equal to disc00.png on the other side"]


def test_a_test_part_stays_one_where_validation_has_its_own_folder(data: Path, tmp_path: Path) -> None:
    (data / "index.csv").write_text("name,part\ndisc00,test\ndisc01,validation\n")
    held = tmp_path / "held"
    shutil.copytree(data, held)
    parts = {sample.name: sample.part for sample in split.samples(Config(str(data), "", validation=str(held)))}
    assert (parts["disc00"], parts["disc02"], parts["validation/disc02"]) == ("test", "training", "validation")
    assert "disc01" not in parts


def test_a_split_that_is_not_kept_by_name_is_drawn_again_as_it_was(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = layouts.samples(data)
    drawn = Parts.of(*dataset.split(dataset.grouped(everything, "disc(.)"), 0.5, 3))
    story = {"images": 12, "split": {"validation": 0.5, "seed": 3}, "group": "disc(.)"}
    monkeypatch.setattr(dataset, "MOST_TOLD", 4)
    for told in ({}, {"parts": drawn.tell()}):
        assert split.kept(story | told, everything) == drawn
    other = Parts.of(*reversed(dataset.split(everything, 0.5, 1)))
    unlike: tuple[dict[str, Any], ...] = ({"images": 13}, {"split": {"validation": "held", "seed": 0}}, {"split": {}})
    for changed in (*unlike, {"parts": other.tell()}):
        with pytest.raises(DataError, match="it is not known which of these 12 samples the model was trained on"):
            split.kept(story | changed, everything)


def test_a_folders_own_validation_part_needs_no_seed(data: Path) -> None:
    (data / "index.csv").write_text("name,part\ndisc01,validation\n")
    assert split.kept({}, layouts.samples(data)).validation == {"disc01"}


def test_a_run_warns_of_groups_of_which_one_is_nearly_everything(data: Path, tmp_path: Path) -> None:
    """Of twelve images one is alone in its group."""
    units = "".join(f"disc{k:02},{'others' if k else 'alone'}\n" for k in range(12))
    (data / "index.csv").write_text("name,unit\n" + units)
    run = Trainer(tiny(data, tmp_path / "run"), quiet=True)
    assert len(run.warnings) == 1
    assert re.match(r"(1|11) of 12 samples are held, not 20%, as 2 groups of unequal sizes", run.warnings[0])
