"""One command from a folder to a served model: look, measure, train in stages, export with its proof, compare, report.

By the clock everything shares the minutes: what the end takes is kept from the start, and every stage gets its share of
what is left when it begins.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from engine import whole
from engine.train import checkpoint, export, pretrained, threads
from engine.train.config import MINUTES, Config
from engine.train.data import dataset, leaks, samples
from engine.train.data.dataset import Sample
from engine.train.pace import Clock
from engine.train.recipe import budget, look, record
from engine.train.recipe.budget import Stopwatch
from engine.train.recipe.finish import Files, Finish
from engine.train.recipe.record import Record
from engine.train.recipe.speed import Speed
from engine.train.recipe.stages import FINE_TUNE, FULL_PRECISION, Stage, settled, stages
from engine.train.resume import ResumeError
from engine.train.trainer import Interrupted, Trainer
from engine.train.validation import evenly


@dataclass(frozen=True)
class Outcome:
    """What a recipe leaves, and what to type next."""

    files: Files
    commands: list[str]

    @property
    def summary(self) -> list[str]:
        """Where everything is."""
        files = self.files
        return [f"report: {files.page}", f"model: {files.model}", f"card: {files.card}"]


class Recipe:
    """`Recipe(given).run()`; `given` are settings of `Config` by name, data and out among them, that stand as they are.

    The budget is `minutes`, of everything, or `samples`, of training alone. `say` is told what happens; `gone` are the
    seconds that the command has taken so far.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        say: Callable[[str], None] = print,
        clock: Clock = time.monotonic,
        gone: float = 0.0,
    ) -> None:
        self.given = dict(given)
        self.out, self.data = Path(given["out"]), str(given["data"])
        self._say, self._clock = say, clock
        self._watch = Stopwatch(clock, gone)
        self._load = cache(samples.load)  # every image is read once, whatever stages learn from it
        self._trainer: Trainer | None = None
        self._asked_to_stop = False
        if (self.out / "checkpoint.pt").is_file():
            raise ResumeError(
                f"{self.out} holds a run of one part (--full-precision or --bits-only): go on with that flag, "
                "or choose another output folder"
            )
        self.out.mkdir(parents=True, exist_ok=True)
        self._hold = whole.hold(self.out)
        self.record = Record.read(self._record_file, self.given)
        self._watch.before = self.record.spent
        self._extend()

    @property
    def minutes(self) -> float:
        """The budget by the clock; 0 where it is one of samples."""
        return 0.0 if "samples" in self.given else float(self.given.get("minutes") or MINUTES)

    def stop(self) -> None:
        """Ask to save and raise Interrupted soon."""
        self._asked_to_stop = True
        if self._trainer:
            self._trainer.stop()

    def run(self) -> Outcome:
        """Do what is left to do."""
        files = Files(self.out)
        commands = self._commands(files.model)
        if self.record.finished:
            return Outcome(files, commands)
        threads.choose()
        self._look()
        order = self._stages()
        self._save()  # once its settings are known to go together
        try:
            for stage in order:
                self._train(stage)
            self._trainer = None
            self._load.cache_clear()
            self._finish(files, commands)
            self.record.finished = True
        finally:
            self._save()
        return Outcome(files, commands)

    def _commands(self, model: Path) -> list[str]:
        """What to type next."""
        images = Path(self.data) / "images"
        folder = images if images.is_dir() else Path(self.data)
        return [
            shlex.join(["mbunet", "serve", "--model", str(model)]),
            shlex.join(["mbunet", "segment", str(folder), "-o", str(self.out / "masks"), "--model", str(model)]),
        ]

    def _look(self) -> None:
        found = look.look(self.given)
        self._say(
            "\n".join([f"{self.data}: {found.samples} samples looked at", *(f"  {line}" for line in found.lines)])
        )
        if not self.record.choices and not self.record.speed:
            self.record.choices, measured = look.choose(self.given, found, self.minutes, self._say)
            self.record.speed = asdict(measured) if measured else {}
        self._say("\n".join(f"  {choice}" for choice in self.record.choices) or "  every setting is the default")

    @cached_property
    def base(self) -> Config:
        """What all stages have in common, once the folder has been looked at."""
        config = Config(self.data, str(self.out), **look.settings(self.given, self.record.choices))
        if self.minutes:
            return config
        return replace(config, samples=self.given["samples"] - int(sum(self.record.added)))

    @cached_property
    def _held(self) -> list[Sample]:
        """The validation images, as a first stage would hold them."""
        return look.held(self.given, self.base)

    def _looked_at(self, full_precision: bool) -> int:
        """How many of them a look takes in: as asked for, or those that there is time for."""
        if self.base.validate_on or not self.minutes:
            return self.base.validate_on
        return budget.held_limit(self._held, self.base, self._speed, full_precision, self.minutes)

    @property
    def _speed(self) -> Speed:
        found = self.record.speed
        return Speed(**dict.fromkeys(("bits", "compared"), found["pixels"]) | found)  # earlier versions had one of them

    @property
    def _full(self) -> str:
        """The checkpoint of full precision that bits are compared with; "" where there is none."""
        first = self._stages()[0]
        return str(self._checkpoint(first)) if first.full_precision else self.base.teacher

    def _stages(self) -> list[Stage]:
        base = self.base
        seen = self._speed.samples * 60 * self.minutes if self.minutes else base.samples
        found = stages(self._kin(base), seen, base.zeros, base.learning_rate)
        for k, more in enumerate(self.record.added, start=2):
            name, changes = f"{FINE_TUNE}-{k}", settled(base.zeros, base.learning_rate, k)
            found.append(Stage(name, 1.0, changes | ({} if self.minutes else {"samples": int(more)})))
        return found

    def _kin(self, base: Config) -> bool:
        """Whether full precision is at hand, as weights for this very network, or weights of bits to begin with."""
        if base.init or not base.teacher:
            return bool(base.init)
        theirs = pretrained.load(base.teacher).config
        return all(getattr(theirs, name) == getattr(base, name) for name in pretrained.SHAPE)

    def _train(self, stage: Stage) -> None:
        if self._told(stage).get("scored"):  # it has ended, whatever its share would be now
            return
        threads.choose()
        config = self._config(stage)
        self._trainer = trainer = Trainer(config, load=self._load, parts=self._parts(), clock=self._clock)
        if self._asked_to_stop:
            trainer.stop()
        self._say(f"\n{stage.name}: {'on from there' if trainer.step else _what(stage, config)}")
        if not trainer.step and stage == self._stages()[0]:
            self._warn(trainer)
        try:
            found = trainer.run()
        except Interrupted as stopped:
            raise Interrupted(f"{stage.name} {stopped}") from None
        self._say(f"{stage.name}: {found}")
        self._save()
        if self._asked_to_stop:
            raise Interrupted(f"stopped after {stage.name}, which is saved; the same command goes on from there")

    def _warn(self, trainer: Trainer) -> None:
        """Of images on both sides of the split; the stage's minutes run meanwhile. The report says it too."""
        seconds = min(leaks.SECONDS, 60 * budget.COMPARED * self.minutes) if self.minutes else leaks.SECONDS
        self.record.warnings = list(dict.fromkeys(trainer.warnings))
        if said := leaks.warning(trainer.training, trainer.validation, seconds):
            self._say(f"warning: {said}")
            self.record.warnings.append(said)
        self._save()

    def _config(self, stage: Stage) -> Config:
        base, order = self.base, self._stages()
        names = [one.name for one in order]
        at = names.index(stage.name)
        before = str(self._checkpoint(order[at - 1])) if at else base.init or (base.teacher if self._kin(base) else "")
        teacher = base.teacher or (str(self._checkpoint(order[0])) if order[0].full_precision and at else "")
        config = replace(
            base,
            out=str(self.out / stage.name),
            full_precision=stage.full_precision,
            init=before,
            teacher=teacher,
            **stage.changes,
        )
        if not self.minutes:
            share = stage.share / sum(one.share for one in order[: len(order) - len(self.record.added)])
            seen = max(config.batch, round(base.samples * share))
            return replace(config, samples=stage.changes.get("samples", seen))
        left = sum(one.share for one in order[at:])
        told, with_full = self._told(stage), bool(self._full)
        compared = evenly(self._held, self._looked_at(with_full))
        end = budget.end_seconds(self._held, compared, base, self._speed, with_full, self.minutes, self._watch.slowness)
        spent = float(told.get("spent", 0.0))
        seconds = (60 * self.minutes - self._watch.spent - end + spent) * stage.share / left
        looked_at = told["config"]["validate_on"] if told else self._looked_at(stage.full_precision)
        return replace(config, minutes=max(seconds, 1.0) / 60, validate_on=looked_at)

    def _checkpoint(self, stage: Stage) -> Path:
        return self.out / stage.name / "checkpoint.pt"

    def _told(self, stage: Stage) -> dict[str, Any]:
        """What the checkpoint of a stage says; nothing before there is one."""
        path = self._checkpoint(stage)
        return checkpoint.read(path) if path.is_file() else {}

    def _parts(self) -> dataset.Parts | None:
        """The split that the first stage has kept; else the teacher's, of this folder and where none is asked for."""
        for path in (self.out / FULL_PRECISION / "checkpoint.pt", self.out / "bits" / "checkpoint.pt"):
            if path.is_file():
                return export.parts_of(path)
        teacher, everything = self.given.get("teacher"), look.samples(self.given)
        asked = look.DRAWN & self.given.keys() or any(sample.part == dataset.VALIDATION for sample in everything)
        kept = export.parts_of(teacher) if teacher and not asked else None
        return kept if kept and not kept.missing(everything) else None

    @property
    def _record_file(self) -> Path:
        return self.out / record.FILE

    def _save(self) -> None:
        self.record.spent = self._watch.spent
        self.record.given |= {name: self.given[name] for name in look.BUDGET if name in self.given}
        self.record.write(self._record_file)

    def _extend(self) -> None:
        """More minutes or samples than before, once all is finished: one more stage."""
        if not self.record.finished:
            return
        unit = "samples" if "samples" in self.given else "minutes"
        before, now = (float(one.get(unit) or MINUTES) for one in (self.record.given, self.given))
        batch = look.settings(self.given, self.record.choices).get("batch", Config.batch)
        if unit == "samples" and 0 < now - before < batch:
            raise ResumeError(
                f"{self.out} is finished after {before:g} samples; {now - before:g} more give no batch of {batch}: "
                f"ask for {before + batch:g} or more, or for as many as before"
            )
        if now > before:
            self._say(f"{self.out} is finished; the {now - before:g} {unit} more go into another stage")
            self.record.added, self.record.finished = [*self.record.added, now - before], False

    def _finish(self, files: Files, commands: list[str]) -> None:
        order = self._stages()
        config = replace(self._config(order[-1]), validate_on=self._looked_at(bool(self._full)))
        Finish(
            data=self.data,
            files=files,
            stages={stage.name: self.out / stage.name for stage in order},
            config=config,
            full=self._full,
            asked=replace(config, minutes=self.minutes, samples=self.given.get("samples", config.samples)),
            seen=look.look(self.given),
            choices=self.record.choices,
            warnings=self.record.warnings,
            commands=commands,
            price_seconds=budget.price_seconds(self.minutes),
            say=self._say,
        ).write()


def _what(stage: Stage, config: Config) -> str:
    spent = f"{config.minutes:.1f} minutes" if config.minutes else f"{config.samples} samples"
    kind = "full precision" if stage.full_precision else f"activations of {_bits(config)}, {config.zeros:.0%} zeros"
    return f"{spent}, {kind}, width {config.width}, crops of {config.crop}"


def _bits(config: Config) -> str:
    planes = config.layers()[0].planes
    return "one bit" if planes == 1 else f"{planes} bits"
