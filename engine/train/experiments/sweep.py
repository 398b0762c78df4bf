"""Sweeps over many short runs: the paper's, from one shared checkpoint, over configurations, zeros and bits per block;
and over widths, activation bits and zeros together, Dice against milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.networks import unet
from engine.strategy import CostModel
from engine.train.config import Config
from engine.train.experiments import plots, shapley, study
from engine.train.experiments.measure import Row, milliseconds, with_times
from engine.train.experiments.study import Job

ZEROS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
BITS = {"binary": 1, "masked": 2, "int4": 4, "int8": 8}
"""Stored bits of a weight, by what holds it."""

WIDTHS = (8, 16, 32)
ACTIVATION_BITS = (1, 2)
FLOAT = 32  # as activation bits: full precision
PRICED_ZEROS = (0.0, 0.8, 0.9, 0.95)
"""What a sweep over widths combines."""

ENDS = 3  # runs of the two configurations that every Shapley value rests on


DEFAULTS: dict[str, Any] = {"width": 8, "crop": 64, "batch": 16, "samples": 2000, "contrast": "stretch"}
"""Where a sweep's many short runs differ from a training run."""


@dataclass(frozen=True)
class Plan(study.Plan):
    """What a sweep trains. `start` is the shared checkpoint's run, over `start_samples`; the others begin there.

    The start has bits for activations and 8-bit weights: stage one of two, and neutral between masked and binary. Of a
    sweep over `widths` each has a start of its own, in full precision.
    """

    start_samples: int = 24000
    widths: tuple[int, ...] = WIDTHS

    @property
    def start(self) -> Job:
        """The shared checkpoint."""
        return Job("start", self.config("start", samples=self.start_samples, weights=("int8",)), keep=True)

    def starts(self) -> list[Job]:
        """Full precision of every width."""
        return [
            Job(name, self.config(name, samples=self.start_samples, width=width, full_precision=True), keep=True)
            for width, name in ((width, f"start-{width}") for width in self.widths)
        ]

    def run(self, name: str, **changes: Any) -> Config:
        """A run that begins with the shared checkpoint; activations are bits from its first step."""
        return self.config(name, init=self.checkpoint("start"), annealing=0.0, **changes)


def plan(
    data: str,
    out: Path,
    start_samples: int = Plan.start_samples,
    test: str = "",
    widths: Sequence[int] = WIDTHS,
    **settings: Any,
) -> Plan:
    """A plan by DEFAULTS, but for what `settings` (of Config) say."""
    return Plan(Config(data, str(out), **{**DEFAULTS, **settings}), test, start_samples, tuple(widths))


def blocks(plan: Plan, members: shapley.Members) -> list[Job]:
    """A run for each configuration, bool [n, 12]: which blocks are masked. The first two, the ends, run ENDS times."""
    jobs = []
    for i, member in enumerate(members):
        masked = tuple(block for block, chosen in zip(unet.BLOCKS, member, strict=True) if chosen)
        code = "".join("1" if chosen else "0" for chosen in member)
        for run_seed in range(ENDS if i < 2 else 1):
            name = f"blocks-{code}-{run_seed}"
            config = plan.run(name, masked=masked, zeros_by="cost", run_seed=run_seed)
            jobs.append(Job(name, config, (("masked", " ".join(masked)), ("blocks", len(masked)))))
    return jobs


def zeros(plan: Plan) -> list[Job]:
    """A run for each share of zeros, shared out alike over the layers and by cost."""
    jobs = []
    for by in ("layer", "cost"):
        for share in ZEROS:
            name = f"zeros-{by}-{share}"
            config = plan.run(name, zeros=share, zeros_by=by)
            jobs.append(Job(name, config, (("zeros_by", by), ("zeros", share))))
    return jobs


def bits(plan: Plan) -> list[Job]:
    """A run for each block and kind of weights there (appendix A.3), all other blocks being masked."""
    jobs = [Job("bits-none", plan.run("bits-none"), (("block", ""), ("weights", "masked"), ("bits", 2)))]
    for block in unet.BLOCKS:
        for kind, count in BITS.items():
            if kind == "masked":
                continue
            name = f"bits-{block}-{kind}"
            if kind == "binary":
                others = tuple(other for other in unet.BLOCKS if other != block)
                config = plan.run(name, masked=others)
            else:
                config = plan.run(name, weights=(f"{block}={kind}",))
            jobs.append(Job(name, config, (("block", block), ("weights", kind), ("bits", count))))
    return jobs


