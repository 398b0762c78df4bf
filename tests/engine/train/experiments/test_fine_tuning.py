"""From a model file and from nothing, on few images that it has not seen."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from engine.train import export, trainer
from engine.train.config import Config
from engine.train.data import layouts
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
    csv_path, markdown = fine_tuning.run(plan)
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


def test_a_model_that_has_seen_everything_is_refused(model: str, data: Path, tmp_path: Path) -> None:
    plan = fine_tuning.plan(str(data), tmp_path / "out", model)
    for sample in (sample for part in plan.divide() for sample in part):
        sample.image.unlink()
        sample.mask.unlink()
    with pytest.raises(DataError, match="has seen all but 0 of the samples"):
        plan.divide()
