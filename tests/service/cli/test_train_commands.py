"""The commands around training: choosing blocks, scores, model cards."""

from __future__ import annotations

import argparse
import re
import shutil
import signal
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import format
from engine.networks import unet
from engine.runtime import resolve
from engine.train import threads
from engine.train.config import GROUPS, Config
from engine.train.data import layouts
from engine.train.export import restore
from engine.train.metrics import Metrics
from engine.train.network_engine import NetworkEngine
from engine.train.recipe import finish, record
from engine.train.trainer import Trainer
from service import cli
from service.cli import flags
from tests.pictures import tiff_of

torch.set_num_threads(1)  # the networks are tiny


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "choose", lambda: 1)


NUCLEI = Path(__file__).parents[2] / "data" / "nuclei"


@pytest.mark.parametrize(("part", "next_"), [("--full-precision", "train"), ("--bits-only", "export")])
def test_what_follows_one_part_is_quoted(
    part: str, next_: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "run", lambda self: "scores")
    monkeypatch.setattr(finish, "best", lambda folders, say: folders[0] / "best.pt")
    out = tmp_path / "my run"
    assert cli.main(["train", str(NUCLEI), "-o", str(out), part, "--width", "3"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"next: mbunet {next_} ")
    assert f"'{out / 'best.pt'}'" in said


def test_the_curve_of_thresholds_is_drawn_beside_the_scores(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", "nuclei-small", str(NUCLEI), "--threads", "1", "--thresholds"]) == 0
    out = capsys.readouterr().out
    mean = re.search(r"^all +4 +([\d.]+)", out, re.MULTILINE)
    assert mean
    assert re.search(rf"^0\.50  {mean[1]}", out, re.MULTILINE)
    assert out.count("  <\n") == 1


def test_eval_goes_on_past_what_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(NUCLEI, tmp_path / "nuclei")
    broken = min((folder / "images").iterdir())
    broken.write_bytes(b"no image")
    own = ["--validation", ".2", "--seed", "0"]
    for part, scored, split in (("all", 3, []), ("training", 2, own)):
        assert cli.main(["eval", "nuclei-small", str(folder), "--threads", "1", "--part", part, *split]) == 1
        captured = capsys.readouterr()
        assert f"mbunet: {broken}: these 8 bytes are no image" in captured.err
        assert re.search(f"all +{scored} ", captured.out)
        assert "1 images could not be scored" in captured.out


def test_eval_draws_no_split_that_the_model_does_not_tell_of(capsys: pytest.CaptureFixture[str]) -> None:
    old = str(NUCLEI.parent / "format-1" / "model.safetensors")
    command = ["eval", old, str(NUCLEI), "--threads", "1", "--part", "validation"]
    for more, said in (([], "it is not known which of these 4 samples"), (["--seed", "0"], "takes both --validation")):
        assert cli.main([*command, *more]) == 1
        assert said in capsys.readouterr().err
    assert cli.main([*command, "--seed", "0", "--validation", ".5"]) == 0
    assert re.search(r"^all +2 ", capsys.readouterr().out, re.MULTILINE)


@pytest.fixture
def channels(tmp_path: Path) -> Path:
    """A folder of OME-TIFF files whose nuclei are in the second of two channels."""
    folder = shutil.copytree(NUCLEI, tmp_path / "channels")
    for file in sorted((folder / "images").iterdir()):
        with Image.open(file) as image:
            grey = np.asarray(image.convert("L"))
        file.with_suffix(".ome.tif").write_bytes(
            tiff_of(np.stack([255 - grey // 9, grey]), ome=True, metadata={"axes": "CYX"})
        )
        file.unlink()
    for file in (folder / "masks").iterdir():
        file.rename(file.with_suffix(".ome.png"))
    return folder


def test_a_model_that_names_a_channel_is_scored_on_it(
    channels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = format.load(resolve("nuclei-small"))
    path = tmp_path / "second.safetensors"
    format.save(replace(model, preprocessing=replace(model.preprocessing, channel="1")), path)

    def scored(*arguments: str) -> list[str]:
        assert cli.main(["eval", *arguments, "--threads", "1"]) == 0
        return capsys.readouterr().out.splitlines()

    named = scored(str(path), str(channels))
    assert named == scored("nuclei-small", str(channels), "--channel", "1")
    assert named != scored(str(path), str(channels), "--channel", "0")


@pytest.mark.parametrize(
    ("flags", "masked"),
    [
        (["--masked", "2"], ("CT3", "CT4")),
        (["--masked", "2", "--cost-model", "cpu"], ("Down3", "Down4")),
        (["--masked", "1", "--w-op", "0", "--w-param", "1", "--cost-model", "cpu"], ("Down4",)),
        (["--masked", "none"], ()),
        (["--masked", "Up2", "Down1"], ("Down1", "Up2")),
        ([], unet.BLOCKS),
    ],
)
def test_train_masks_the_blocks_that_were_asked_for(
    flags: list[str], masked: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Config] = []

    def remember(self: Trainer) -> Metrics:
        seen.append(self.config)
        return Metrics(1, 0.5, 0.5, 0.5)

    monkeypatch.setattr(Trainer, "run", remember)
    assert cli.main(["train", str(NUCLEI), "--out", str(tmp_path), "--bits-only", "--width", "4", *flags]) == 0
    assert seen[0].masked == masked


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["train", "DATA", "-o", "OUT", "--crops", "8"], "--crops is now called --samples"),
        (["train", "DATA", "-o", "OUT", "--without", "dice", "colour"], "--without is now called --ablate"),
        (["train", "DATA", "-o", "OUT", "--floating"], "--floating is now called --full-precision"),
        (["sweep", "DATA", "-o", "OUT", "--start-crops", "8"], "--start-crops is now called --start-samples"),
        (["table", "DATA", "-o", "OUT", "--crops", "8"], "--crops is now called --samples"),
        (["eval", "MODEL", "DATA", "--share", "0.2"], "--share is now called --validation"),
        (["serve", "--queue-pixels", "9"], "--queue-pixels is gone: MBUNET_MEMORY_BYTES bounds what requests hold"),
    ],
)
def test_a_renamed_flag_answers_what_it_is_called_now(
    arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    assert error.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {answer}\n")


def test_a_model_file_is_named_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "best.pt", str(tmp_path / "x.txt")]) == 1
    assert "x.txt: a model file's name ends in .safetensors" in capsys.readouterr().err


def test_export_refuses_what_is_of_one_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    several = Config("DATA", "OUT", classes=("background", "road"))
    monkeypatch.setattr("engine.train.export.config_of", lambda checkpoint: several)
    out = tmp_path / "m.safetensors"
    assert cli.main(["export", "best.pt", str(out), "--threshold", ".4", "--class-name", "road"]) == 1
    assert "best.pt has several classes and takes no --class-name, --threshold" in capsys.readouterr().err


def test_one_class_is_not_named_beside_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--class-name", "nucleus", "--classes", "background", "nucleus"]
    assert cli.main(["train", str(NUCLEI), "-o", str(tmp_path / "run"), *named]) == 1
    assert "--class-name is for masks of one class" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["--bits-only", "--full-precision"])
def test_a_folder_of_a_recipe_is_not_mistaken_for_one_part(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / record.FILE).touch()
    assert cli.main(["train", str(NUCLEI), "-o", str(tmp_path), part]) == 1
    assert "holds a whole recipe: go on without" in capsys.readouterr().err
    assert not (tmp_path / "checkpoint.pt").exists()


def test_every_setting_of_a_training_run_is_a_flag() -> None:
    given = ["--masked", "Up1", "CT1", "--full-precision", "--learning-rate", "2e-3", "--resize", "64"]
    settings = flags.training_of(cli.parser().parse_args(["train", "DATA", "-o", "OUT", *given]))
    assert settings == {
        **{"data": "DATA", "out": "OUT", "masked": ("Up1", "CT1"), "full_precision": True},
        **{"learning_rate": 0.002, "resize": 64},
    }
    command = argparse.ArgumentParser()
    flags.add_training_by_group(command)
    shown = {action.dest for action in command._actions if action.help != argparse.SUPPRESS}
    assert shown - {"help"} == {field.name for field in fields(Config)} - {"data", "out"}


@pytest.mark.parametrize("command", [["train"], ["eval"], ["data"], ["table"], ["sweep"]])
def test_help_names_every_layout_of_a_data_folder(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    text = "".join(capsys.readouterr().out.split())  # a name may be wrapped at its hyphen
    for layout in layouts.LAYOUTS[1:]:
        assert layout.name.replace(" ", "") in text


@pytest.mark.parametrize("command", ["eval", "segment"])
def test_help_says_where_a_checkpoint_is_taken(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert "model file, checkpoint, or the name of a shipped model" in " ".join(capsys.readouterr().out.split())


def test_help_shows_settings_in_groups_with_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert [group for group in GROUPS if f" {group}: {GROUPS[group].split()[0]}" in text] == list(GROUPS)
    assert all(
        f"(default: {field.metadata['default']})" in text for field in fields(Config) if field.metadata.get("default")
    )
    default = Config("DATA", "OUT")
    silent = {field.name for field in fields(Config) if "group" in field.metadata and not field.metadata["default"]}
    assert silent - {"channel", "page"} == {name for name in vars(default) if getattr(default, name) is False}


def test_ctrl_c_asks_a_run_to_stop_and_the_command_says_where_it_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_step = Trainer._train_step

    def pressed(self: Trainer, *batch: Any) -> Any:
        if self.step == 1:
            signal.raise_signal(signal.SIGINT)
        return train_step(self, *batch)

    monkeypatch.setattr(Trainer, "_train_step", pressed)
    before = signal.getsignal(signal.SIGINT)
    size = [
        "--bits-only",
        "--width",
        "3",
        "--crop",
        "32",
        "--batch",
        "1",
        "--samples",
        "32",
        "--device",
        "cpu",
        "--channel",
        "1",
    ]
    assert cli.main(["train", str(NUCLEI), "--out", str(tmp_path), *size]) == 130
    assert f"stopped at step 16 of 32, saved in {tmp_path}/checkpoint.pt" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    assert cli.main(["eval", str(tmp_path / "checkpoint.pt"), str(NUCLEI), "--card", str(tmp_path / "card.md")]) == 0
    assert (tmp_path / "card.md").read_text(encoding="utf-8").startswith("# checkpoint\n")
    model = tmp_path / "early.safetensors"
    assert cli.main(["export", str(tmp_path / "checkpoint.pt"), str(model), "--threshold", "0.3"]) == 0
    assert format.load(model).threshold == 0.3
    assert (format.load(model).preprocessing.channel, format.load(model).preprocessing.page) == ("1", "")
    masks = [_segmented(named, tmp_path / named.stem) for named in (model, tmp_path / "checkpoint.pt")]
    assert masks[0] == masks[1] != []
    chosen = ["--channel", "max", "--page", "0"]
    assert cli.main(["export", str(tmp_path / "checkpoint.pt"), str(model), *chosen]) == 0
    assert (format.load(model).preprocessing.channel, format.load(model).preprocessing.page) == ("max", "0")
    assert cli.main(["info", str(tmp_path / "checkpoint.pt")]) == 1
    assert "checkpoint.pt is a checkpoint: mbunet export" in capsys.readouterr().err


def _segmented(model: Path, out: Path) -> list[bytes]:
    how = ["--model", str(model), "--threads", "1", "--threshold", "0.5"]
    assert cli.main(["segment", str(NUCLEI / "images"), "-o", str(out), *how]) == 0
    return [path.read_bytes() for path in sorted(out.iterdir())]


def test_full_precision_segments_and_is_scored_with_pictures_but_not_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Trainer(Config(str(NUCLEI), str(tmp_path), full_precision=True, width=3, device="cpu", class_name="nucleus"))
    run.save()
    checkpoint, out = str(run.checkpoint), tmp_path / "out"
    more = ["--overlay", "--table", str(tmp_path / "objects.csv"), "--threshold", "0.4"]
    assert cli.main(["segment", str(NUCLEI / "images"), "-o", str(out), "--model", checkpoint, *more]) == 0
    network = NetworkEngine(*restore(checkpoint)[:2])
    for sample in layouts.samples(NUCLEI):
        ((expected,), _) = network.run([sample.load()[0]], 0.4)
        with Image.open(out / f"{sample.name}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask) != 0, expected)
        assert (out / f"{sample.name}.overlay.png").is_file()
    assert "nucleus" in (tmp_path / "objects.csv").read_text()
    pictures = tmp_path / "pictures"
    assert cli.main(["eval", checkpoint, str(NUCLEI), "--pictures", str(pictures)]) == 0
    assert "as salient objects are scored: MAE 0." in capsys.readouterr().out
    with Image.open(sorted(pictures.iterdir())[0]) as picture:
        assert picture.size in {(2 * width + 8, height) for width, height in ((256, 256), (320, 256))}
    assert cli.main(["eval", checkpoint, str(NUCLEI), "--card", str(tmp_path / "card.md")]) == 1
    assert "mbunet eval scores it without a card" in capsys.readouterr().err


def test_a_checkpoint_of_bits_is_scored_by_kernels_wherever_its_data_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(NUCLEI, tmp_path / "data")
    run = Trainer(Config(str(data), str(tmp_path / "a,b"), width=3, device="cpu"), quiet=True)
    run.save()
    shutil.rmtree(data)
    command = ["eval", str(run.checkpoint), str(NUCLEI)]
    assert cli.main(command) == 0
    assert cli.main([*command, "--kernel", "bogus"]) == 1
    assert "no kernel 'bogus'" in capsys.readouterr().err


def test_a_model_card_is_written_beside_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = tmp_path / "card.md"
    assert cli.main(["eval", "nuclei-small", str(NUCLEI), "--otsu", "--card", str(card)]) == 0
    text = card.read_text(encoding="utf-8")
    assert text.startswith("# nuclei-small")
    assert "## Limits" in text
    assert "expected calibration error of the probabilities: 0." in capsys.readouterr().out
