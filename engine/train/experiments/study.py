"""Many training runs as one resumable study: a row of results for each, spread over devices."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from engine import format, whole
from engine.model import Model, Preprocessing
from engine.runtime import Engine
from engine.train import export, pretrained, split
from engine.train.config import PLACE, Config
from engine.train.data import dataset, layouts, samples
from engine.train.data.files import DataError
from engine.train.experiments import measure
from engine.train.experiments.int8 import quantized
from engine.train.experiments.measure import Pixels, Row
from engine.train.network import Network
from engine.train.network_engine import NetworkEngine
from engine.train.renamed import current
from engine.train.trainer import Trainer, device_named
from engine.train.validation import validate

NEVER = 1 << 30  # steps
FREE_FIELDS = (*PLACE, "init", "teacher", "data", "validate_every", "validate_on", "save_every")
"""In which a run may differ from that whose row is at hand: places, and how often it is looked at."""

OF_IMAGES = ("validation", "group", "channel", "page")
"""Settings that decide, beside the folder, on the images of a run."""

Images = Callable[[Config, str], str]
"""As `_images`."""


@dataclass(frozen=True)
class Plan:
    """What the runs of a study have in common: `base`, whose `out` is the folder of the study.

    They are scored on the validation part, unless `test` says TEST, the data set's own test part, or names a folder.
    """

    base: Config
    test: str = ""

    @property
    def out(self) -> Path:
        """The folder of the study."""
        return Path(self.base.out)

    def config(self, name: str, **changes: Any) -> Config:
        """The run called `name`, which hardly looks at its validation images on its way."""
        out = str(self.out / "runs" / name)
        return replace(self.base, out=out, validate_every=NEVER, validate_on=1, **changes)

    def checkpoint(self, name: str) -> str:
        """What the run called `name` leaves, if it is kept."""
        return str(self.out / "runs" / name / "checkpoint.pt")

    def rows(
        self,
        jobs: Sequence[Job],
        devices: Sequence[str] = ("cpu",),
        after: Callable[[list[Row]], None] = lambda rows: None,
    ) -> list[Row]:
        """`run` in this study's folder."""
        return run(jobs, self.out, devices, self.test, after)


@dataclass(frozen=True)
class Job:
    """One run of a study: its name, how it is trained, and the columns that say what it is.

    With `int8` the network, in full precision, is scored after training once more in post-training INT8. With `keep`
    its checkpoint stays, for others to start from.
    """

    name: str
    config: Config
    labels: tuple[tuple[str, str | int | float], ...] = ()
    int8: bool = False
    keep: bool = False


