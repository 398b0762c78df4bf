"""One command from a folder to a served model: look, measure, train in stages, export with its proof, compare, report.

By the clock everything shares the minutes: what the end takes is kept from the start, and every stage gets its share of
what is left when it begins.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine import format, preprocess
from engine.runtime import Engine
from engine.train import card, checkpoint, evaluate, export, figures, log, pretrained, split, threads, thresholds
from engine.train.config import MINUTES, Config
from engine.train.data import dataset, facts
from engine.train.data.dataset import Sample
from engine.train.export import CheckpointEngine
from engine.train.pace import Clock
from engine.train.recipe import advice, compare, plan, report, speed
from engine.train.recipe.compare import Compared
from engine.train.recipe.plan import Choice
from engine.train.recipe.record import Record
from engine.train.recipe.speed import Speed
from engine.train.recipe.stages import FINE_TUNE, FULL_PRECISION, Stage, settled, stages
from engine.train.trainer import Interrupted, ResumeError, Trainer, evenly

LOOKED_AT = 64  # samples, evenly chosen, by which a folder is judged
PICTURES = 4
OVERHEAD = 4.0  # seconds at the end, beside what is measured: reading and writing files, drawing
PRICED = 0.02  # of the minutes, for the prices of what to try next; at most PRICED_SECONDS
PRICED_SECONDS = 15.0
EVALUATED = 0.1  # of the minutes, at most, go into comparing full precision on validation images
ENGINE_SHARE = 0.5  # of full precision's evaluation: what the bits' own passes and the masks' counting take beside it
SPLIT = ("channel", "page", "group", "validation")
BUDGET = ("minutes", "samples")


@dataclass(frozen=True)
class Outcome:
    """What a recipe leaves: its model file and report, and what must be said of them."""

    model: Path
    report: Path
    summary: list[str]
    commands: list[str]


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
        self._started = clock() - gone
        self._computed = 0.0 if gone else time.process_time()  # before that start
        self._trainer: Trainer | None = None
        self._asked_to_stop = False
        if (self.out / "checkpoint.pt").is_file():
            raise ResumeError(
                f"{self.out} holds a run of one part (--full-precision or --bits-only): go on with that flag, "
                "or choose another output folder"
            )
        self.out.mkdir(parents=True, exist_ok=True)
        self.record = Record.read(self._record_file, self.given)
        self._before = self.record.spent
        self._extend()

    @property
    def minutes(self) -> float:
        """The budget by the clock; 0 where it is one of samples."""
        return 0.0 if "samples" in self.given else float(self.given.get("minutes") or MINUTES)

    @property
    def model(self) -> Path:
        """The model file."""
        return self.out / "model.safetensors"

    @property
    def page(self) -> Path:
        """The page."""
        return self.out / "report.html"

    def stop(self) -> None:
        """Ask to save and raise Interrupted soon."""
        self._asked_to_stop = True
        if self._trainer:
            self._trainer.stop()

    def run(self) -> Outcome:
        """Do what is left to do."""
        try:
            if not self.record.finished:
                if self.minutes:
                    threads.choose()
                self._look()
                for stage in self._stages():
                    self._train(stage)
                self._finish()
                self.record.finished = True
        finally:
            self._save()
        return Outcome(self.model, self.page, self._summary(), self.commands)

    @property
    def commands(self) -> list[str]:
        """What to type next."""
        images = Path(self.data) / "images"
        folder = images if images.is_dir() else Path(self.data)
        return [
            f"mbunet serve --model {self.model}",
            f"mbunet segment {folder} -o {self.out / 'masks'} --model {self.model}",
        ]

    # what the folder and the machine say

    def _look(self) -> None:
        found = self._facts()
        self._say(
            "\n".join([f"{self.data}: {found.samples} samples looked at", *(f"  {line}" for line in found.lines)])
        )
        if not self.record.choices:
            taken = self._teachers()
            names = {*self.given, *(choice.setting for choice in taken)}
            chosen = [*taken, *(choice for choice in plan.of_folder(found) if choice.setting not in names)]
            able = plan.sizes(found, self.given | {choice.setting: choice.value for choice in chosen})
            if self.minutes:
                more, rate = plan.of_speed(able, 60 * self.minutes, self._speed_of(chosen), self.given)
                self._say(f"this machine: {rate:.1f} samples a second")
            else:
                width, crop = able[0]
                reason = "no larger than the images" if crop < plan.CROP else "the default"
                more = [Choice("width", width, "the default"), Choice("crop", crop, reason)]
                more = [choice for choice in more if choice.setting not in self.given]
            self.record.choices = plan.changed([*chosen, *more])
        self._say("\n".join(f"  {choice}" for choice in self.record.choices) or "  every setting is the default")
        self._save()

    def _teachers(self) -> list[Choice]:
        """How a teacher that is given has its images prepared, and whatever learns from it too."""
        if not self.given.get("teacher"):
            return []
        theirs = pretrained.load(self.given["teacher"]).config
        return [
            Choice(name, getattr(theirs, name), "as the teacher")
            for name in ("contrast", "resize")
            if name not in self.given
        ]

    def _facts(self) -> facts.Facts:
        classes = self.given.get("classes", ())
        chosen = evenly(self._samples(), LOOKED_AT)
        return facts.of_samples([facts.of_sample(*s.load(len(classes)), len(classes)) for s in chosen], classes)

    def _samples(self) -> list[Sample]:
        return split.samples(Config(self.data, "", **{n: v for n, v in self.given.items() if n in SPLIT}))

    def _held(self, config: Config) -> list[Sample]:
        """The validation images, as a first stage would hold them."""
        return dataset.split(self._samples(), config.share, config.seed)[1]

    def _speed_of(self, chosen: list[Choice]) -> Callable[[int, int], float]:
        def of_size(width: int, crop: int) -> float:
            settings = self._settings(chosen) | {"width": width, "crop": crop}
            measured = speed.measure(Config(out=str(self.out), data=self.data, **settings))
            self.record.speed = asdict(measured)
            return measured.samples

        return of_size

    def _settings(self, choices: list[Choice]) -> dict[str, Any]:
        """Those of the command and those that were chosen, without budget and places."""
        own = {name: value for name, value in self.given.items() if name not in (*BUDGET, "data", "out")}
        return {choice.setting: choice.value for choice in choices} | own

    # training

    @cached_property
    def base(self) -> Config:
        """What all stages have in common, once the folder has been looked at."""
        config = Config(self.data, str(self.out), **self._settings(self.record.choices))
        if not self.minutes:
            return replace(config, samples=self.given["samples"] - int(sum(self.record.added)))
        limit = self._held_limit(self._held(config), config)
        return replace(config, validate_on=config.validate_on or limit)

    def _held_limit(self, held: list[Sample], config: Config) -> int:
        """How many validation images there is time for; 0: for all of them."""
        seconds = speed.evaluation_pixels(held, config) / Speed(**self.record.speed).pixels
        able = EVALUATED * 60 * self.minutes
        return max(1, int(len(held) * able / seconds)) if seconds > able else 0

    def _stages(self) -> list[Stage]:
        base = self.base
        rate = self.record.speed.get("samples", 0.0)
        samples = rate * 60 * self.minutes if self.minutes else base.samples
        found = stages(self._kin(base), samples, base.zeros, base.learning_rate)
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
        if _told(self._checkpoint(stage)).get("scored"):  # it has ended, whatever its share would be now
            return
        config = self._config(stage)
        self._trainer = trainer = Trainer(config, parts=self._parts(), clock=self._clock)
        if self._asked_to_stop:
            trainer.stop()
        self._say(f"\n{stage.name}: {'on from there' if trainer.step else _what(stage, config)}")
        try:
            found = trainer.run()
        except Interrupted as stopped:
            raise Interrupted(f"{stage.name} {stopped}") from None
        self._say(f"{stage.name}: {found}")
        self._save()
        if self._asked_to_stop:
            raise Interrupted(f"stopped after {stage.name}, which is saved; the same command goes on from there")

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
        spent = float(_told(self._checkpoint(stage)).get("spent", 0.0))
        seconds = (60 * self.minutes - self._spent() - self._end_seconds() + spent) * stage.share / left
        return replace(config, minutes=max(seconds, 1.0) / 60)

    def _checkpoint(self, stage: Stage) -> Path:
        return self.out / stage.name / "checkpoint.pt"

    def _parts(self) -> dataset.Parts | None:
        """The split that the first stage, or the teacher, has kept, where it is one of this folder."""
        for path in (self.out / FULL_PRECISION / "checkpoint.pt", self.out / "bits" / "checkpoint.pt"):
            if path.is_file():
                return export.parts_of(path)
        teacher = self.given.get("teacher")
        kept = export.parts_of(teacher) if teacher else None
        return kept if kept and not kept.missing(self._samples()) else None

    # time

    def _spent(self) -> float:
        """Seconds since the command was first given, those between its parts not counted."""
        return self._before + self._clock() - self._started

    def _end_seconds(self) -> float:
        """What comes after the last stage: comparing, calibrating, proving, pricing, drawing."""
        base, measured = self.base, Speed(**self.record.speed)
        held = evenly(self._held(base), base.validate_on)
        evaluated = speed.evaluation_pixels(held, base) / measured.pixels
        proven = 2 * min(self._median_pixels(held, base), export.PROVEN**2) + sum(h * w for h, w in export.PROOF_SIZES)
        measurable = evaluated * (1 + ENGINE_SHARE) + proven / measured.proven
        return OVERHEAD * self._slowness() + measurable + self._price_seconds()

    def _slowness(self) -> float:
        """Seconds on the wall for one of computing, as others share the machine; 1 where nobody does."""
        computed = time.process_time() - self._computed
        return max(1.0, (self._clock() - self._started) / computed) if computed > 0 else 1.0

    def _median_pixels(self, held: list[Sample], base: Config) -> int:
        return speed.evaluation_pixels(held, base) // max(len(held), 1)

    def _price_seconds(self) -> float:
        return min(PRICED * 60 * self.minutes, PRICED_SECONDS) if self.minutes else PRICED_SECONDS

    @property
    def _record_file(self) -> Path:
        return self.out / "recipe.json"

    def _save(self) -> None:
        self.record.spent = self._spent()
        self.record.given |= {name: self.given[name] for name in BUDGET if name in self.given}
        self.record.write(self._record_file)

    def _extend(self) -> None:
        """More minutes or samples than before, once all is finished: one more stage."""
        if not self.record.finished:
            return
        unit = "samples" if "samples" in self.given else "minutes"
        before, now = (float(one.get(unit) or MINUTES) for one in (self.record.given, self.given))
        if now > before:
            self._say(f"{self.out} is finished; the {now - before:g} {unit} more go into another stage")
            self.record.added, self.record.finished = [*self.record.added, now - before], False

    # the end

    def _finish(self) -> None:
        order = self._stages()
        last, config = self._best(order[-1]), self._config(order[-1])
        held = evenly(export.validation_samples(config, export.parts_of(last)), config.validate_on)
        export.export(last, self.model, name=_name(self.data))
        self._say(f"\n{self.model}: computes the bits of its training, layer by layer")
        with Engine.load(self.model) as engine:
            threshold = self._choose_threshold(engine, held)
        with Engine.load(self.model) as engine:
            full = CheckpointEngine(teacher) if (teacher := self._full_precision(order)) else None
            found = compare.compare(engine, full, held, config.classes, otsu=not config.classes)
            pictures = self._pictures(engine, full, found, held, config)
            text = card.write(engine.model, found.bits, "validation")
        (self.out / "model.md").write_text(text, encoding="utf-8")
        written = self._report(found, config, threshold, held, pictures)
        self.page.write_text(report.html(written), encoding="utf-8")

    def _best(self, stage: Stage) -> Path:
        """The checkpoint of a stage's end, or that of an earlier validation that was better."""
        last = self._checkpoint(stage)
        best = last.with_name("best.pt")
        scores = [float(_told(path).get("last", 0.0)) for path in (best, last)]
        if scores[0] <= scores[1]:
            return last
        self._say(f"\n{best} is taken: {scores[0]:.4f} on the validation images, where the end has {scores[1]:.4f}")
        return best

    def _full_precision(self, order: list[Stage]) -> Path | str:
        return self._checkpoint(order[0]) if order[0].full_precision else self.base.teacher

    def _choose_threshold(self, engine: Engine, held: list[Sample]) -> float:
        """The probability that suits the validation images best, written into the model file."""
        if len(engine.model.classes) > 1:
            return engine.model.threshold
        loaded = (sample.load() for sample in held)
        scores = thresholds.dice((engine.probabilities(image)[..., 0], mask) for image, mask in loaded)
        chosen = thresholds.best(scores)
        if chosen != engine.model.threshold:
            format.save(replace(engine.model, threshold=chosen), self.model)
        return chosen

    def _pictures(
        self,
        bits: Engine,
        full: CheckpointEngine | None,
        found: Compared,
        held: list[Sample],
        config: Config,
    ) -> list[report.Picture]:
        by_name = {sample.name: sample for sample in held}
        pictures = []
        for name in found.most_different(PICTURES):
            image, mask = by_name[name].load(len(config.classes))
            shown = preprocess.in_8_bits(image, config.preprocessing)
            masks = {"bits": bits.run([image])[0][0]}
            masks = {**({"full precision": full.run([image])[0][0]} if full else {}), **masks}
            dice, whole = found.dice(name)
            title = f"{name}: Dice {dice:.3f} by bits" + (
                f", {whole:.3f} in full precision" if whole is not None else ""
            )
            pictures.append(report.Picture(title, {"image": shown, **_drawn(shown, mask, masks, config)}))
        return pictures

    def _report(
        self, found: Compared, config: Config, threshold: float, held: list[Sample], pictures: list[report.Picture]
    ) -> report.Report:
        order = self._stages()
        column = "f1" if config.classes else "dice"
        rows = {stage.name: log.read(self.out / stage.name / "log.csv") for stage in order}
        gained = advice.still_improving(rows[order[-1].name], column)
        improving = gained is not None and gained > advice.IMPROVED
        options, now_ms, where = self._priced(config, found.lost, improving, held)
        model = format.load(self.model)
        legend = report.binary_legend()
        if config.classes:
            legend = {info.name: info.color for info in model.classes[1:]}
        total = len(export.validation_samples(config, export.parts_of(self._checkpoint(order[-1]))))
        notes = [f"{len(held)} of {total} validation images, which no training step has seen."]
        if not config.classes:
            notes.append(f"A pixel is foreground from a probability of {threshold:g} on, chosen on these images.")
        return report.Report(
            title=f"{model.name}: what was trained",
            summary=_told_scores(found),
            remarks=found.remarks,
            scores=compare.table(found),
            by_class=compare.class_table(found),
            seen=self._facts().lines,
            choices=self.record.choices,
            history=figures.history(rows, column),
            improving=_improving(gained),
            options=options,
            now_ms=now_ms,
            where=where,
            pictures=pictures,
            legend=legend,
            commands=self.commands,
            notes=notes,
        )

    def _priced(
        self, config: Config, lost: float | None, improving: bool, held: list[Sample]
    ) -> tuple[list[advice.Option], float, str]:
        """What to try, each with its milliseconds on a validation image of median size, and where that was measured."""
        asked = replace(config, minutes=self.minutes, samples=self.given.get("samples", config.samples))
        found = advice.options(asked, lost, improving, self.minutes)
        image = advice.typical([sample.load(len(config.classes))[0] for sample in held[: advice.MOST_ROUNDS]])
        other = {option: changed for option, changed in found if advice.is_another_network(changed, config)}
        models = [format.load(self.model), *map(advice.untrained, other.values())]
        ms = advice.price(models, image, self._price_seconds())
        costs = dict(zip(other, ms[1:], strict=True))
        priced = [replace(option, ms=costs.get(option, ms[0])) for option, _ in found]
        height, width = image.shape[:2]
        with Engine.load(models[0]) as engine:
            where = f"Milliseconds of an image of {width} x {height} pixels on {engine.device}, kernel {engine.kernel}."
        return priced, ms[0], where

    def _summary(self) -> list[str]:
        return [f"report: {self.page}", f"model: {self.model}", f"card: {self.out / 'model.md'}"]


