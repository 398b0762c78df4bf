"""How many images a model file saves: runs from it and from nothing on a few images that it has not seen."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.train import pretrained, split
from engine.train.config import Config
from engine.train.data import dataset
from engine.train.data.dataset import TRAINING, VALIDATION, VOID, Sample
from engine.train.data.files import DataError
from engine.train.experiments import measure, table
from engine.train.experiments.measure import Row
from engine.train.experiments.rows import Table
from engine.train.experiments.study import Job

IMAGES = (10, 30, 100)
TABLE = Table("fine-tuning", {}, ("dice", "iou", "f1"))
OF_BITS = ("annealing", "zeros_from")
"""Settings of a run that begins with bits, which one from nothing does not share."""


@dataclass(frozen=True)
class Plan(table.Plan):
    """What is trained: for each number of `images` from the model `init`, from nothing, and over full precision.

    Every seed draws its own images, more of them where there are more; all are scored on the same.
    """

    init: str = ""
    images: tuple[int, ...] = IMAGES

    @property
    def _name(self) -> str:
        return Path(self.init).stem

    def divide(self) -> tuple[list[Sample], list[Sample]]:
        """(to learn from, to score on): samples that `init` has not seen; raises DataError where there are too few."""
        everything = dataset.usable(split.samples(self.base))
        seen = set(pretrained.load_any(self.init).seen(everything, self.base.data))
        unseen = [sample for sample in everything if sample.name not in seen]
        if len(unseen) < 2:
            raise DataError(f"{self.init} has seen all but {len(unseen)} of the samples in {self.base.data}")
        if self.base.share and all(sample.part == VALIDATION for sample in unseen):  # what is for training is seen
            unseen = [replace(sample, part="") for sample in unseen]
        able, held = dataset.split(unseen, self.base.share, self.base.seed)
        if not able:
            raise DataError(f"{self.init} has seen all of the samples in {self.base.data} that are not for validation")
        if fault := dataset.lopsided(able, held, self.base.share):
            raise DataError(f"of what {self.init} has not seen {fault}")
        return able, held

    def counts(self, able: int) -> list[int]:
        """`images`, none more than there are."""
        return sorted({min(count, able) for count in self.images})

    def folders(self) -> dict[tuple[int, int], Path]:
        """A data set for each (number of images, seed), written where it does not lie there as it is now."""
        able, held = self.divide()
        found = {}
        for seed in range(self.seeds):
            order = np.random.default_rng((self.base.seed, seed)).permutation(len(able))
            for count in self.counts(len(able)):
                folder = self.out / "data" / f"{count}-{seed}"
                _write(folder, [able[i] for i in order[:count]], held, len(self.base.classes))
                found[count, seed] = folder
        return found

    def few_starts(self, folders: dict[tuple[int, int], Path]) -> list[Job]:
        """Full precision, a third of the budget, on each."""
        return [
            replace(job, config=replace(job.config, data=str(folder)))
            for (count, seed), folder in folders.items()
            for job in [self._begin(f"start-{count}", seed, full_precision=True)]
        ]

    def few_jobs(self, folders: dict[tuple[int, int], Path]) -> list[Job]:
        """The rows on each, the fewest images first."""
        bits = pretrained.settings(self.init)
        rows: dict[str, dict[str, Any]] = {
            f"from {self._name}": {"init": self.init, **{name: bits[name] for name in OF_BITS if name in bits}},
            "from nothing": {},
            "from nothing, over full precision": {"samples": self.base.samples - self.third},
        }
        jobs = []
        for (count, seed), folder in sorted(folders.items()):
            for method, changes in rows.items():
                name = f"{method.replace(',', '').replace(' ', '-')}-{count}-{seed}"
                start = {"init": self.checkpoint(f"start-{count}-{seed}")} if "samples" in changes else {}
                own: dict[str, Any] = {"init": ""} | changes | start
                config = self.config(name, run_seed=seed, data=str(folder), **own)
                labels = (("method", f"{count} images, {method}"), ("images", count), ("seed", seed))
                jobs.append(Job(name, config, labels))
        return jobs


def plan(data: str, out: Path, init: str, seeds: int = 3, images: Sequence[int] = IMAGES, **settings: Any) -> Plan:
    """A plan for networks of the shape of `init`, but for what `settings` (of Config) say."""
    shape = {name: value for name, value in pretrained.settings(init).items() if name not in OF_BITS}
    return Plan(Config(data, str(out), **{**shape, **settings}), "", seeds, init, tuple(images))


def run(plan: Plan, devices: Sequence[str] = ("cpu",)) -> list[Path]:
    """Train what is missing; writes fine-tuning.csv, .md and .png after every row, and returns their paths."""
    paths = table.files(plan.out, TABLE)
    before = _as_it_is(plan)

    def write(rows: Sequence[Row]) -> None:
        table.show([*before, *rows], TABLE, paths, {})

    for seeds in range(1, plan.seeds + 1):
        so_far = replace(plan, seeds=seeds)
        folders = so_far.folders()
        plan.rows(so_far.few_starts(folders), devices)
        write(plan.rows(so_far.few_jobs(folders), devices, write))
    return paths


def _as_it_is(plan: Plan) -> list[Row]:
    """The scores of the model file itself, where it has the classes."""
    found = pretrained.load_any(plan.init)
    if isinstance(found, pretrained.Pretrained) or found.classes != plan.base.classes:
        return []
    scores = measure.columns(measure.score(found.model, plan.divide()[1]))
    return [{"name": "as-it-is", "method": f"{Path(plan.init).stem} as it is", "images": 0, **scores}]


def _write(folder: Path, learned: Sequence[Sample], held: Sequence[Sample], classes: int) -> None:
    """A data set of links to images, masks drawn anew, and an index of their parts, which is written last.

    Nothing is done where `folder` is just that.
    """
    parts = [*((TRAINING, sample) for sample in learned), *((VALIDATION, sample) for sample in held)]
    named = {sample.name.replace("/", "-"): sample for _, sample in parts}
    links = {folder / "images" / f"{name}{s.image.suffix.lower()}": s.image.resolve() for name, s in named.items()}
    table = io.StringIO()
    void = str(VOID) if classes else ""
    lines = ((name, part, void) for name, (part, _) in zip(named, parts, strict=True))
    csv.writer(table, lineterminator="\n").writerows([("name", "part", "void"), *lines])
    index = folder / "index.csv"
    there = index.read_text(encoding="utf-8") if index.is_file() else ""
    if there == table.getvalue() and all(link.resolve() == image for link, image in links.items()):
        return
    shutil.rmtree(folder, ignore_errors=True)
    for below in ("images", "masks"):
        (folder / below).mkdir(parents=True)
    for link, image in links.items():
        link.symlink_to(image)
    for name, sample in named.items():
        mask = sample.load(classes)[1]
        Image.fromarray(mask if classes else mask * np.uint8(255)).save(folder / "masks" / f"{name}.png")
    index.write_text(table.getvalue(), encoding="utf-8")