def widths(plan: Plan) -> list[Job]:
    """For each width full precision, and every pair of activation bits and zeros with it as start and teacher."""
    jobs = []
    for width in plan.widths:
        start = plan.checkpoint(f"start-{width}")
        name = f"widths-{width}-float"
        labels: tuple[tuple[str, int | float], ...] = (("width", width), ("activation_bits", FLOAT), ("zeros", 0.0))
        jobs.append(Job(name, plan.config(name, width=width, init=start, full_precision=True), labels))
        for bits in ACTIVATION_BITS:
            for share in PRICED_ZEROS:
                name = f"widths-{width}-{bits}-{share}"
                masked: dict[str, Any] = {"zeros": share} if share else {"masked": ()}
                config = plan.config(name, width=width, init=start, teacher=start, activation_bits=bits, **masked)
                labels = (("width", width), ("activation_bits", bits), ("zeros", share))
                jobs.append(Job(name, config, labels))
    return jobs


def run(
    over: str,
    plan: Plan,
    count: int = 64,
    stratified: bool = True,
    devices: Sequence[str] = ("cpu",),
    measure: Callable[[Sequence[Path]], list[float]] = milliseconds,
) -> list[Path]:
    """Sweep over "blocks" (`count` configurations), "zeros", "bits" or "widths"; returns its table and pictures.

    The table is written after every run, and with milliseconds, measured anew each time, once all runs are there.
    """
    table = plan.out / {"blocks": "sweep.csv"}.get(over, f"{over}.csv")
    starts = plan.starts() if over == "widths" else [plan.start]
    if over == "blocks":
        jobs = blocks(plan, shapley.coalitions(len(unet.BLOCKS), count, plan.base.seed, stratified))
    else:
        jobs = {"zeros": zeros, "bits": bits, "widths": widths}[over](plan)
    plan.rows(starts, devices[: len(starts)])
    rows = plan.rows(jobs, devices, lambda found: study.write_csv(found, table))
    if over != "bits":
        rows = with_times(rows, plan.out, measure)
    study.write_csv(rows, table)
    return [table, *DRAW[over](rows, plan)]


def _draw_blocks(rows: Sequence[Row], plan: Plan) -> list[Path]:
    members = np.array([[block in row["masked"].split() for block in unet.BLOCKS] for row in rows])
    values = np.array([row["dice"] for row in rows])
    flat = unet.layers(plan.base.width)
    costs = {backend: CostModel(backend).scores(flat) for backend in ("bmma", "cpu")}
    worth = (shapley.estimate(members, values), *shapley.interval(members, values))
    study.write_csv(
        [
            {"block": block, "shapley": f"{phi:.5f}", "low": f"{low:.5f}", "high": f"{high:.5f}"}
            | {f"{backend}_score": f"{scores[block]:.4f}" for backend, scores in costs.items()}
            for block, phi, low, high in zip(unet.BLOCKS, *worth, strict=True)
        ],
        plan.out / "shapley.csv",
    )
    pictures = {
        "zeros-per-block": lambda path: plots.zeros_per_block(rows, path),
        "dice-operations": lambda path: plots.dice_against_operations(rows, path),
        "shapley": lambda path: plots.shapley(unet.BLOCKS, *worth, path),
        "cost-profile": lambda path: plots.cost_profile(costs, path),
        "pareto": lambda path: plots.pareto(rows, path),
    }
    return [plan.out / "shapley.csv", *_drawn(pictures, plan.out)]


def _draw_zeros(rows: Sequence[Row], plan: Plan) -> list[Path]:
    return _drawn({"zeros": lambda path: plots.zeros_curve(rows, path)}, plan.out)


def _draw_bits(rows: Sequence[Row], plan: Plan) -> list[Path]:
    return _drawn({"bits": lambda path: plots.bits_per_block(rows, path)}, plan.out)


def _draw_widths(rows: Sequence[Row], plan: Plan) -> list[Path]:
    score = "f1" if plan.base.classes else "dice"
    return _drawn({"widths": lambda path: plots.dice_against_milliseconds(rows, FLOAT, score, path)}, plan.out)


def _drawn(pictures: dict[str, Callable[[Path], None]], out: Path) -> list[Path]:
    for name, draw in pictures.items():
        draw(out / f"{name}.png")
    return [out / f"{name}.png" for name in pictures]


DRAW = {"blocks": _draw_blocks, "zeros": _draw_zeros, "bits": _draw_bits, "widths": _draw_widths}