def _what(stage: Stage, config: Config) -> str:
    budget = f"{config.minutes:.1f} minutes" if config.minutes else f"{config.samples} samples"
    kind = "full precision" if stage.full_precision else f"activations of {_bits(config)}, {config.zeros:.0%} zeros"
    return f"{budget}, {kind}, width {config.width}, crops of {config.crop}"


def _bits(config: Config) -> str:
    planes = config.layers()[0].planes
    return "one bit" if planes == 1 else f"{planes} bits"


def _told(path: Path) -> dict[str, Any]:
    return checkpoint.read(path) if path.is_file() else {}


def _name(data: str) -> str:
    """The folder's name, as far as a model may be called that."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in Path(data).resolve().name)
    return name[:64] or "model"


def _drawn(
    shown: np.ndarray[Any, Any], mask: np.ndarray[Any, Any], masks: Mapping[str, Any], config: Config
) -> dict[str, Any]:
    if not config.classes:
        return {name: figures.overlay(shown, mask, own) for name, own in masks.items()}
    colors = export.colors(len(config.classes))
    return {name: figures.painted(shown, own, colors) for name, own in {"truth": mask, **masks}.items()}


def _told_scores(found: Compared) -> list[str]:
    own = evaluate.score(found.bits)
    name = "Dice (all pixels, mean of the classes)" if own.by_class else "Dice"
    lines = [f"{name} {own.headline:.4f} by bits."]
    if found.full and found.lost is not None:
        full = evaluate.score(found.full).headline
        lines = [f"{name} {own.headline:.4f} by bits, {full:.4f} in full precision: {found.lost:.4f} lost."]
    return lines


def _improving(gained: float | None) -> str:
    if gained is None or math.isnan(gained):
        return "Too few looks at the validation images to say whether it was still improving."
    if gained > advice.IMPROVED:
        return f"Still improving: the last third of the last stage gained {gained:.3f}; more time should help."
    return f"No longer improving: the last third of the last stage gained {gained:.3f}."
