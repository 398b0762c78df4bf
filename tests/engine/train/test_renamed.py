"""Runs of earlier versions: their checkpoints resume, export and are scored, their logs are read."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from engine import format
from engine.networks import unet
from engine.train import card, checkpoint, export, figures, log, pretrained
from engine.train.config import PARTS, Config
from engine.train.evaluate import Row
from engine.train.metrics import Counts
from engine.train.renamed import RENAMED, current
from engine.train.trainer import Trainer
from tests.models import random_model

EARLIER = {  # a checkpoint's configuration, field by field as the trainer once wrote it
    "width": 3, "masked": unet.BLOCKS, "weights": (), "classes": (), "floating": False, "crops": 16, "batch": 2,
    "crop": 32, "rate": 0.002, "zeros": 0.9, "zeros_from": 0.5, "zeros_by": "layer", "soften": 0.25, "contrast": "none",
    "resize": 0, "validation": 0.2, "seed": 0, "repeat": 1, "without": ("colour", "norms"), "init": "", "teacher": "",
    "validate_every": 2000, "save_every": 4, "device": "cpu",
}  # fmt: skip
EARLIER_LOG = "step,crops,rate,zeros,loss,crops_per_second,dice,iou,f1\n4,8,0.001,0.5,0.7,21.5,,,\n"


@pytest.fixture
def config(data: Path, tmp_path: Path) -> Config:
    return Config(**current({**EARLIER, "data": str(data), "out": str(tmp_path / "run")}))


def test_every_field_finds_its_name_of_today(config: Config) -> None:
    assert (config.samples, config.learning_rate, config.annealing, config.run_seed) == (16, 0.002, 0.25, 1)
    assert config.ablate == ("color", "batch-norm-re-estimation")
    assert not config.full_precision


def test_a_checkpoint_of_an_earlier_version_resumes_and_exports(config: Config, tmp_path: Path) -> None:
    run = Trainer(config)
    run.step = 4
    run.save()
    state = torch.load(run.checkpoint, weights_only=True)
    state["config"] = {**EARLIER, "data": config.data, "out": config.out}
    torch.save(state, run.checkpoint)
    run.log.write_text(EARLIER_LOG)
    resumed = Trainer(config)
    assert resumed.step == 4
    metrics = resumed.run()
    rows = log.read(resumed.log)
    assert [rows[0]["samples"], rows[0]["learning_rate"], rows[0]["samples_per_second"]] == [8, 0.001, 21.5]
    assert (rows[-1]["samples"], rows[-1]["dice"]) == (16, metrics.dice)
    figures.curves(resumed.log, tmp_path / "curves.png")
    torch.save({**torch.load(run.checkpoint, weights_only=True), "config": state["config"]}, run.checkpoint)
    model = format.load(export.export(run.checkpoint, tmp_path / "earlier.safetensors"))
    assert (model.provenance["samples"], model.provenance["run_seed"]) == (16, 1)


def test_the_card_of_an_earlier_versions_file_uses_the_words_of_today() -> None:
    story = {"crops": 16, "pairs": 12, "soften": 0.4, "without": ["norms"], "scores": {"dice": 0.5}}
    text = card.write(replace(random_model(3), provenance=story), [Row("a", "", Counts(8, 1, 1))], "all")
    assert {"- samples: 16", "- images: 12", "- annealing: 0.4"} <= set(text.splitlines())
    assert "- ablate: batch-norm-re-estimation" in text
    assert "- metrics" not in text


def test_no_name_of_today_is_one_of_an_earlier_version() -> None:
    assert RENAMED.keys().isdisjoint({field.name for field in fields(Config)} | {*PARTS, *log.COLUMNS})


def test_a_teacher_of_an_earlier_version_in_half_floats_is_read(data: Path, tmp_path: Path) -> None:
    run = Trainer(Config(str(data), str(tmp_path / "run"), width=3, batch=2, crop=32, full_precision=True), quiet=True)
    run.save()
    state = checkpoint.read(run.checkpoint)
    earlier = {**EARLIER, "data": str(data), "out": "", "floating": True}
    halves = {name: t.half() if name.endswith("conv1.weight") else t for name, t in state["network"].items()}
    checkpoint.write(tmp_path / "old.pt", {"network": halves, "step": 2, "best": 0.5, "config": earlier})
    found = pretrained.load(str(tmp_path / "old.pt"))
    assert found.config.full_precision
    for name, tensor in found.network().state_dict().items():
        assert tensor.dtype in (torch.float32, torch.int64)
        assert torch.allclose(tensor, state["network"][name], atol=1e-3)