def run(
    jobs: Sequence[Job],
    out: Path,
    devices: Sequence[str] = ("cpu",),
    test: str = "",
    after: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Rows of `jobs` in their order, one more for each in INT8. What is finished is not done again.

    Every entry of `devices` is a process that takes one job after the other; "cpu" may come more than once. A job that
    was stopped goes on from its last checkpoint. `after` each job it is told all rows so far. A device or a `test`
    that is not there is said before any job.
    """
    images = cache(_images)  # every folder is read once
    for job in jobs:
        _check(job, out, test, images)
    waiting = [job for job in jobs if not _file(job, out).is_file()]
    if waiting:
        scored_on(waiting[0].config, [], test)
        for device in devices:
            device_named(device)
    (out / "rows").mkdir(parents=True, exist_ok=True)
    _held = whole.hold(out)  # until this returns

    def rows() -> list[Row]:
        return [row for job in jobs if _file(job, out).is_file() for row in _read(_file(job, out))["rows"]]

    with tqdm(total=len(jobs), initial=len(jobs) - len(waiting), unit="run", dynamic_ncols=True) as bar:
        for row in _perform_all(waiting, out, devices, test):
            bar.update()
            bar.set_postfix(run=row["name"], dice=f"{row['dice']:.4f}")
            after(rows())
    return rows()


def _perform_all(jobs: Sequence[Job], out: Path, devices: Sequence[str], test: str) -> Iterator[Row]:
    if len(devices) == 1:
        for job in jobs:
            yield perform(job, out, devices[0], test)
        return
    context = get_context("spawn")
    free = context.SimpleQueue()
    for device in devices:
        free.put(device)
    with ProcessPoolExecutor(len(devices), context, _take_device, (free, len(devices))) as pool:
        pending = [pool.submit(_perform_here, job, out, test) for job in jobs]
        try:
            for done in as_completed(pending):
                yield done.result()
        finally:
            for future in pending:
                future.cancel()


_device = "cpu"


def _take_device(free: Any, workers: int) -> None:
    global _device
    _device = free.get()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def _perform_here(job: Job, out: Path, test: str) -> Row:
    return perform(job, out, _device, test)


def perform(job: Job, out: Path, device: str, test: str = "") -> Row:
    """Train one job, score it (`scored_on`), write its rows and, where it is of bits, its model file."""
    started = time.monotonic()
    config = replace(job.config, device=device)
    made_of = _made_of(job, out, test)
    run = Trainer(config, load=remembered, quiet=True)
    run.fit()
    run.network.eval()
    held = scored_on(config, run.validation, test)
    if export.exportable(config):
        parts = dataset.Parts.of(run.training, run.validation)
        scores = _scored_file(measure.model_of(run.network, config, job.name, parts), config, held, out)
    else:
        scores = _scored_network(run.network, config, held)
    rows = [{"name": job.name, **dict(job.labels), **scores}]
    if job.int8:
        batches = (pixels for pixels, _ in run.as_they_are())
        eighth = quantized(run.network, batches)
        rows.append({"name": f"{job.name}-int8", **dict(job.labels), "int8": 1})
        rows[1] |= measure.columns(validate(eighth, held, config))
    rows[0]["seconds"] = round(time.monotonic() - started, 1)
    run.save() if job.keep else shutil.rmtree(run.out)
    state = {"config": _comparable(job.config), "test": Path(test).name, "made_of": made_of, "rows": rows}
    whole.write(_file(job, out), json.dumps(state, indent=1).encode())
    return rows[0]


def _scored_file(model: Model, config: Config, held: list[dataset.Sample], out: Path) -> Row:
    """Of bits: the model file that is written, and what it is worth."""
    (out / "models").mkdir(exist_ok=True)
    path = out / "models" / f"{model.name}.safetensors"
    format.save(model, path)
    model = format.load(path)
    row = measure.columns(measure.score(model, held)) | measure.counts(model)
    if not config.classes:
        with Engine.load(model) as engine:
            row |= measure.salient(engine, held)
    return row | {"bytes": path.stat().st_size}


def _scored_network(network: Network, config: Config, held: list[dataset.Sample]) -> Row:
    """Of what no kernel runs; of full precision `bytes` are those of its weights."""
    row = measure.columns(validate(network, held, config))
    if config.full_precision:
        if not config.classes:
            row |= measure.salient(NetworkEngine(network, config), held)
        row["bytes"] = 4 * sum(weights.numel() for weights in network.parameters())
    return row


def scored_on(config: Config, validation: list[dataset.Sample], test: str) -> list[dataset.Sample]:
    """`validation`, or the data set's test part, or the samples of the folder `test`; raises DataError."""
    if not test:
        return validation
    if test != dataset.TEST:
        return layouts.samples(test, config.selection)
    found = [sample for sample in split.samples(config) if sample.part == dataset.TEST]
    if not found:
        raise DataError(f"{config.data} has no test part of its own; name a folder to score on")
    return found


def _file(job: Job, out: Path) -> Path:
    """Where the rows of a job are, once it is finished."""
    return out / "rows" / f"{job.name}.json"


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def _check(job: Job, out: Path, test: str, images: Images) -> None:
    """Raise ValueError where the rows that a job has left are of something else than is asked for now."""
    path = _file(job, out)
    if not path.is_file():
        return
    state = _read(path)
    kept = {name: tuple(value) if isinstance(value, list) else value for name, value in state["config"].items()}
    known = Config(job.config.data, job.config.out, **current(kept))  # fields that came later hold their defaults
    if _comparable(known) != _comparable(job.config):
        raise ValueError(f"{path} is of another configuration; choose another output folder")
    if state.get("test", "") != Path(test).name:
        raise ValueError(f"{path} was scored on other images; choose another output folder")
    if "made_of" not in state:  # of an earlier version
        return
    there, here = state["made_of"], _made_of(job, out, test, images)
    if there["images"] != here["images"]:
        raise ValueError(f"{path} has learned from other images, or was scored on others; choose another output folder")
    if there["init"] != here["init"]:
        raise ValueError(f"{path} began from another --init; choose another output folder")


def _made_of(job: Job, out: Path, test: str, images: Images | None = None) -> dict[str, str]:
    """Digests of what decides on a row beside its configuration, wherever that lies: images, and what it begins from.

    What the study itself has trained is not looked at.
    """
    config = job.config
    init = "" if not config.init or Path(config.init).is_relative_to(out) else config.init
    folders = Config(config.data, "", **{name: getattr(config, name) for name in OF_IMAGES})
    began = hashlib.sha256(pretrained.file_of(init).read_bytes()).hexdigest() if init else ""
    return {"images": (images or _images)(folders, test), "init": began}


def _images(config: Config, test: str) -> str:
    """Digest of what decides on the split of the samples of `config`, and of those of `test`; raises DataError."""
    found = [*dataset.usable(split.samples(config)), *scored_on(config, [], test)]
    told = [(s.name, s.part, s.split_group, s.stratum, s.image.stat().st_size) for s in found]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _comparable(config: Config) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(config).items() if name not in FREE_FIELDS}
    return dict(json.loads(json.dumps(kept)))


@cache
def remembered(sample: dataset.Sample, classes: int, how: Preprocessing) -> tuple[Pixels, Pixels]:
    """`samples.load`, remembered: the jobs of a process share their images."""
    return samples.load(sample, classes, how)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write `rows` with every column that any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
