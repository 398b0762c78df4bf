"""Sweeps and the table on a tiny folder: whole, resumed, on two processes, with their pictures and numbers."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import strategy
from engine.format import load
from engine.networks import unet
from engine.train import split, trainer
from engine.train.data import dataset, layouts
from engine.train.data.dataset import Parts
from engine.train.data.files import DataError
from engine.train.experiments import plots, rows, study, sweep, table
from engine.train.experiments.study import Job


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "BATCH_NORM_SAMPLES", 4)
    monkeypatch.setattr(sweep, "ENDS", 1)


def plan(data: Path, out: Path) -> sweep.Plan:
    return sweep.plan(str(data), out, width=3, crop=32, batch=2, start_samples=8, samples=4)


def times(models: Sequence[Path]) -> list[float]:
    return [10.0 + i for i in range(len(models))]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_over_blocks_leaves_its_table_and_the_papers_figures(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    paths = sweep.run("blocks", plan(data, out), 15, measure=times)
    rows = read(out / "sweep.csv")
    assert len({row["masked"] for row in rows}) == 15
    assert [rows[0]["masked"], rows[1]["masked"]] == ["", " ".join(unet.BLOCKS)]
    assert [float(rows[0]["fps"]), float(rows[14]["ms"])] == [100.0, 24.0]
    for row in rows:
        model = load(out / "models" / f"{row['name']}.safetensors")
        assert {layer.block for layer in model.layers if layer.weights == "masked"} - {""} == set(row["masked"].split())
        assert float(row["bmma_products"]) == strategy.products(model.layers, "bmma")
    for path in paths[2:]:
        with Image.open(path) as picture:
            assert min(picture.size) > 250
    names = {"zeros-per-block", "dice-operations", "shapley", "cost-profile", "pareto"}
    assert {path.stem for path in paths[2:]} == names
    worth = read(out / "shapley.csv")
    total = sum(float(row["shapley"]) for row in worth)
    assert total == pytest.approx(float(rows[1]["dice"]) - float(rows[0]["dice"]), abs=1e-3)
    assert strategy.choose(["auto"], strategy.CostModel("cpu"), 3, out / "sweep.csv", within=1.0)


def test_finished_runs_are_not_done_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "sweep"
    first = study.run([plan(data, out).start], out)
    monkeypatch.setattr(study, "perform", lambda *_: pytest.fail("done again"))
    assert study.run([plan(data, out).start], out) == first
    wider = plan(data, out)
    other = replace(wider, base=replace(wider.base, crop=48))
    with pytest.raises(ValueError, match=r"start\.json is of another configuration"):
        study.run([other.start], out)


def test_a_model_file_of_a_study_tells_its_split_and_shows_its_class_in_color(data: Path, tmp_path: Path) -> None:
    start = plan(data, tmp_path).start
    study.run([replace(start, config=replace(start.config, weights=()))], tmp_path)
    model = load(tmp_path / "models" / "start.safetensors")
    everything = layouts.samples(data)
    drawn = Parts.of(*dataset.split(everything, 0.2, 0))
    kept = split.kept(model.provenance, everything)
    assert kept.divide(everything) == drawn.divide(everything)
    assert (model.provenance["data"], model.provenance["split"]) == ("discs", {"validation": 0.2, "seed": 0})
    assert any(model.classes[0].color)


def test_rows_of_other_images_or_of_another_beginning_are_not_taken(data: Path, tmp_path: Path) -> None:
    job = plan(data, tmp_path).start
    out, tested = tmp_path / "out", shutil.copytree(data, tmp_path / "test")
    first = study.run([job], out, test=str(tested))
    moved = shutil.copytree(tested, tmp_path / "moved" / "test")
    assert study.run([job], out, test=str(moved)) == first
    (data / "index.csv").write_text("name,part\ndisc00,test\n")
    with pytest.raises(ValueError, match="has learned from other images, or was scored on others"):
        study.run([job], out, test="test")  # the part of that name
    shutil.copy(moved / "index.csv", data / "index.csv")
    shutil.copy(moved / "images" / "disc00.png", moved / "images" / "disc01.png")
    with pytest.raises(ValueError, match="has learned from other images, or was scored on others"):
        study.run([job], out, test=str(moved))
    begun = replace(job, config=replace(job.config, init="nuclei-small"))
    with pytest.raises(ValueError, match="began from another --init"):
        study.run([begun], out, test=str(tested))
    path = out / "rows" / f"{job.name}.json"
    state = json.loads(path.read_text())
    del state["made_of"]  # an earlier version
    path.write_text(json.dumps(state))
    assert study.run([begun], out, test=str(moved)) == first


def test_two_processes_give_the_rows_of_one(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # other processes know nothing of it
    torch.set_num_threads(1)  # sums of floats depend on how many share them
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    rows = []
    for devices in (["cpu"], ["cpu", "cpu"]):
        here = plan(data, tmp_path / str(len(devices)))
        jobs = [Job(f"job{k}", replace(here.start.config, run_seed=k, out=str(here.out / str(k)))) for k in range(2)]
        rows.append([{**row, "seconds": 0} for row in study.run(jobs, here.out, devices)])
    assert [row["name"] for row in rows[0]] == ["job0", "job1"]
    assert rows[0] == rows[1]


def test_a_sweep_over_zeros_reaches_them(data: Path, tmp_path: Path) -> None:
    sweep.run("zeros", plan(data, tmp_path), measure=times)
    rows = read(tmp_path / "zeros.csv")
    assert len(rows) == 2 * len(sweep.ZEROS)
    dense = strategy.products(unet.layers(3, masked=()), "cpu", 0.0)
    for row in rows:
        if row["zeros_by"] == "layer":
            assert float(row["zeros_Up4"]) == pytest.approx(float(row["zeros"]), abs=0.01)
        assert 1 - float(row["cpu_products"]) / dense == pytest.approx(float(row["zeros"]), abs=0.02)
    assert (tmp_path / "zeros.png").is_file()


def test_a_sweep_over_bits_changes_one_block_at_a_time(data: Path, tmp_path: Path) -> None:
    jobs = sweep.bits(plan(data, tmp_path))
    assert len(jobs) == 1 + 12 * 3
    masked = {layer.name: layer.weights for layer in jobs[0].config.layers()}
    for job in jobs[1:]:
        labels = dict(job.labels)
        changed = [layer for layer in job.config.layers() if layer.weights != masked[layer.name]]
        assert {(layer.block, layer.weights) for layer in changed} == {(labels["block"], labels["weights"])}


def test_a_sweep_over_widths_draws_dice_against_milliseconds(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "PRICED_ZEROS", (0.0, 0.9))
    here = replace(plan(data, tmp_path), widths=(2, 3))
    table_path, picture = sweep.run("widths", here, measure=times)
    found = read(table_path)
    assert [(row["width"], row["activation_bits"], row["zeros"]) for row in found[:5]] == [
        *(("2", "32", "0.0"), ("2", "1", "0.0"), ("2", "1", "0.9"), ("2", "2", "0.0"), ("2", "2", "0.9"))
    ]
    assert (len(found), found[0]["ms"], found[1]["ms"]) == (10, "", "10.0")
    assert float(found[2]["zero_weights"]) == pytest.approx(0.9, abs=0.05)
    model = load(tmp_path / "models" / f"{found[8]['name']}.safetensors")
    assert (model.layers[0].channels, model.layers[0].planes) == (3, 2)
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 250


def test_bits_are_drawn(tmp_path: Path) -> None:
    rows = [{"block": "", "weights": "masked", "dice": 0.5}]
    rows += [{"block": b, "weights": w, "dice": 0.6} for b in ("Up1", "Up2") for w in ("int4", "int8")]
    plots.bits_per_block(rows, tmp_path / "bits.png")
    assert (tmp_path / "bits.png").stat().st_size > 1000


def test_the_front_holds_what_nothing_else_beats_in_both() -> None:
    x, y = np.array([1.0, 2.0, 2.0, 3.0, 0.5]), np.array([5.0, 4.0, 3.0, 1.0, 5.0])
    assert plots.front(x, y).tolist() == [0, 1, 3]


def _size(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as file:
        return file.size


def test_the_table_has_every_method_with_its_spread(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {name: rows.METHODS[name] for name in (rows.FULL, "Ternary, SEQ", "Binary")}
    monkeypatch.setitem(rows.TABLES, "methods", rows.Table("table", chosen))
    here = table.plan(str(data), tmp_path, seeds=2, width=3, crop=32, batch=2, samples=12, contrast="none")
    csv_path, markdown, picture = table.run(here, paper="Nuclei")
    found = read(csv_path)
    assert [row["method"] for row in found[:4]] == [rows.FULL, table.POST_TRAINING, "Ternary, SEQ", "Binary"]
    assert len(found) == 8
    lines = [line for line in markdown.read_text().splitlines() if line.startswith("|")]
    assert "A constant mask has 0." in markdown.read_text()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == [row["method"] for row in found[:4]]
    dice = [float(row["dice"]) for row in found if row["method"] == "Binary"]
    assert f"| Binary | {np.mean(dice):.3f} ± {np.std(dice, ddof=1):.3f} |" in lines[-1]
    assert lines[-1].endswith("| 0% | 0.434 |")
    assert 600 < _size(picture)[0] < 700


def test_the_recipes_table_takes_its_parts_out_one_by_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = (
        rows.OURS,
        "with the start as teacher",
        "with a third of the budget on 8-bit weights",
        "no random colours",
    )
    monkeypatch.setitem(rows.TABLES, "recipe", rows.Table("recipe", {name: rows.RECIPE[name] for name in chosen}))
    here = table.plan(str(data), tmp_path, seeds=1, width=3, crop=32, batch=2, samples=12, contrast="none")
    csv_path, markdown, _ = table.run(here, over="recipe")
    assert [row["method"] for row in read(csv_path)] == list(chosen)
    lines = [line for line in markdown.read_text().splitlines() if line.startswith("|")]
    assert len(lines[-1].split(" | ")) == 5
    assert (csv_path.name, markdown.name) == ("recipe.csv", "recipe.md")


def test_every_row_of_the_recipe_differs_from_ours_and_spends_the_same_budget() -> None:
    here = table.plan("data", Path("out"), samples=3000)
    starts = {Path(job.config.out).name: job.config.samples for job in [*here.starts(), *here.eighths()]}
    spent = {"": 0, **{f"start-{s}": 1000 for s in range(3)}, **{f"eighth-{s}": 2000 for s in range(3)}}
    assert starts == {name: 1000 for name in spent if name}
    jobs = here.jobs(rows.RECIPE)
    for job in jobs:
        assert job.config.samples == 3000 - spent[Path(job.config.init).parent.name]
    kinds = {replace(job.config, out="", run_seed=0, init="") for job in jobs[:10]}
    assert len(kinds) == 10


def test_a_table_of_families_gives_every_shape_its_own_start_and_is_scored_on_another_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (
        rows.FULL,
        "3 branches, both gates",
        "1 branch, both gates, as many non-zeros",
        "MBU-Net, as many non-zeros",
    )
    chosen = {name: rows.MULTI_BRANCH[name] for name in names}
    columns = rows.TABLES["multi-branch"].columns
    monkeypatch.setitem(rows.TABLES, "multi-branch", rows.Table("multi-branch", chosen, columns))
    here = table.plan(str(data), tmp_path, seeds=1, test=str(data), width=3, crop=32, batch=2, samples=12)
    csv_path, markdown, picture = table.run(here, over="multi-branch", timed=times)
    found = {row["method"]: row for row in read(csv_path)}
    assert list(found) == list(chosen)
    starts = {path.stem for path in (tmp_path / "rows").glob("start*")}
    assert starts == {"start-0", "start-multi-branch-0", "start-multi-branch-1-0"}
    three, *others = (int(found[name]["nonzeros"]) for name in names[1:])
    assert others == pytest.approx([three, three], rel=0.01)
    assert [found[name]["ms"] for name in chosen] == ["", "10.0", "11.0", "12.0"]
    assert "| Dice | mIoU | MAE | max F-beta | non-zero weights | bytes | ms |" in markdown.read_text()
    assert _size(picture)[0] > 800  # with milliseconds beside the scores
    with pytest.raises(ValueError, match="was scored on other images"):
        table.run(replace(here, test=""), over="multi-branch")


def test_what_cannot_be_is_said_before_anything_is_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def perform(*given: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(study, "perform", perform)
    here = table.plan(str(data), tmp_path, width=3, crop=32, batch=2, samples=12)
    for test, said in (("test", "has no test part of its own"), ("Nowhere", "Nowhere")):
        with pytest.raises(DataError, match=said):
            table.run(replace(here, test=test))
        with pytest.raises(DataError, match=said):
            sweep.run("blocks", replace(plan(data, tmp_path), test=test))
    with pytest.raises(ValueError, match=r"with 0% zeros a row has .* give more --zeros"):
        table.run(replace(here, base=replace(here.base, zeros=0.0)), over="multi-branch")
    for count in (1, 5000):
        with pytest.raises(ValueError, match=f"2 to 4096 configurations, not {count}"):
            sweep.run("blocks", plan(data, tmp_path), count)
    with pytest.raises(ValueError, match="no device 'gpu'"):
        table.run(here, ["cpu", "gpu"])


@pytest.mark.parametrize("zeros", [0.6, 0.9, 0.95])
def test_all_zeros_from_the_first_step_are_as_many_as_at_the_end(zeros: float) -> None:
    jobs = table.plan("data", Path("out"), zeros=zeros).jobs(rows.RECIPE)
    (config,) = {job.config for job in jobs if job.name == "all-zeros-from-the-first-step-0"}
    assert [config.zeros_at(progress) for progress in (0, 0.3, 1)] == [zeros] * 3


def test_a_test_part_is_scored_where_the_data_has_one(data: Path, tmp_path: Path) -> None:
    config = table.plan(str(data), tmp_path).base
    with pytest.raises(DataError, match="has no test part"):
        study.scored_on(config, [], "test")
    index = data / "index.csv"
    lines = ["name,part", *(f"disc{k:02},{'test' if k < 2 else ''}" for k in range(12))]
    index.write_text("\n".join(lines) + "\n")
    assert [sample.name for sample in study.scored_on(config, [], "test")] == ["disc00", "disc01"]


def test_bfcns_rows_share_their_start_and_its_budget() -> None:
    here = table.plan("data", Path("out"), samples=3000, seeds=1)
    jobs = {dict(job.labels)["method"]: job.config for job in here.jobs(rows.BFCN)}
    assert [job.name for job in here.starts(rows.BFCN)] == ["start-bfcn-0"]
    assert {config.samples for config in jobs.values()} == {2000}
    bits = {name: (config.weight_bits, config.layers()[0].planes) for name, config in jobs.items()}
    assert (bits["W2A2"], bits["W1A2"], bits["W1A1"]) == ((2, 2), (1, 2), (1, 1))
    weights = {name: {layer.weights for layer in config.layers()} for name, config in jobs.items()}
    assert ("masked" in weights["W1A2, zeros"], "masked" in weights["W1A2"]) == (True, False)


def test_a_row_that_was_stopped_goes_on_and_the_table_grows_with_every_row(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = plan(data, tmp_path).start
    steps: list[int] = []
    train_step = trainer.Trainer._train_step

    def stopped(self: trainer.Trainer, *batch: Any) -> Any:
        if self.step == 3 and 3 not in steps:
            steps.append(3)
            raise KeyboardInterrupt
        steps.append(self.step)
        return train_step(self, *batch)

    monkeypatch.setattr(trainer.Trainer, "_train_step", stopped)
    job = replace(job, config=replace(job.config, save_every=1))
    with pytest.raises(KeyboardInterrupt):
        study.run([job], tmp_path)
    told: list[int] = []
    study.run([job, replace(job, name="other")], tmp_path, after=lambda found: told.append(len(found)))
    assert steps[:5] == [0, 1, 2, 3, 3]
    assert told == [1, 2]


def test_rows_of_an_older_version_hold_the_defaults_of_newer_fields(data: Path, tmp_path: Path) -> None:
    job = plan(data, tmp_path).start
    study.run([job], tmp_path)
    path = tmp_path / "rows" / f"{job.name}.json"
    state = json.loads(path.read_text())
    del state["config"]["ablate"]
    path.write_text(json.dumps(state))
    assert study.run([job], tmp_path) == state["rows"]
    ablated = replace(job, config=replace(job.config, ablate=("dice",)))
    with pytest.raises(ValueError, match="of another configuration"):
        study.run([ablated], tmp_path)


def test_every_method_spends_the_same_budget_on_the_same_data() -> None:
    here = table.plan("data", Path("out"), samples=3000)
    configs = [job.config for job in here.jobs()]
    assert len(configs) == 3 * len(rows.METHODS)
    common = {(c.samples, c.batch, c.crop, c.width, c.learning_rate, c.data, c.seed, c.validation) for c in configs}
    assert common == {(2000, 4, 192, 32, 1e-3, "data", 0, 0.2)}
    assert {job.config.samples for job in here.starts()} == {1000}
