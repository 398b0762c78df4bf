"""Other runs' networks: teachers of any width and family, weights to begin with, and what is said where they misfit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.train import checkpoint, pretrained, split, trainer
from engine.train.checkpoint import CheckpointError
from engine.train.config import Config
from engine.train.pretrained import MismatchError
from engine.train.trainer import Trainer


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "BATCH_NORM_SAMPLES", 2)


def tiny(data: Path, out: Path, **changes: Any) -> Config:
    return dataclasses.replace(
        Config(str(data), str(out), width=3, samples=4, batch=2, crop=32, device="cpu"), **changes
    )


def saved(config: Config) -> str:
    run = Trainer(config, quiet=True)
    run.save()
    return str(run.checkpoint)


@pytest.mark.parametrize(
    "other", [{"width": 5}, {"family": "bfcn", "width": 4}, {"activation_bits": 2}], ids=["width", "family", "bits"]
)
def test_a_teacher_may_be_of_another_width_and_family(other: dict[str, Any], data: Path, tmp_path: Path) -> None:
    path = saved(tiny(data, tmp_path / "teacher", full_precision=True, **other))
    alone, taught = (
        Trainer(tiny(data, tmp_path / name, teacher=t), quiet=True) for name, t in (("a", ""), ("b", path))
    )
    assert taught._train.teacher is not None
    assert taught._train.teacher.full_precision
    assert not taught._train.teacher.training
    for run in (alone, taught):
        run.fit()
    other_weights = zip(alone.network.parameters(), taught.network.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in other_weights)


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        ({}, {}, "a network of bits; a teacher is trained with --full-precision"),
        ({"full_precision": True, "contrast": "stretch"}, {}, "prepared otherwise; give --contrast stretch"),
        ({"full_precision": True, "channel": "1"}, {}, "prepared otherwise; give --channel 1"),
        ({"full_precision": True, "classes": ("a", "b", "c")}, {}, "knows the classes a, b, c, this run one class"),
    ],
    ids=["bits", "contrast", "channel", "classes"],
)
def test_what_cannot_teach_is_refused(
    theirs: dict[str, Any], ours: dict[str, Any], said: str, data: Path, tmp_path: Path
) -> None:
    path = saved(tiny(data, tmp_path / "teacher", **theirs))
    with pytest.raises(MismatchError, match=said):
        Trainer(tiny(data, tmp_path / "student", teacher=path, **ours), quiet=True)


def test_weights_of_another_shape_are_refused_with_what_would_help(data: Path, tmp_path: Path) -> None:
    path = saved(tiny(data, tmp_path / "first", width=4))
    with pytest.raises(MismatchError, match=r"has --width 4, this run --width 3, .* give --width 4, or .* --teacher"):
        Trainer(tiny(data, tmp_path / "second", init=path), quiet=True)
    with pytest.raises(MismatchError, match="has --family mbu-net, this run --family bfcn"):
        Trainer(tiny(data, tmp_path / "second", init=path, width=4, family="bfcn"), quiet=True)


def test_of_other_classes_all_but_the_head_is_taken(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tiny(data, tmp_path / "first"))
    run = Trainer(tiny(data, tmp_path / "second", init=path, classes=("a", "b", "c")))
    assert "the head begins anew" in capsys.readouterr().out
    theirs = checkpoint.read(path)["network"]
    own = run.network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in theirs.items() if not name.startswith("stages.head"))


def test_who_was_trained_on_this_runs_validation_images_is_noticed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tiny(data, tmp_path / "teacher", full_precision=True))
    Trainer(tiny(data, tmp_path / "same", teacher=path, init=path))
    assert "warning" not in capsys.readouterr().out
    with_group = pretrained.load(saved(tiny(data, tmp_path / "my teacher", group="(disc.)")))
    everything = split.samples(with_group.config)
    said = pretrained.flattered(with_group, [sample.name for sample in everything], everything, "")
    assert said.endswith("its split is --seed 0 --validation 0.2 --group '(disc.)'")
    other = tiny(data, tmp_path / "other", seed=1, teacher=path)
    held = Trainer(other, quiet=True).validation
    seen = set(checkpoint.read(path)["parts"]["training"]) & {sample.name for sample in held}
    assert seen
    Trainer(other)
    said = capsys.readouterr().out
    assert f"was trained on {len(seen)} of the {len(held)} validation images" in said
    assert "its split is --seed 0 --validation 0.2" in said
    state = checkpoint.read(path)
    del state["parts"]  # as earlier versions: by the seed, on a folder of that name
    checkpoint.write(Path(path), state)
    Trainer(other)
    assert f"was trained on {len(seen)} of" in capsys.readouterr().out


def test_checkpoints_of_another_version_or_of_other_weights_are_named(data: Path, tmp_path: Path) -> None:
    run = Trainer(tiny(data, tmp_path / "run"), quiet=True)
    run.save()
    state = checkpoint.read(run.checkpoint)
    foreign = tmp_path / "foreign.pt"
    for changed, said in (
        ({"config": state["config"] | {"sharpness": 3}}, "another version: this one has no setting sharpness"),
        ({"config": state["config"] | {"width": 5}}, "the weights in .*foreign.pt are not those of its network"),
    ):
        checkpoint.write(foreign, state | changed)
        with pytest.raises(CheckpointError, match=said):
            pretrained.load(str(foreign)).network()
