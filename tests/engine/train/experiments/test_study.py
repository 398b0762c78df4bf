"""Sweeps and the table on a tiny folder: whole, resumed, on two processes, with their pictures and numbers."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import strategy
from engine.format import load
from engine.networks import unet
from engine.train import trainer
from engine.train.experiments import plots, study, sweep, table
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


def test_bits_are_drawn(tmp_path: Path) -> None:
    rows = [{"block": "", "weights": "masked", "dice": 0.5}]
    rows += [{"block": b, "weights": w, "dice": 0.6} for b in ("Up1", "Up2") for w in ("int4", "int8")]
    plots.bits_per_block(rows, tmp_path / "bits.png")
    assert (tmp_path / "bits.png").stat().st_size > 1000


def test_the_front_holds_what_nothing_else_beats_in_both() -> None:
    x, y = np.array([1.0, 2.0, 2.0, 3.0, 0.5]), np.array([5.0, 4.0, 3.0, 1.0, 5.0])
    assert plots.front(x, y).tolist() == [0, 1, 3]


def test_the_table_has_every_method_with_its_spread(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {name: table.METHODS[name] for name in (table.FULL, "Ternary, SEQ", "Binary")}
    monkeypatch.setitem(table.TABLES, "methods", ("table", chosen))
    here = table.plan(str(data), tmp_path, seeds=2, width=3, crop=32, batch=2, samples=12, contrast="none")
    csv_path, markdown = table.run(here, paper="Nuclei")
    rows = read(csv_path)
    assert [row["method"] for row in rows[:4]] == [table.FULL, table.POST_TRAINING, "Ternary, SEQ", "Binary"]
    assert len(rows) == 8
    lines = [line for line in markdown.read_text().splitlines() if line.startswith("|")]
    assert "A constant mask has 0." in markdown.read_text()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == [row["method"] for row in rows[:4]]
    dice = [float(row["dice"]) for row in rows if row["method"] == "Binary"]
    assert f"| Binary | {np.mean(dice):.3f} ± {np.std(dice, ddof=1):.3f} |" in lines[-1]
    assert lines[-1].endswith("| 0% | 0.434 |")


def test_the_recipes_table_takes_its_parts_out_one_by_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = (
        table.OURS,
        "with the start as teacher",
        "with a third of the budget on 8-bit weights",
        "no random colours",
    )
    monkeypatch.setitem(table.TABLES, "recipe", ("recipe", {name: table.RECIPE[name] for name in chosen}))
    here = table.plan(str(data), tmp_path, seeds=1, width=3, crop=32, batch=2, samples=12, contrast="none")
    csv_path, markdown = table.run(here, over="recipe")
    assert [row["method"] for row in read(csv_path)] == list(chosen)
    lines = [line for line in markdown.read_text().splitlines() if line.startswith("|")]
    assert len(lines[-1].split(" | ")) == 5
    assert (csv_path.name, markdown.name) == ("recipe.csv", "recipe.md")


def test_every_row_of_the_recipe_differs_from_ours_and_spends_the_same_budget() -> None:
    here = table.plan("data", Path("out"), samples=3000)
    starts = {Path(job.config.out).name: job.config.samples for job in [*here.starts(), *here.eighths()]}
    spent = {"": 0, **{f"start-{s}": 1000 for s in range(3)}, **{f"eighth-{s}": 2000 for s in range(3)}}
    assert starts == {name: 1000 for name in spent if name}
    jobs = here.jobs(table.RECIPE)
    for job in jobs:
        assert job.config.samples == 3000 - spent[Path(job.config.init).parent.name]
    kinds = {replace(job.config, out="", run_seed=0, init="") for job in jobs[:10]}
    assert len(kinds) == 10


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
    assert len(configs) == 3 * len(table.METHODS)
    common = {(c.samples, c.batch, c.crop, c.width, c.learning_rate, c.data, c.seed, c.validation) for c in configs}
    assert common == {(2000, 4, 192, 32, 1e-3, "data", 0, 0.2)}
    assert {job.config.samples for job in here.starts()} == {1000}
