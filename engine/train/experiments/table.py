"""Tables from our own runs, all on the same data with the same budget: the paper's Table 1, and the recipe's parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.train.config import Config
from engine.train.experiments import study
from engine.train.experiments.measure import Row
from engine.train.experiments.study import Job

POST_TRAINING = "INT8 (W8A8), post-training"
FULL = "Full precision"
OURS = "Masked (ours)"

METHODS: dict[str, dict[str, Any]] = {
    FULL: {"full_precision": True},
    "INT8 weights (W8A1)": {"weights": ("int8",)},
    "INT4 weights (W4A1)": {"weights": ("int4",)},
    OURS: {},
    "Ternary, TWN": {"weights": ("twn",)},
    "Ternary, max-abs": {"weights": ("max-abs",)},
    "Ternary, SEQ": {"weights": ("seq",)},
    "Binary": {"masked": ()},
}
"""What differs between the rows of the paper's table; everything else is the same."""

RECIPE: dict[str, dict[str, Any]] = {
    OURS: {},
    "with the start as teacher": {"teacher": True},
    "with a third of the budget on 8-bit weights": {"start": "eighth"},
    "no start in full precision": {"start": ""},
    "bits from the first step": {"annealing": 0.0},
    "all zeros from the first step": {"zeros_from": 0.9},
    "no random scales, turns and flips": {"ablate": ("geometry",)},
    "no random colours": {"ablate": ("color",)},
    "no Dice term in the loss": {"ablate": ("dice",)},
    "batch norm as training left it": {"ablate": ("batch-norm-re-estimation",)},
}
"""The same for the parts of the recipe: one is added or left out in each row."""

TABLES = {"methods": ("table", METHODS), "recipe": ("recipe", RECIPE)}
"""File name and rows of each."""

THIRDS = {"": 0, "start": 1, "eighth": 2}
"""Thirds of the budget that are spent where a row begins: at random weights, at full precision, after 8-bit weights."""

PAPER = {
    "Carvana": {FULL: (0.997, 0.994, 0.997), "INT8 weights (W8A1)": (0.994,), "INT4 weights (W4A1)": (0.989,),
                "Masked (ours)": (0.981, 0.963, 0.981), "Binary": (0.662,)},
    "ISIC": {FULL: (0.771, 0.644, 0.783), "INT8 weights (W8A1)": (0.763,), "INT4 weights (W4A1)": (0.753,),
             "Masked (ours)": (0.750, 0.617, 0.763), "Binary": (0.560,)},
    "Nuclei": {FULL: (0.867, 0.776, 0.874), "INT8 weights (W8A1)": (0.823,), "INT4 weights (W4A1)": (0.819,),
               "Masked (ours)": (0.817, 0.722, 0.839), "Binary": (0.434,)},
}  # fmt: skip
"""Dice, IoU and F1 that the paper's Table 1 prints, as far as they are known to us."""


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

    def starts(self) -> list[Job]:
        """Full precision, a third of the budget: where every row of a seed begins."""
        return [self._start("start", seed, full_precision=True) for seed in range(self.seeds)]

    def eighths(self) -> list[Job]:
        """8-bit weights and bits for activations, another third from there."""
        return [
            self._start("eighth", seed, init=self.checkpoint(f"start-{seed}"), weights=("int8",))
            for seed in range(self.seeds)
        ]

    def _start(self, kind: str, seed: int, **changes: Any) -> Job:
        name = f"{kind}-{seed}"
        return Job(name, self.config(name, run_seed=seed, samples=self.third, **changes), keep=True)

    def jobs(self, methods: Mapping[str, dict[str, Any]] = METHODS) -> list[Job]:
        """Every method with every seed, seed by seed."""
        return [self._job(method, seed, **methods[method]) for seed in range(self.seeds) for method in methods]

    def _job(self, method: str, seed: int, start: str = "start", teacher: bool = False, **changes: Any) -> Job:
        name = f"{'-'.join(method.lower().replace(',', '').split())}-{seed}".replace("(", "").replace(")", "")
        config = self.config(
            name,
            run_seed=seed,
            samples=self.base.samples - THIRDS[start] * self.third,
            init=self.checkpoint(f"{start}-{seed}") if start else "",
            teacher=self.checkpoint(f"start-{seed}") if teacher else "",
            **changes,
        )
        return Job(name, config, (("method", method), ("seed", seed)), int8=method == FULL)


def plan(data: str, out: Path, seeds: int = Plan.seeds, **settings: Any) -> Plan:
    """A plan on images with their contrast stretched, but for what `settings` (of Config) say."""
    return Plan(Config(data, str(out), **{"contrast": "stretch", **settings}), seeds)


def run(plan: Plan, devices: Sequence[str] = ("cpu",), paper: str = "", over: str = "methods") -> list[Path]:
    """Train what is missing for the rows of `TABLES[over]`, which share their starts.

    Writes table.csv, a row per run, and table.md (recipe.csv and recipe.md over the recipe); returns both paths.
    """
    name, methods = TABLES[over]
    study.run(plan.starts(), plan.out, devices)
    if any(changes.get("start") == "eighth" for changes in methods.values()):
        study.run(plan.eighths(), plan.out, devices)
    rows = [
        row | ({"method": POST_TRAINING} if row.get("int8") else {})
        for row in study.run(plan.jobs(methods), plan.out, devices)
    ]
    study.write_csv(rows, plan.out / f"{name}.csv")
    (plan.out / f"{name}.md").write_text(markdown(rows, PAPER.get(paper, {})))
    return [plan.out / f"{name}.csv", plan.out / f"{name}.md"]


def markdown(rows: Sequence[Row], paper: Mapping[str, tuple[float, ...]] | None = None) -> str:
    """Mean ± standard deviation over seeds of each method's Dice, IoU and F1, its zeros, the paper's Dice; remarks."""
    heads = ["", "Dice", "IoU", "F1", "zeros"] + (["the paper's Dice"] if paper else [])
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for method in methods:
        chosen = [row for row in rows if row["method"] == method]
        cells = [_spread([row[metric] for row in chosen]) for metric in ("dice", "iou", "f1")]
        zeros = [_zeros(row) for row in chosen if row.get("cpu_products")]
        cells.append(f"{np.mean(zeros):.0%}" if zeros else "")
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


def _spread(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def _zeros(row: Row) -> float:
    """Mean share of zeros over the twelve blocks."""
    found = [value for name, value in row.items() if name.startswith("zeros_") and name != "zeros_in"]
    return float(np.mean(found))
