"""A whole training run on a tiny folder: pictures, log, resuming to the bit, export with its proof."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from engine import format, preprocess, selftest
from engine.backends import reference
from engine.model import ModelFileError
from engine.runtime import Engine
from engine.train import checkpoint, evaluate, export, log, looks, network_engine, split, trainer, validation
from engine.train.checkpoint import CheckpointError
from engine.train.config import Config
from engine.train.data import layouts
from engine.train.data.dataset import Parts
from engine.train.data.files import DataError
from engine.train.network_engine import NetworkEngine
from engine.train.resume import ResumeError
from engine.train.trainer import DivergedError, Interrupted, Trainer
from service.app import create_app
from service.settings import Settings
from tests.files import largest_file
from tests.service.fakes import serving


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "BATCH_NORM_SAMPLES", 4)
    monkeypatch.setattr(trainer, "LOG_EVERY", 2)


def tiny(data: Path, out: Path, **changes: Any) -> Config:
    config = Config(str(data), str(out), width=3, samples=16, batch=2, crop=32, save_every=4, device="cpu")
    return dataclasses.replace(config, **changes)


def weights(run: Trainer) -> dict[str, Tensor]:
    return dict(run.network.state_dict())


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train_step = Trainer._train_step

    def failing(self: Trainer, pixels: Tensor, labels: Tensor) -> Tensor:
        if self.step == step:
            raise KeyboardInterrupt
        return train_step(self, pixels, labels)

    monkeypatch.setattr(Trainer, "_train_step", failing)


@pytest.mark.parametrize("validate_every", [100, 4], ids=["saved", "validated"])
def test_an_interrupted_run_ends_with_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validate_every: int
) -> None:
    whole = Trainer(tiny(data, tmp_path / "whole", validate_every=validate_every))
    metrics = whole.run()
    config = tiny(data, tmp_path / "parts", validate_every=validate_every)
    with monkeypatch.context() as patch:
        interrupt_at(7, patch)
        with pytest.raises(KeyboardInterrupt):
            Trainer(config).run()
    resumed = Trainer(config)
    assert resumed.step == 4
    assert resumed.run() == metrics
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    rows = [[{**row, "samples_per_second": 0} for row in log.read(run.log)] for run in (whole, resumed)]
    assert rows[0] == rows[1]


def test_processes_that_make_batches_change_nothing_and_neither_does_another_number_of_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainer(tiny(data, tmp_path / "whole"), quiet=True)
    whole.run()
    with monkeypatch.context() as patch:
        interrupt_at(7, patch)
        with pytest.raises(KeyboardInterrupt):
            Trainer(tiny(data, tmp_path / "parts", workers=1), quiet=True).run()
    resumed = Trainer(tiny(data, tmp_path / "parts", workers=4), quiet=True)
    assert resumed.step == 4
    resumed.run()
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(whole).items())


def test_a_run_that_is_asked_to_stop_says_where_and_goes_on_with_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "REFRESH_EVERY", 3)
    whole = Trainer(tiny(data, tmp_path / "whole", save_every=100))
    whole.run()
    stopped = Trainer(tiny(data, tmp_path / "parts", save_every=100))
    stopped.stop()
    with pytest.raises(Interrupted, match=rf"step 3 of 8, saved in {stopped.checkpoint}"):
        stopped.run()
    resumed = Trainer(tiny(data, tmp_path / "parts", save_every=100))
    assert resumed.step == 3
    resumed.run()
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(whole).items())
    losses = [[row.get("loss") for row in log.read(run.log)] for run in (whole, resumed)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("length", [0, 5, 300])
def test_a_checkpoint_that_was_cut_short_is_named(length: int, data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "out")
    run = Trainer(config)
    run.save()
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:length])
    for read in (lambda: Trainer(config), lambda: export.restore(run.checkpoint)):
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt is no whole checkpoint"):
            read()
    torch.save({"weights": 1}, run.checkpoint)
    with pytest.raises(CheckpointError, match="no checkpoint of a training run"):
        Trainer(config)


@pytest.mark.parametrize("cut", [0, 3, 60, -2])
def test_a_log_that_was_cut_short_resumes(cut: int, data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "out")
    Trainer(config).run()
    run = Trainer(config)
    run.step = 2
    run.save()
    text = run.log.read_text()
    run.log.write_text(text[:cut])
    log.read(run.log)
    resumed = Trainer(config)
    resumed.run()
    assert [row["step"] for row in log.read(run.log)][-4:] == [4, 6, 8, 8]


def test_a_finished_run_that_is_started_again_changes_nothing(data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "out")
    first = Trainer(config)
    metrics = first.run()
    again = Trainer(config)
    assert (again.step, again.run()) == (8, metrics)
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(first).items())


def test_a_run_that_has_ended_goes_on_where_it_is_given_more(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(data, tmp_path / "out")
    Trainer(config).run()
    more = Trainer(dataclasses.replace(config, samples=config.samples + 2 * config.batch))
    assert (more.step, more.finished, more.scored) == (8, False, False)
    assert "has ended; there is more to see now, so it goes on from step 8" in capsys.readouterr().out
    more.run()
    assert (more.step, more.finished, more.scored) == (10, True, True)
    with pytest.raises(ResumeError, match=r"samples \(\d+ there, \d+ here\)"):
        Trainer(config)


def test_a_run_by_the_clock_that_has_ended_goes_on_where_it_is_given_more(data: Path, tmp_path: Path) -> None:
    seconds = itertools.count(step=2)
    config = dataclasses.replace(tiny(data, tmp_path / "out"), minutes=0.2)
    first = Trainer(config, clock=lambda: next(seconds))
    first.run()
    more = Trainer(dataclasses.replace(config, minutes=0.4), clock=lambda: next(seconds))
    assert not more.finished
    assert more.progress == pytest.approx(first.pace.spent / 24)
    more.run()
    assert more.step > first.step
    assert more.finished


def test_another_run_in_the_same_folder_is_refused_by_field(data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "out")
    Trainer(config).save()
    with pytest.raises(ResumeError, match=r"learning_rate \(0.001 there, 0.01 here\), zeros \(0.9 there, 0.5 here\)"):
        Trainer(dataclasses.replace(config, learning_rate=0.01, zeros=0.5))


def grow(data: Path, name: str) -> None:
    for part in ("images", "masks"):
        shutil.copy(data / part / "disc00.png", data / part / f"{name}.png")


def test_what_comes_to_the_folder_joins_training_and_every_command_keeps_the_split(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(data, tmp_path / "out")
    first = Trainer(config)
    first.save()
    held = [sample.name for sample in first.validation]
    for k in range(8):  # enough to change a split by the seed alone
        grow(data, f"a{k}")
    assert [s.name for s in Trainer(tiny(data, tmp_path / "anew")).validation] != held
    capsys.readouterr()
    resumed = Trainer(config)
    assert "has grown: 8 new samples join training" in capsys.readouterr().out
    assert [sample.name for sample in resumed.validation] == held
    assert len(resumed.training) == len(first.training) + 8
    parts = export.parts_of(first.checkpoint)
    assert [sample.name for sample in export.validation_samples(config, parts)] == held
    model = format.load(export.export(first.checkpoint, tmp_path / "discs.safetensors"))
    assert model.provenance["parts"]["validation"] == len(held)
    told = Parts.told(model.provenance["parts"])
    failures: list[Exception] = []
    chosen = evaluate.select(layouts.samples(data), "validation", 0.2, 0, failures.append, told)
    assert [sample.name for sample in chosen] == held
    with pytest.raises(DataError, match="none of these 8 samples was in the validation part"):
        evaluate.select(layouts.samples(data)[:8], "validation", 0.2, 0, failures.append, told)


def test_what_is_marked_for_validation_is_not_learned_from_when_a_run_goes_on(data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "out")
    first = Trainer(config, quiet=True)
    first.save()
    grow(data, "new")
    (data / "index.csv").write_text("name,part\nnew,validation\n")
    again = Trainer(config, quiet=True)
    assert len(again.training) == len(first.training)
    assert {sample.name for sample in again.validation} == {*(s.name for s in first.validation), "new"}
    learned = first.training[0].name
    (data / "index.csv").write_text(f"name,part\n{learned},validation\n")
    with pytest.raises(ResumeError, match=rf"has learned from 1 samples that are for validation now \({learned}\)"):
        Trainer(config, quiet=True)


def test_a_run_on_another_split_is_not_resumed(data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "out")
    run = Trainer(config)
    run.save()
    with pytest.raises(ResumeError, match=r"group \('' there, 'disc.' here\)"):
        Trainer(dataclasses.replace(config, group="disc."))
    gone = run.validation[0]
    gone.image.unlink()
    gone.mask.unlink()
    with pytest.raises(ResumeError, match=rf"is of another split: 1 of its samples are not in .* \({gone.name}\)"):
        Trainer(config)


def test_a_checkpoint_moves_with_its_folder(data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "out")
    Trainer(config).save()
    (tmp_path / "out").rename(tmp_path / "moved")
    Trainer(dataclasses.replace(config, out=str(tmp_path / "moved")))


def test_a_run_leaves_log_and_pictures_and_learns(data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "out", width=4, samples=160, learning_rate=0.01, zeros=0.5)
    metrics = Trainer(config).run()
    rows = log.read(tmp_path / "out" / "log.csv")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert rows[-1]["dice"] == metrics.dice
    assert [rows[-1]["samples"], rows[-1]["zeros"]] == [160, 0.5]
    for picture in ("curves.png", "examples.png"):
        with Image.open(tmp_path / "out" / picture) as file:
            assert min(file.size) > 300


def test_a_teacher_and_initial_weights_are_taken(data: Path, tmp_path: Path) -> None:
    teacher = Trainer(tiny(data, tmp_path / "teacher", full_precision=True, samples=4))
    teacher.run()
    path = str(teacher.checkpoint)
    student = Trainer(tiny(data, tmp_path / "student", samples=4, init=path, teacher=path))
    assert all(torch.equal(tensor, weights(student)[name]) for name, tensor in weights(teacher).items())
    assert student.run().images == len(student.validation)


def test_the_exported_file_segments_like_the_trained_network(data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "out", contrast="stretch", samples=40, learning_rate=0.01)
    run = Trainer(config)
    run.run()
    path = export.export(run.checkpoint, tmp_path / "discs.safetensors", class_name="disc", metrics={"dice": 0.5})
    model = format.load(path)
    for sample in run.validation:
        image, _ = sample.load()
        logits = reference.run(model, preprocess.pad(preprocess.stretch(image), model.padded(*image.shape[:2]))).logits
        logits = logits[: image.shape[0], : image.shape[1]]
        np.testing.assert_array_equal(reference.decide(logits, 0), network_engine.predict(run.network, image, config))


def test_the_exported_file_tells_where_it_comes_from_but_no_paths(data: Path, tmp_path: Path) -> None:
    run = Trainer(tiny(data, tmp_path / "out"))
    metrics = run.run()
    model = format.load(export.export(run.checkpoint, tmp_path / "discs.safetensors"))
    assert (model.name, model.preprocessing.contrast, model.classes[0].name) == ("discs", "none", "foreground")
    story = model.provenance
    assert (story["data"], story["images"], story["samples"], story["width"]) == ("discs", 12, 16, 3)
    assert story["split"] == {"validation": 0.2, "seed": 0}
    assert story["zeros"] == pytest.approx(0.9, abs=0.02)
    assert story["metrics"] == {name: round(getattr(metrics, name), 4) for name in ("dice", "iou", "f1")}
    assert str(tmp_path) not in json.dumps(story)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["discs", "discs.safetensors", "out"]


def test_export_derives_the_zeros_from_the_step_and_needs_no_data(data: Path, tmp_path: Path) -> None:
    run = Trainer(tiny(data, tmp_path / "out"))
    run.step = 2
    run.save()
    data.rename(tmp_path / "elsewhere")
    network, config, step = export.restore(run.checkpoint)
    assert step == 2
    assert config.zeros_at(step / config.steps) == pytest.approx(0.9 - 0.4 / 8)
    for name, stage in run.network.bit_convolutions().items():
        np.testing.assert_array_equal(
            stage.quantized_params().weights, network.bit_convolutions()[name].quantized_params().weights
        )
    export.export(run.checkpoint, tmp_path / "early.safetensors")


def test_a_failed_proof_leaves_no_file(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trainer(tiny(data, tmp_path / "out"))
    run.save()
    monkeypatch.setattr(preprocess, "pad", lambda image, size: np.zeros((16, 16, 3), np.uint8))
    monkeypatch.setitem(reference.OPERATIONS, "pool", lambda model, layer, read: ~read[0][::2, ::2])
    with pytest.raises(export.ExportError, match=r"down1\.pool"):
        export.export(run.checkpoint, tmp_path / "wrong.safetensors")
    assert not list(tmp_path.glob("wrong*"))


def test_two_samples_are_enough_to_train_and_validate_but_one_is_not(data: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in (data / "images").iterdir())
    for part in ("images", "masks"):
        for name in names[2:]:
            (data / part / name).unlink()
    run = Trainer(tiny(data, tmp_path / "two"))
    assert (len(run.training), len(run.validation)) == (1, 1)
    for part in ("images", "masks"):
        (data / part / names[1]).unlink()
    with pytest.raises(DataError, match=r"too few samples .* \(1\) .* \(0\): at least two are needed, one for each"):
        Trainer(tiny(data, tmp_path / "one"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": 40},
        {"resize": 40},
        {"resize": 8208},
        {"batch": 32},
        {"zeros": 1.0},
        {"validation": 0.0},
        {"ablate": ("masks",)},
        {"group": "("},
        {"contrast": "strech"},
        {"width": 0},
        {"validate_every": 0},
        {"save_every": 0},
        {"minutes": float("nan")},
        {"learning_rate": -1.0},
        {"early_stopping": -1},
        {"workers": -2},
        {"seed": -1},
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not|no batch|no part|no regular"):
        tiny(Path("data"), Path("out"), **wrong)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"class_name": ""}, r"classes\[0\]: the name must be 1 to 64 printable"),
        ({"classes": ("background", "x" * 70)}, r"classes\[1\]: the name must be 1 to 64 printable"),
        ({"class_name": "a\nb", "full_precision": True}, r"classes\[0\]"),
    ],
)
def test_what_no_model_file_could_hold_is_refused_before_the_first_step(
    named: dict[str, Any], said: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match=said):
        Trainer(tiny(data, tmp_path, **named))


@pytest.mark.parametrize(("resize", "keep_aspect"), [(0, False), (32, False), (32, True)], ids=["own", "32", "aspect"])
def test_a_checkpoint_is_scored_like_its_file_and_its_golden_file_replays(
    resize: int, keep_aspect: bool, data: Path, tmp_path: Path
) -> None:
    run = Trainer(tiny(data, tmp_path / "run", contrast="stretch", resize=resize, keep_aspect=keep_aspect))
    run.run()
    path = export.export(run.checkpoint, tmp_path / "discs.safetensors")
    images = [sample.load()[0] for sample in layouts.samples(data)[:2]]
    pairs = selftest.read_golden(export.golden(run.checkpoint, images, tmp_path / "golden.safetensors"))
    checkpoint = NetworkEngine(*export.restore(run.checkpoint)[:2])
    by_torch, _ = checkpoint.run(images)
    assert checkpoint.run(images[:1], 0.0)[0][0].all()
    with Engine.load(path) as engine:
        by_engine, _ = engine.run(images)
        for image, (golden_image, logits), ours, theirs in zip(images, pairs, by_engine, by_torch, strict=True):
            assert np.array_equal(image, golden_image)
            assert np.array_equal(engine.logits(image), logits)
            assert np.array_equal(ours, theirs)


def test_a_model_file_tells_how_it_was_trained(data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "second", init="runs/first/checkpoint.pt", zeros_from=0.8, ablate=("color",))
    story = export.describe(config)
    told = {"init": "first", "zeros_from": 0.8, "ablate": ("color",), "crop": 32, "batch": 2, "width": 3}
    assert {name: story[name] for name in told} == told
    assert "learning_rate" not in story
    for source, name in (("nuclei-small", "nuclei-small"), ("models/wide-64.pt", "wide-64"), ("runs/a/best.pt", "a")):
        assert export.describe(dataclasses.replace(config, init=source, teacher=source))["teacher"] == name
    json.dumps(story)
    assert "groups" not in story["split"]
    assert export.describe(dataclasses.replace(config, group="^."))["split"]["groups"] == 1


def test_without_re_estimation_batch_norm_stays_as_training_left_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimated = []
    monkeypatch.setattr(Trainer, "_reestimate_batch_norm", lambda self: estimated.append(self.config.ablate))
    for ablate in ((), ("batch-norm-re-estimation",)):
        run = Trainer(tiny(data, tmp_path / str(len(ablate)), ablate=ablate))
        run.fit()
        assert {stage.annealed for stage in run.network.bit_convolutions().values()} == {1.0}
    assert estimated == [()]


def with_classes(data: Path) -> None:
    """Turn the masks of `data` into index masks: background, the left and the right half of each disc."""
    for path in (data / "masks").iterdir():
        with Image.open(path) as file:
            mask = np.asarray(file.convert("L")) > 0
        halves = mask * np.where(np.arange(mask.shape[1]) < mask.shape[1] // 2, 1, 2)
        Image.fromarray(halves.astype(np.uint8)).save(path)


def test_several_classes_from_training_to_the_mask_that_is_served(data: Path, tmp_path: Path) -> None:
    with_classes(data)
    names = ("ground", "left", "right")
    run = Trainer(tiny(data, tmp_path / "run", classes=names, width=4, samples=200, learning_rate=0.01, zeros=0.5))
    assert run.run().images == len(run.validation)
    path = export.export(run.checkpoint, tmp_path / "halves.safetensors")
    with Engine.load(path) as engine:
        assert engine.class_names == names
        assert len({info.color for info in engine.model.classes}) == 3
        rows = evaluate.evaluate(engine, run.validation, classes=names, closely=True)
        parts = evaluate.parts(rows)
        assert {title: len(chosen) for title, chosen in parts.items() if title.startswith("class")} == {
            "class left": len(run.validation),
            "class right": len(run.validation),
        }
        assert 0 <= (evaluate.calibration_error(rows) or 0) < 1
        image, _ = run.validation[0].load(3)
        (mask,), _ = engine.run([image])
        np.testing.assert_array_equal(mask, network_engine.predict(run.network, image, run.config))
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        with serving(create_app(engine, Settings())) as client:
            answer = client.post("/segment", content=buffer.getvalue(), headers={"Content-Type": "image/png"})
        with Image.open(io.BytesIO(answer.content)) as served:
            np.testing.assert_array_equal(np.asarray(served), mask)


def test_classes_beyond_those_named_are_refused(data: Path, tmp_path: Path) -> None:
    with_classes(data)
    with pytest.raises(DataError, match="holds class 2, but the 2 classes are 0 to 1"):
        Trainer(tiny(data, tmp_path / "run", classes=("ground", "disc"))).run()


def test_the_exported_file_is_calibrated_and_says_what_was_removed(data: Path, tmp_path: Path) -> None:
    run = Trainer(tiny(data, tmp_path / "run", samples=40, learning_rate=0.01, zeros=0.95))
    run.run()
    model = format.load(export.export(run.checkpoint, tmp_path / "discs.safetensors"))
    scale = run.network.quantized_params()["head"].scale
    assert model.layers[-1].scale * model.provenance["temperature"] == pytest.approx(scale, rel=1e-3)
    assert "can never change a result" in model.provenance["removed"]
    with Engine.load(tmp_path / "discs.safetensors") as engine:
        for sample in run.validation:
            image, _ = sample.load()
            np.testing.assert_array_equal(
                engine.run([image])[0][0], network_engine.predict(run.network, image, run.config)
            )


def test_full_precision_is_scored_but_not_exported(data: Path, tmp_path: Path) -> None:
    run = Trainer(tiny(data, tmp_path / "run", full_precision=True, samples=4))
    run.run()
    (mask,), _ = NetworkEngine(*export.restore(run.checkpoint)[:2]).run([layouts.samples(data)[0].load()[0]])
    assert mask.dtype == np.uint8
    with pytest.raises(export.ExportError, match="full precision"):
        export.export(run.checkpoint, tmp_path / "no.safetensors")


def test_rare_classes_are_sampled_and_weighed(data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "out", foreground=1.0, class_weights=("balanced",), overlap="focal-tversky")
    run = Trainer(config, quiet=True)
    pixels, labels = next(run.batches.now(range(1)))
    assert all(mask.any() for mask in labels)
    run._train_step(pixels, labels)
    weights = run._loss.weights
    assert weights is not None
    shares = np.bincount(np.concatenate([mask.ravel() for _, mask in run.batches.loaded])) / sum(
        m.size for _, m in run.batches.loaded
    )
    assert float(weights @ torch.tensor(shares, dtype=torch.float32)) == pytest.approx(1)
    assert float(weights[1] / weights[0]) == pytest.approx((shares[0] / shares[1]) ** 0.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"augment": ("mirrors",)}, "a crop has no 'mirrors'; there are turns, flips"),
        ({"overlap": "jaccard"}, "no overlap 'jaccard'"),
        ({"class_weights": ("1", "2", "3")}, "weights are 2 numbers from 0 on, or balanced"),
        ({"class_weights": ("1", "rare")}, "weights are 2 numbers"),
        ({"foreground": 1.5}, r"lies in \[0, 1\], not 1.5"),
        ({"empty": -0.5}, r"lies in \[0, 1\], not -0.5"),
        ({"empty": 0.1, "classes": ("sky", "road")}, "an empty part shows the first class, and sky is none"),
        ({"missed": 1.0}, "lies between 0 and 1, not 1.0"),
        ({"minutes": float("inf")}, "a number of minutes, not inf"),
    ],
)
def test_settings_of_the_loss_are_checked(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        tiny(tmp_path, tmp_path, **changes)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "cpu:1"])
def test_a_device_that_is_not_there_is_named_before_anything_is_written(name: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no device '{name}' to train on; there are auto, cpu"):
        Trainer(tiny(data, tmp_path / "out", device=name))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_an_os_error_and_leaves_what_was_there(tmp_path: Path) -> None:
    path, state = tmp_path / "checkpoint.pt", {"network": {"weight": torch.zeros(100_000)}}
    path.write_bytes(b"of before")
    with largest_file(1000), pytest.raises(OSError, match=r"File too large|is the disk full"):
        checkpoint.write(path, state)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"checkpoint.pt": b"of before"}


@pytest.mark.parametrize("after", ["checkpoint.pt", "best.pt"])
def test_a_run_that_dies_while_it_saves_its_best_ends_with_the_same_best(
    after: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(out: str) -> Config:
        return tiny(data, tmp_path / out, full_precision=True, samples=12, validate_every=2, learning_rate=5e-3)

    whole = Trainer(config("whole"), quiet=True)
    whole.run()
    best = checkpoint.read(whole.best_checkpoint)
    died = Trainer(config("died"), quiet=True)
    move = Path.replace

    def moved(part: Path, path: Path) -> Any:
        move(part, path)
        if path.name == after and died.step == best["step"]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", moved)
        with pytest.raises(KeyboardInterrupt):
            died.run()
    Trainer(config("died"), quiet=True).run()
    found = checkpoint.read(died.best_checkpoint)
    assert found["step"] == best["step"]
    assert all(torch.equal(found["network"][name], best["network"][name]) for name in best["network"])
    assert checkpoint.read(died.checkpoint)["best"] == best["best"]


@pytest.mark.parametrize(("zeros", "zeros_from"), [(0.2, 0.5), (0.8, 0.9), (0.0, 0.5), (0.9, 0.5), (0.8, 1.0)])
def test_zeros_never_fall(zeros: float, zeros_from: float) -> None:
    config = Config("data", "out", zeros=zeros, zeros_from=zeros_from)
    course = [config.zeros_at(step / 10) for step in range(11)]
    assert course == sorted(course)
    assert course[0] == pytest.approx(min(zeros_from, zeros))
    assert course[-1] == zeros


def test_a_run_ends_early_and_the_best_is_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.9, 0.5, 0.7, 0.6])  # the first before zeros and bits are those of the end
    found = validation.validate

    def scored(*given: Any) -> Any:
        return dataclasses.replace(found(*given), dice=next(scores))

    monkeypatch.setattr(trainer, "validate", scored)
    monkeypatch.setattr(looks, "EARLY", 2.0)
    config = tiny(data, tmp_path / "out", samples=40, validate_every=4, save_every=100, early_stopping=1)
    run = Trainer(config, quiet=True)
    run.fit()  # of 20 steps; it looks at 4, 8, 12 and 16
    assert (run.step, run.looks.best, run.finished) == (16, 0.7, True)
    assert export.restore(run.best_checkpoint)[2] == 12
    again = Trainer(config, quiet=True)
    assert (again.step, again.looks.best, again.finished) == (16, 0.7, True)
    assert not Trainer(dataclasses.replace(config, samples=60), quiet=True).finished


def test_a_finished_run_that_is_started_again_takes_no_look(data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path / "out", early_stopping=2)
    first = Trainer(config)
    first.run()
    for _ in range(2):
        again = Trainer(config)
        again.run()
        assert again.looks.state() == first.looks.state()


def test_validation_images_may_have_a_folder_of_their_own(data: Path, tmp_path: Path) -> None:
    held = tmp_path / "held"
    shutil.copytree(data, held)
    for part in ("images", "masks"):
        for k in range(3, 12):
            (held / part / f"disc{k:02}.png").unlink()
        (held / part / "disc02.png").rename(held / part / "other.png")
    (held / "index.csv").unlink()
    config = tiny(data, tmp_path / "out", validation=str(held), samples=2)
    run = Trainer(config, quiet=True)
    assert len(run.training) == 12
    assert [sample.name for sample in run.validation] == ["validation/disc00", "validation/disc01", "other"]
    run.run()
    grow(data, "more")
    again = Trainer(config, quiet=True)
    assert (len(again.training), len(again.validation)) == (13, 3)
    grow(held, "later")
    again = Trainer(config, quiet=True)
    assert (len(again.training), [sample.name for sample in again.validation][2:]) == (13, ["later", "other"])
    for part in ("images", "masks"):
        (held / part / "later.png").unlink()
    model = format.load(export.export(run.checkpoint, tmp_path / "discs.safetensors"))
    assert model.provenance["split"] == {"validation": "held", "seed": 0}
    chosen = evaluate.select(split.samples(config), "validation", config.share, 0, lambda _: None)
    assert [sample.name for sample in chosen] == [sample.name for sample in run.validation]


def test_no_run_learns_from_a_test_part_or_chooses_by_it(data: Path, tmp_path: Path) -> None:
    names = sorted(path.stem for path in (data / "images").iterdir())
    (data / "index.csv").write_text("name,part\n" + "".join(f"{name},test\n" for name in names[:4]))
    config = tiny(data, tmp_path / "out", samples=2)
    Trainer(config, quiet=True).save()
    run = Trainer(config, quiet=True)
    assert sorted(sample.name for sample in (*run.training, *run.validation)) == names[4:]
    failures: list[Exception] = []
    tested = evaluate.select(layouts.samples(data), "test", 0.2, 0, failures.append)
    assert [sample.name for sample in tested] == names[:4]
    (data / "index.csv").unlink()
    with pytest.raises(DataError, match="no test part of its own"):
        evaluate.select(layouts.samples(data), "test", 0.2, 0, failures.append)


def test_a_run_that_diverges_ends_and_keeps_its_last_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Trainer(tiny(data, tmp_path), quiet=True)
    run.save()
    before = run.checkpoint.read_bytes()
    monkeypatch.setattr(run, "_train", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(DivergedError, match="no number any more at step 2"):
        run.run()
    assert run.checkpoint.read_bytes() == before
