"""One command from a folder to a model file and a report; it goes on where it stopped."""

from __future__ import annotations

import re
import shlex
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import format
from engine.check import NAME
from engine.train import checkpoint, trainer
from engine.train.config import Config
from engine.train.data import dataset, layouts, samples
from engine.train.data.dataset import Sample
from engine.train.evaluate import Row
from engine.train.metrics import Counts
from engine.train.recipe import advice, budget, finish, run, speed
from engine.train.recipe.compare import Compared
from engine.train.recipe.record import FILE, Record
from engine.train.recipe.run import Recipe
from engine.train.recipe.speed import Speed
from engine.train.resume import ResumeError
from engine.train.trainer import Interrupted, Trainer


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "BATCH_NORM_SAMPLES", 4)
    monkeypatch.setattr(advice, "MOST_ROUNDS", 1)
    monkeypatch.setattr(finish, "PICTURES", 1)


def given(folder: Path, out: Path, **more: Any) -> dict[str, Any]:
    return {"data": str(folder), "out": str(out), "width": 3, "batch": 2, "samples": 80, "device": "cpu", **more}


def test_a_folder_becomes_a_model_and_a_page(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    loaded: Counter[str] = Counter()

    def counted(sample: Sample, *how: Any) -> samples.Loaded:
        loaded[sample.name] += 1
        return load(sample, *how)

    load = samples.load
    monkeypatch.setattr(samples, "load", counted)
    outcome = Recipe(given(data, tmp_path / "run"), said.append).run()
    assert set(loaded.values()) == {1}  # by both stages together
    model = format.load(outcome.files.model)
    assert (model.name, model.layers[0].channels) == ("discs", 3)
    assert model.provenance["crop"] == 64  # the images are small
    page = outcome.files.page.read_text(encoding="utf-8")
    assert "full precision</td>" in page
    assert re.search(r"from a probability of [\d.]+ on, in full precision from [\d.]+: chosen on these images", page)
    assert "Otsu&#x27;s threshold</td>" in page
    assert "--activation-bits 2</td>" in page
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 4
    assert not re.search(r'(src|href)="http|<script', page)
    assert (tmp_path / "run" / "model.md").read_text(encoding="utf-8").startswith("# discs")
    assert outcome.commands[0] == f"mbunet serve --model {outcome.files.model}"
    parts = [checkpoint.read(tmp_path / "run" / name / "checkpoint.pt") for name in ("full-precision", "bits")]
    assert parts[0]["parts"] == parts[1]["parts"]
    assert [part["step"] for part in parts] == [15, 24]


def test_the_same_command_goes_on_where_it_was_stopped(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = given(data, tmp_path / "run")
    recipe = Recipe(settings, lambda _: None)
    train_step = Trainer._train_step

    def pressed(self: Trainer, *batch: Any) -> Any:
        if self.step == 1 and not self.config.full_precision:
            recipe.stop()
        return train_step(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", pressed)
        with pytest.raises(Interrupted, match="bits stopped at step 16 of 24, saved in"):
            recipe.run()
    with pytest.raises(ResumeError, match=r"width \(3 there, 4 here\)"):
        Recipe(settings | {"width": 4})
    steps: list[int] = []

    def counted(self: Trainer, *batch: Any) -> Any:
        steps.append(self.step)
        return train_step(self, *batch)

    monkeypatch.setattr(Trainer, "_train_step", counted)
    Recipe(settings, lambda _: None).run()
    assert steps == list(range(16, 24))
    Recipe(settings, lambda _: None).run()
    assert len(steps) == 8
    Recipe(settings | {"samples": 100}, lambda _: None).run()
    assert len(steps) == 8 + 10


def test_a_finished_recipe_is_asked_for_a_batch_more_or_for_nothing(data: Path, tmp_path: Path) -> None:
    settings = given(data, tmp_path)
    kept = Record(dict(settings), finished=True)
    for more, refused in ((0, False), (1, True), (-40, False), (0, False)):
        kept.write(tmp_path / FILE)
        asked = settings | {"samples": 80 + more}
        if refused:
            with pytest.raises(ResumeError, match="1 more give no batch of 2: ask for 82 or more"):
                Recipe(asked)
        else:
            Recipe(asked).run()
        assert Record.read(tmp_path / FILE, settings) == kept
    assert Recipe(settings | {"samples": 82}, lambda _: None).record.added == [2.0]


def test_the_checkpoint_that_was_better_is_exported(tmp_path: Path) -> None:
    said: list[str] = []
    state = {"network": {}, "config": {}, "step": 1}
    best, last = (tmp_path / name for name in ("best.pt", "checkpoint.pt"))
    for scores, taken in (({last: 0.4}, last), ({best: 0.5}, best), ({last: 0.5}, last)):
        for path, score in scores.items():
            checkpoint.write(path, {**state, "last": score})
        assert finish.best([tmp_path], said.append) == taken
    assert said == [f"\n{best} is taken: 0.5000 on the validation images, where the end has 0.4000"]
    (tmp_path / "more").mkdir()
    checkpoint.write(tmp_path / "more" / "checkpoint.pt", {**state, "last": 0.45})
    assert finish.best([tmp_path, tmp_path / "more"], said.append) == last
    assert "checkpoint.pt is taken: 0.5000" in said[1]


def test_the_teachers_split_is_taken_where_none_is_asked_for(data: Path, tmp_path: Path) -> None:
    config = Config(str(data), str(tmp_path / "teacher"), width=3, full_precision=True, device="cpu", seed=5)
    teacher = Trainer(config, quiet=True)
    teacher.save()
    learning = given(data, tmp_path / "run", teacher=str(teacher.checkpoint))
    assert Recipe(learning)._parts() == dataset.Parts.of(teacher.training, teacher.validation)
    held = shutil.copytree(data, tmp_path / "held")
    for asked in ({"validation": str(held)}, {"validation": 0.5}, {"seed": 7}, {"group": "disc."}):
        assert Recipe(learning | asked | {"out": str(tmp_path / str(*asked))})._parts() is None
    (data / "index.csv").write_text(f"name,part\n{teacher.training[0].name},validation\n")
    assert Recipe(learning)._parts() is None


def test_what_to_type_next_is_quoted(tmp_path: Path) -> None:
    data, out = tmp_path / "my data", tmp_path / "my run"
    (data / "images").mkdir(parents=True)
    typed = [shlex.split(command) for command in Recipe(given(data, out))._commands(out / "model.safetensors")]
    assert typed == [
        ["mbunet", "serve", "--model", str(out / "model.safetensors")],
        [
            "mbunet",
            "segment",
            str(data / "images"),
            "-o",
            str(out / "masks"),
            "--model",
            str(out / "model.safetensors"),
        ],
    ]


def test_settings_that_cannot_be_are_not_recorded(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contrast is none or stretch, not 'strech'"):
        Recipe(given(data, tmp_path, contrast="strech"), lambda _: None).run()
    assert Recipe(given(data, tmp_path), lambda _: None).record.given == given(data, tmp_path)


def test_what_flatters_the_scores_stands_in_the_report(data: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        for k in range(1, 12):  # whatever the split, equal images lie on both sides
            shutil.copy(data / part / "disc00.png", data / part / f"disc{k:02}.png")
    config = Config(str(data), str(tmp_path / "teacher"), width=3, full_precision=True, device="cpu", seed=5)
    teacher = Trainer(config, quiet=True)
    teacher.save()
    settings = given(data, tmp_path / "run", teacher=str(teacher.checkpoint), samples=4, validation=0.5)
    page = Recipe(settings, lambda _: None).run().files.page.read_text(encoding="utf-8")
    loud = re.findall(r'<p class="loud">(.*?)</p>', page)
    assert sum("validation images (disc" in line and "was trained on" in line for line in loud) == 1
    assert sum("lie on the training side too" in line for line in loud) == 1
    assert "which no step of this run has seen" in page


def test_a_folder_of_one_part_is_not_mistaken_for_a_recipe(data: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(ResumeError, match="--bits-only"):
        Recipe(given(data, tmp_path))


def test_a_class_that_is_never_found_stands_in_every_headline_of_the_recipe(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "road"
    for k in range(8):  # potholes are bright; of a crack nothing is to be seen
        mask = np.zeros((40, 40), np.uint8)
        mask[8 + k : 20 + k, 10:26] = 1
        mask[2, 3 + k : 9 + k] = 2
        image = np.where(mask == 1, 200, 40)[..., None] + rng.integers(-20, 21, (40, 40, 3))
        for part, pixels in (("images", image.astype(np.uint8)), ("masks", mask)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / part / f"{k}.png")
    said: list[str] = []
    classes = ("background", "pothole", "crack")
    settings = given(folder, tmp_path / "run", classes=classes, samples=120, foreground=0.0, learning_rate=0.01)
    outcome = Recipe(settings, said.append).run()
    page = outcome.files.page.read_text(encoding="utf-8")
    for who in ("bits", "full precision"):
        assert re.search(rf'<p class="loud">{who}: never found: (pothole, )?crack</p>', page), who
    assert "<th>mIoU</th>" in page
    assert "<td>crack</td><td>0.0000</td>" in page
    assert page.index("never found") < page.index("<h2>Scores</h2>")
    assert re.search(r"\*\*never found: (pothole, )?crack\*\*", outcome.files.card.read_text(encoding="utf-8"))
    told = [line for line in said if line.startswith(("full-precision: Dice", "bits: Dice"))]
    assert len(told) == 2
    assert all("crack" in line.partition("never found: ")[2] for line in told)


def test_the_foreground_is_called_what_the_command_says_and_files_need_not_be_called_by_text(
    data: Path, tmp_path: Path
) -> None:
    """Old archives are unpacked to names in Latin-1."""
    for file in [*data.glob("images/*"), *data.glob("masks/*")]:
        file.rename(file.with_name(f"caf\udce9-{file.name}"))
    folder = data.rename(data.with_name("caf\udce9"))
    outcome = Recipe(given(folder, tmp_path / "run", class_name="cells", samples=10), lambda _: None).run()
    model = format.load(outcome.files.model)
    assert ([info.name for info in model.classes], model.provenance["data"]) == (["cells"], "caf?")
    assert "Segments: cells." in outcome.files.card.read_text(encoding="utf-8")
    assert "caf\\udce9-disc" in outcome.files.page.read_text(encoding="utf-8")


def test_a_baseline_that_is_better_is_said_aloud() -> None:
    bits = [Row("a", "", Counts(5, 5, 5, 85), otsu=Counts(10, 0, 0, 90))]
    found = Compared(bits, [Row("a", "", Counts(9, 1, 1, 89))])
    assert found.lost == pytest.approx(0.4)
    assert found.remarks == ["Otsu's threshold is better than the bits: 1.000"]
    never = Compared([Row("a", "", Counts(0, 0, 10, 90))], [])
    assert never.remarks[0] == "bits: never found: foreground"


def test_what_bits_gained_is_not_said_to_be_lost() -> None:
    worse, better = ([Row("a", "", counts)] for counts in (Counts(5, 5, 5, 85), Counts(9, 1, 1, 89)))
    assert Compared(worse, better).summary == "Dice 0.5000 by bits, 0.9000 in full precision: 0.4000 lost."
    assert Compared(better, worse).summary == "Dice 0.9000 by bits, 0.5000 in full precision: 0.4000 gained."
    assert Compared(worse, []).summary == "Dice 0.5000 by bits."


SLOW = {"samples": 1.0, "pixels": 1000.0, "proven": 1e6}
FAST = SLOW | {"bits": 1e9, "compared": 1e8}


def by_the_clock(data: Path, out: Path, rate: dict[str, float], **more: Any) -> Recipe:
    """A recipe of a minute on a machine of that speed; six images are held, of 1,221 to 2,560 pixels."""
    settings = {**given(data, out), "minutes": 1.0, "validation": 0.5, **more}
    del settings["samples"]
    recipe = Recipe(settings, lambda _: None)
    recipe.record.speed = rate
    return recipe


@pytest.mark.parametrize(
    ("rate", "more", "looks"),
    [
        (FAST, {}, [1, 0, 1]),  # in full precision, by bits, at the end for both
        (SLOW, {}, [1, 1, 1]),  # of an earlier version
        (FAST, {"validate_on": 3}, [3, 3, 3]),
        (FAST, {"init": "nuclei-small"}, [0, 0]),  # no full precision
    ],
    ids=["fast", "before", "given", "bits alone"],
)
def test_bits_look_at_more_images_than_full_precision_has_time_for(
    rate: dict[str, float], more: dict[str, Any], looks: list[int], data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    recipe = by_the_clock(data, tmp_path, rate, **more)
    finished: list[Config] = []

    class Finish:
        def __init__(self, config: Config, **_: Any) -> None:
            finished.append(config)

        def write(self) -> None:
            pass

    monkeypatch.setattr(run, "Finish", Finish)
    recipe._finish(finish.Files(tmp_path), [])
    found = [recipe._config(stage).validate_on for stage in recipe._stages()]
    assert [*found, *(config.validate_on for config in finished)] == looks


def test_stages_that_looked_at_unlike_many_images_are_named(data: Path, tmp_path: Path) -> None:
    stages = {name: tmp_path / name for name in ("full-precision", "bits")}
    for out, count in zip(stages.values(), (1, 0), strict=True):
        run = Trainer(Config(str(data), str(out), width=3, device="cpu", validate_on=count, validation=0.5), quiet=True)
        run.save()
    assert finish.unlike(stages, run.validation) == [
        "In the curves validations took so many of them: full-precision 1, bits 6."
    ]
    assert finish.unlike({"bits": out}, run.validation) == []


def test_a_stage_goes_on_with_the_images_that_it_looks_at(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = by_the_clock(data, tmp_path, FAST)
    monkeypatch.setattr(recipe, "_told", lambda stage: {"config": {"validate_on": 2}})
    assert [recipe._config(stage).validate_on for stage in recipe._stages()] == [2, 2]


def test_the_end_takes_what_it_compares(data: Path) -> None:
    held, config, rate = layouts.samples(data)[:6], Config(str(data), ""), Speed(**FAST)
    pixels = speed.own_pixels(held)
    without, whole = (budget.end_seconds(held, held[:2], config, rate, full, 0, 1.0) for full in (False, True))
    assert whole - without == pytest.approx(speed.own_pixels(held[:2]) * (1 / 1000 + 1e-9))
    for compared in (held, held[:2]):
        fast, slow = (
            budget.end_seconds(held, compared, config, replace(rate, compared=speed_of), False, 0, 1.0)
            for speed_of in (1e8, 1.0)
        )
        assert slow - fast == pytest.approx(2 * speed.own_pixels(compared) + pixels, rel=1e-6)


def test_a_look_reads_images_at_their_own_size(data: Path) -> None:
    held, config, rate = layouts.samples(data)[:6], Config(str(data), "", resize=16), Speed(**FAST | {"bits": 100.0})
    assert budget.look_seconds(held, config, rate, False) == speed.own_pixels(held) / 100
    assert budget.look_seconds(held, config, rate, True) == speed.own_pixels(held) / 100 + 6 * 256 / 1000


@pytest.mark.parametrize("folder", ["数据", "_data", "-.x", "set 1", "y" * 80, "caf\udce9", "..."])
def test_a_model_can_be_called_as_its_folder_is(folder: str) -> None:
    assert NAME.fullmatch(finish._name(f"/home/{folder}"))
