"""The paper's Table 1 from our own runs: every method on the same data, with the same budget, over several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.train import study
from engine.train.config import Config
from engine.train.study import Job, Row
from engine.train.sweep import NEVER

POST_TRAINING = "INT8 (W8A8), post-training"
FULL = "Full precision"

METHODS: dict[str, dict[str, Any]] = {
    FULL: {"floating": True},
    "INT8 weights (W8A1)": {"weights": ("int8",)},
    "INT4 weights (W4A1)": {"weights": ("int4",)},
    "Masked (ours)": {},
    "Ternary, TWN": {"weights": ("twn",)},
    "Ternary, max-abs": {"weights": ("max-abs",)},
    "Ternary, SEQ": {"weights": ("seq",)},
    "Binary": {"masked": ()},
}
"""What differs between the rows; everything else is the same."""

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
class Plan:
    """What every row has in common. A third of `crops` trains full precision; every row goes on from there.

    All runs share one split (seed 0). A seed here decides on weights and crops: the spread is that of training alone.
    """

    data: str
    out: Path
    seeds: int = 3
    width: int = 32
    crop: int = 192
    batch: int = 4
    crops: int = 24000
    contrast: str = "stretch"
    resize: int = 0

    def config(self, name: str, repeat: int, crops: int, **changes: Any) -> Config:
        out = str(self.out / "runs" / name)
        common = Config(self.data, out, width=self.width, crop=self.crop, batch=self.batch)
        common = replace(common, contrast=self.contrast, resize=self.resize)
        return replace(common, repeat=repeat, crops=crops, validate_every=NEVER, save_every=NEVER, **changes)

    def starts(self) -> list[Job]:
        """Full precision, a third of the budget: where every row of a seed begins."""
        return [
            Job(f"start-{seed}", self.config(f"start-{seed}", seed, self.crops // 3, floating=True), keep=True)
            for seed in range(self.seeds)
        ]

    def jobs(self) -> list[Job]:
        """Every method with every seed, seed by seed."""
        jobs = []
        for seed in range(self.seeds):
            init = str(self.out / "runs" / f"start-{seed}" / "checkpoint.pt")
            for method, changes in METHODS.items():
                name = f"{'-'.join(method.lower().replace(',', '').split())}-{seed}".replace("(", "").replace(")", "")
                config = self.config(name, seed, self.crops - self.crops // 3, init=init, **changes)
                jobs.append(Job(name, config, (("method", method), ("seed", seed)), int8=method == FULL))
        return jobs


def run(plan: Plan, devices: Sequence[str] = ("cpu",), paper: str = "") -> list[Path]:
    """Train what is missing and write table.csv, a row per run, and table.md; returns both paths."""
    study.run(plan.starts(), plan.out, devices)
    rows = [
        row | ({"method": POST_TRAINING} if row.get("int8") else {})
        for row in study.run(plan.jobs(), plan.out, devices)
    ]
    study.write_csv(rows, plan.out / "table.csv")
    text = markdown(rows, PAPER.get(paper, {}))
    (plan.out / "table.md").write_text(text)
    return [plan.out / "table.csv", plan.out / "table.md"]


def markdown(rows: Sequence[Row], paper: dict[str, tuple[float, ...]] | None = None) -> str:
    """Mean ± standard deviation over seeds of each method's Dice, IoU and F1, its zeros, and the paper's Dice."""
    lines = ["| | Dice | IoU | F1 | zeros | the paper's Dice |", "|---|---|---|---|---|---|"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for method in methods:
        chosen = [row for row in rows if row["method"] == method]
        cells = [_spread([row[metric] for row in chosen]) for metric in ("dice", "iou", "f1")]
        zeros = [_zeros(row) for row in chosen if row.get("cpu_products")]
        cells.append(f"{np.mean(zeros):.0%}" if zeros else "")
        theirs = (paper or {}).get(method)
        lines.append(f"| {method} | {' | '.join(cells)} | {f'{theirs[0]:.3f}' if theirs else ''} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def _zeros(row: Row) -> float:
    """Mean share of zeros over the twelve blocks."""
    found = [value for name, value in row.items() if name.startswith("zeros_") and name != "zeros_in"]
    return float(np.mean(found))
