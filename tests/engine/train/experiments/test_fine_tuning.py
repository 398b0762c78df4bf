"""From a model file and from nothing, on few images that it has not seen."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import format
from engine.train import export, trainer
from engine.train.config import Config
from engine.train.data import dataset, layouts
from engine.train.data.dataset import Parts
from engine.train.data.files import DataError
from engine.train.experiments import fine_tuning
from engine.train.trainer import Trainer


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "BATCH_NORM_SAMPLES", 4)
    monkeypatch.setattr(trainer, "UNFOLD_SAMPLES", 4)


@pytest.fixture
def model(data: Path, tmp_path: Path) -> str:
    """A model that has seen four of the twelve images."""
    config = Config(str(data), str(tmp_path / "first"), width=3, samples=4, batch=2, crop=32, device="cpu")
    run = Trainer(config, quiet=True)
    run.training = run.training[:4]
    run.run()
    return str(export.export(run.checkpoint, tmp_path / "shipped.safetensors"))


def test_rows_from_a_model_and_from_nothing_learn_from_the_same_unseen_images(
    model: str, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings = {"samples": 12, "batch": 2, "crop": 32, "validation": 0.4}
    plan = fine_tuning.plan(str(data), out, model, seeds=1, images=(2, 100), **settings)
    seen = {s.name for s in layouts.samples(data)} - {s.name for part in plan.divide() for s in part}
    assert len(seen) == 4
    csv_path, markdown, picture = fine_tuning.run(plan)
    assert picture.read_bytes().startswith(b"\x89PNG")
    with csv_path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    able, held = plan.divide()
    counts = (2, len(able))
    ways = ("from shipped", "from nothing", "from nothing, over full precision")
    assert [row["method"] for row in rows] == [
        "shipped as it is",
        *(f"{count} images, {way}" for count in counts for way in ways),
    ]
    few = layouts.samples(out / "data" / "2-0")
    assert {sample.name for sample in few if sample.part == "validation"} == {sample.name for sample in held}
    learned = [sample for sample in few if sample.part == "training"]
    assert len(learned) == 2
    assert {sample.name for sample in learned} <= {sample.name for sample in able}
    original = {sample.name: sample for sample in able}
    for sample in learned:
        for one, other in zip(sample.load(), original[sample.name].load(), strict=True):
            assert (one == other).all()
    jobs = {dict(job.labels)["method"]: job.config for job in plan.few_jobs(plan.folders())}
    begun, nothing = jobs["2 images, from shipped"], jobs["2 images, from nothing"]
    assert (begun.init, begun.annealing, nothing.init, nothing.annealing) == (model, 0.0, "", 0.4)
    assert (begun.samples, nothing.samples, begun.width, nothing.width) == (12, 12, 3, 3)
    assert "| Dice | IoU | F1 |" in markdown.read_text()


def test_images_of_another_model_or_folder_are_written_anew(model: str, data: Path, tmp_path: Path) -> None:
    plan = fine_tuning.plan(str(data), tmp_path / "out", model, seeds=1, images=(2,))
    folder = plan.folders()[2, 0]
    mask = next((folder / "masks").iterdir())
    mask.write_bytes(b"")
    plan.folders()
    assert not mask.stat().st_size  # as it lies there
    other = Path(shutil.copytree(data, tmp_path / "other" / "discs"))
    replace(plan, base=replace(plan.base, data=str(other))).folders()
    assert all(link.resolve().is_relative_to(other) for link in (folder / "images").iterdir())
    assert mask.stat().st_size


def test_pixels_without_a_class_stay_so(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for below, side in ((part, (8, 8, 3)), (f"{part}annot", (8, 8))):
            (tmp_path / "camvid" / below).mkdir(parents=True)
            Image.fromarray(np.full(side, 11, np.uint8)).save(tmp_path / "camvid" / below / f"{part}.png")
    found = layouts.recognize(tmp_path / "camvid")
    fine_tuning._write(tmp_path / "few", found.samples[:1], found.samples[1:], len(found.classes))
    for sample in layouts.samples(tmp_path / "few"):
        assert (sample.load(len(found.classes))[1] == dataset.VOID).all()


def test_a_model_that_has_seen_what_is_for_training_divides_the_rest(model: str, data: Path, tmp_path: Path) -> None:
    kept = Parts.told(format.load(model).provenance["parts"])
    assert kept
    seen, *unseen = kept.divide(layouts.samples(data))
    rest = [sample.name for part in unseen for sample in part]
    (data / "index.csv").write_text("name,part\n" + "".join(f"{name},validation\n" for name in rest))
    able, held = fine_tuning.plan(str(data), tmp_path / "out", model, validation=0.4).divide()
    assert {sample.name for sample in (*able, *held)} == set(rest)
    assert min(len(able), len(held)) > 1
    other = Path(shutil.copytree(data, tmp_path / "held"))
    for folder, gone in ((data, rest), (other, [sample.name for sample in seen])):
        (folder / "index.csv").unlink()
        for name in gone:
            for part in ("images", "masks"):
                (folder / part / f"{name}.png").unlink()
    with pytest.raises(DataError, match=r"has seen all of the samples in .* that are not for validation"):
        fine_tuning.plan(str(data), tmp_path / "out", model, validation=str(other)).divide()


def test_the_model_as_it_is_sees_images_as_it_has_learned_them(model: str, data: Path, tmp_path: Path) -> None:
    scores = []
    for contrast in ("none", "stretch"):
        plan = fine_tuning.plan(str(data), tmp_path / "out", model, contrast=contrast)
        scores.append(fine_tuning._as_it_is(plan)[0]["dice"])
    assert scores[0] == scores[1]


def test_a_model_that_has_seen_everything_is_refused(model: str, data: Path, tmp_path: Path) -> None:
    plan = fine_tuning.plan(str(data), tmp_path / "out", model)
    for sample in (sample for part in plan.divide() for sample in part):
        sample.image.unlink()
        sample.mask.unlink()
    with pytest.raises(DataError, match="has seen all but 0 of the samples"):
        plan.divide()


def test_scores_of_a_group_that_is_too_small_are_refused(model: str, data: Path, tmp_path: Path) -> None:
    """Of what the model has not seen a group of one image and one of seven are left."""
    plan = fine_tuning.plan(str(data), tmp_path / "out", model)
    unseen = sorted(sample.name for part in plan.divide() for sample in part)
    units = "".join(f"{name},{'alone' if name == unseen[0] else 'others'}\n" for name in unseen)
    (data / "index.csv").write_text("name,unit\n" + units)
    for seed in range(6):
        with pytest.raises(DataError, match=r"of what .* has not seen [17] of 8 samples are held, not 30%"):
            fine_tuning.plan(str(data), tmp_path / "out", model, seed=seed, validation=0.3).divide()
