"""Tables from our own runs, all on the same data with the same budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.train.config import Config
from engine.train.experiments import plots, study
from engine.train.experiments.measure import Row, milliseconds, with_times
from engine.train.experiments.rows import COLUMNS, METHODS, PAPER, TABLES, Changes, Table
from engine.train.experiments.study import Job
from engine.train.network import Network

POST_TRAINING = "INT8 (W8A8), post-training"

THIRDS = {"": 0, "start": 1, "eighth": 2}
"""Thirds of the budget that are spent where a row begins: at random weights, at full precision, after 8-bit weights."""

SHAPE = ("family", "branches", "gates")
"""Settings in which rows may differ whose weights do not fit each other: each kind has starts of its own."""


@dataclass(frozen=True)
class Plan(study.Plan):
    """What a table trains. A third of the budget trains full precision; every row goes on from there.

    All runs share one split. A seed of `seeds` is a `run_seed`: the spread is that of training alone.
    """

    seeds: int = 3

    @property
    def third(self) -> int:
        """Of the budget, in samples."""
        return self.base.samples // 3

    def starts(self, rows: Mapping[str, Changes] = METHODS) -> list[Job]:
        """Full precision, a third of the budget: where the rows of a seed begin, those of each shape."""
        shapes = {_start(changes): _shape(changes) for changes in rows.values() if changes.get("start", "start")}
        return [
            self._begin(name, seed, full_precision=True, **shape)
            for seed in range(self.seeds)
            for name, shape in shapes.items()
        ]

    def eighths(self) -> list[Job]:
        """8-bit weights and bits for activations, another third from there."""
        return [
            self._begin("eighth", seed, init=self.checkpoint(f"start-{seed}"), weights=("int8",))
            for seed in range(self.seeds)
        ]

    def _begin(self, kind: str, seed: int, **changes: Any) -> Job:
        name = f"{kind}-{seed}"
        return Job(name, self.config(name, run_seed=seed, samples=self.third, **changes), keep=True)

    def jobs(self, rows: Mapping[str, Changes] = METHODS) -> list[Job]:
        """Every row with every seed, seed by seed."""
        return [self._job(method, seed, rows) for seed in range(self.seeds) for method in rows]

    def _job(self, method: str, seed: int, rows: Mapping[str, Changes]) -> Job:
        changes = dict(rows[method])
        own = {name: changes.pop(name, default) for name, default in OWN.items()}
        start = _start(rows[method]) if own["start"] == "start" else own["start"]
        if own["nonzeros_of"]:
            like = self.config("", **rows[own["nonzeros_of"]])
            changes["zeros"] = zeros_of_as_many(self.config("", **changes), like)
        name = f"{_file_name(method)}-{seed}"
        config = self.config(
            name,
            run_seed=seed,
            samples=self.base.samples - THIRDS[own["start"]] * self.third,
            init=self.checkpoint(f"{start}-{seed}") if start else "",
            teacher=self.checkpoint(f"{start}-{seed}") if own["teacher"] else "",
            **changes,
        )
        return Job(name, config, (("method", method), ("seed", seed)), int8=own["int8"])


OWN: dict[str, Any] = {"start": "start", "teacher": False, "int8": False, "nonzeros_of": ""}
"""What a row says beside settings, and what it says by default."""


def _shape(changes: Changes) -> dict[str, Any]:
    return {name: changes[name] for name in SHAPE if name in changes}


def _start(changes: Changes) -> str:
    """The name of the start of a row, without its seed."""
    return "-".join(["start", *(str(value) for value in _shape(changes).values())])


def _file_name(method: str) -> str:
    return "-".join("".join(c for c in method.lower() if c not in ",()").split())


def zeros_of_as_many(config: Config, like: Config) -> float:
    """The share of zeros with which the masked weights of `config` have as many non-zeros as those of `like`.

    Raises ValueError where it has not as many weights.
    """
    weights, wanted = _masked_weights(config), (1 - like.zeros) * _masked_weights(like)
    if wanted > weights:
        raise ValueError(
            f"with {like.zeros:.0%} zeros a row has {wanted:,.0f} non-zero weights, and the one that is to have "
            f"as many has {weights:,} weights in all: give more --zeros"
        )
    return 1 - wanted / weights


@cache
def _masked_weights(config: Config) -> int:
    stages = Network(config.layers()).bit_convolutions().values()
    return sum(stage.maskable().numel() for stage in stages if stage.layer.weights == "masked")


def plan(data: str, out: Path, seeds: int = Plan.seeds, test: str = "", **settings: Any) -> Plan:
    """A plan on images with their contrast stretched, but for what `settings` (of Config) say."""
    return Plan(Config(data, str(out), **{"contrast": "stretch", **settings}), test, seeds)


def run(
    plan: Plan,
    devices: Sequence[str] = ("cpu",),
    paper: str = "",
    over: str = "methods",
    timed: Callable[[Sequence[Path]], list[float]] = milliseconds,
) -> list[Path]:
    """Train what is missing for the rows of `TABLES[over]`, which share their starts.

    Writes NAME.csv, a row per run, NAME.md and NAME.png after every row, and returns their paths. Milliseconds, where
    the table has a column of them, are measured once all rows are there, and anew whenever it is called again.
    """
    table = TABLES[over]
    plan.jobs(table.rows)  # raises for what cannot be, before anything is trained
    paths = files(plan.out, table)

    def write(rows: Sequence[Row]) -> None:
        named = [row | ({"method": POST_TRAINING} if row.get("int8") else {}) for row in rows]
        show(named, table, paths, PAPER.get(paper, {}))

    with_eighths = any(changes.get("start") == "eighth" for changes in table.rows.values())
    rows: list[Row] = []
    for seeds in range(1, plan.seeds + 1):  # one after another, so that every row is there early
        so_far = replace(plan, seeds=seeds)
        plan.rows(so_far.starts(table.rows), devices)
        if with_eighths:
            plan.rows(so_far.eighths(), devices)
        rows = plan.rows(so_far.jobs(table.rows), devices, write)
    write(with_times(rows, plan.out, timed) if "ms" in table.columns else rows)
    return paths


def files(out: Path, table: Table) -> list[Path]:
    """What `show` writes: a CSV, a table and a picture."""
    return [out / f"{table.name}.{suffix}" for suffix in ("csv", "md", "png")]


def show(rows: Sequence[Row], table: Table, paths: Sequence[Path], paper: Mapping[str, tuple[float, ...]]) -> None:
    """Write `rows`, and what a paper prints of them, to `paths`, those of `files`."""
    as_csv, as_table, picture = paths
    study.write_csv(rows, as_csv)
    as_table.write_text(markdown(rows, table, paper), encoding="utf-8")
    first = table.columns[0]
    plots.methods(rows, first, COLUMNS[first][0], {method: scores[0] for method, scores in paper.items()}, picture)


def markdown(
    rows: Sequence[Row], table: Table = TABLES["methods"], paper: Mapping[str, tuple[float, ...]] | None = None
) -> str:
    """Mean ± standard deviation over seeds of each method's columns, a paper's first column beside them; remarks."""
    first = COLUMNS[table.columns[0]][0]
    heads = ["", *(COLUMNS[name][0] for name in table.columns)] + ([f"the paper's {first}"] if paper else [])
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for method in methods:
        chosen = [row for row in rows if row["method"] == method]
        cells = [_cell(name, [row[name] for row in chosen if name in row]) for name in table.columns]
        theirs = (paper or {}).get(method)
        cells += [f"{theirs[0]:.3f}" if theirs else ""] if paper else []
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines + _remarks(rows)) + "\n"


def _remarks(rows: Sequence[Row]) -> list[str]:
    """What no method found of a class, and what a constant mask scores."""
    constant = max((row["constant"] for row in rows if "constant" in row), default=None)
    lines = ["", f"A constant mask has {constant:.3f}."] if constant is not None else []
    missed = [f"{row['name']}: never found: {row['never_found']}" for row in rows if row.get("never_found")]
    return [*lines, *(line for text in missed for line in ("", text))]


def _cell(column: str, values: Sequence[float]) -> str:
    """The mean of `values`, and of scores their standard deviation; "" where there is none."""
    if not values:
        return ""
    written = COLUMNS[column][1]
    spread = f" ± {np.std(values, ddof=1):.3f}" if written == "{:.3f}" and len(values) > 1 else ""
    mean = float(np.mean(values))
    return "" if math.isnan(mean) else f"{written.format(mean)}{spread}"
