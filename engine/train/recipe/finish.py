"""The end of a recipe: its last checkpoint exported and proven, compared with full precision, reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine import format, preprocess
from engine.runtime import Engine
from engine.train import card, checkpoint, evaluate, export, figures, log, thresholds
from engine.train.config import Config
from engine.train.data import facts
from engine.train.data.dataset import Sample
from engine.train.network_engine import NetworkEngine
from engine.train.recipe import advice, compare, report
from engine.train.recipe.compare import Compared
from engine.train.recipe.plan import Choice
from engine.train.recipe.stages import FULL_PRECISION
from engine.train.trainer import device_named
from engine.train.validation import evenly

PICTURES = 4
STRANGE = "backslashreplace"  # how bytes in names of files that are no UTF-8 are shown


@dataclass(frozen=True)
class Files:
    """What a recipe leaves in its folder `out`."""

    out: Path

    @property
    def model(self) -> Path:
        """The model file."""
        return self.out / "model.safetensors"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.out / "model.md"

    @property
    def page(self) -> Path:
        """The report."""
        return self.out / "report.html"


@dataclass(frozen=True)
class Finish:
    """`Finish(…).write()` leaves the `files`.

    `stages` are the folders of the stages by name; `config` is that of the last one. `full` is the checkpoint of full
    precision, "" where there is none. `asked` is the command as one configuration, whose
    budget what to try next is told by; `seen`, `choices`, `warnings` and `commands` stand in the report as they are.
    """

    data: str
    files: Files
    stages: Mapping[str, Path]
    config: Config
    full: str
    asked: Config
    seen: facts.Facts
    choices: list[Choice]
    warnings: list[str]
    commands: list[str]
    price_seconds: float
    say: Callable[[str], None]

    def write(self) -> None:
        """Export, choose the threshold, compare, and write the card and the report."""
        config, files = self.config, self.files
        last = best([folder for name, folder in self.stages.items() if name != FULL_PRECISION], self.say)
        everything = export.validation_samples(config, export.parts_of(last))
        held = evenly(everything, config.validate_on)
        export.export(last, files.model, name=_name(self.data))
        self.say(f"\n{files.model}: computes the bits of its training, layer by layer")
        with Engine.load(files.model) as engine:
            threshold = self._choose_threshold(engine, held)
        with Engine.load(files.model) as engine:
            full = self._in_full_precision()
            found = compare.compare(engine, full, held, config.classes, otsu=not config.classes)
            pictures = self._pictures(engine, full, found, held)
            text = card.write(engine.model, found.bits, "validation")
        files.card.write_text(text, encoding="utf-8", errors=STRANGE)
        notes = [f"{len(held)} of {len(everything)} validation images, which no step of this run has seen."]
        notes += unlike(self.stages, everything)
        if not config.classes:
            also = f", in full precision from {found.full_threshold:g}" if full else ""
            notes.append(f"A pixel is foreground from a probability of {threshold:g} on{also}: chosen on these images.")
        if salient := evaluate.salient(found.bits):
            notes.append(f"Of the probabilities of bits, as salient objects are scored: {salient}.")
        if (share := evaluate.taken_for_objects(found.bits)) is not None:
            notes.append(f"Of the largest empty part of each image, sent alone, {share:.1%} comes back as objects.")
        files.page.write_text(report.html(self._report(found, held, pictures, notes)), "utf-8", STRANGE)

    def _in_full_precision(self) -> NetworkEngine | None:
        if not self.full:
            return None
        network, config, _ = export.restore(self.full)
        return NetworkEngine(network.to(device_named(self.config.device)), config)

    def _choose_threshold(self, engine: Engine, held: list[Sample]) -> float:
        """The probability that suits the validation images best, written into the model file."""
        if len(engine.model.classes) > 1:
            return engine.model.threshold
        loaded = (sample.load() for sample in held)
        scores = thresholds.dice((engine.probabilities(image)[..., 0], mask) for image, mask in loaded)
        chosen = thresholds.best(scores)
        if chosen != engine.model.threshold:
            format.save(replace(engine.model, threshold=chosen), self.files.model)
        return chosen

    def _pictures(
        self, bits: Engine, full: NetworkEngine | None, found: Compared, held: list[Sample]
    ) -> list[report.Picture]:
        config = self.config
        by_name = {sample.name: sample for sample in held}
        pictures = []
        for name in found.most_different(PICTURES):
            image, mask = by_name[name].load(len(config.classes))
            shown = preprocess.in_8_bits(image, config.preprocessing)
            masks = {"bits": bits.run([image])[0][0]}
            masks = {**({"full precision": full.run([image], found.full_threshold)[0][0]} if full else {}), **masks}
            dice, whole = found.dice(name)
            title = f"{name}: Dice {dice:.3f} by bits" + (
                f", {whole:.3f} in full precision" if whole is not None else ""
            )
            pictures.append(report.Picture(title, figures.beside(shown, mask, masks, len(config.classes))))
        return pictures

    def _report(
        self, found: Compared, held: list[Sample], pictures: list[report.Picture], notes: list[str]
    ) -> report.Report:
        config = self.config
        column = "f1" if config.classes else "dice"
        rows = {name: log.read(folder / "log.csv") for name, folder in self.stages.items()}
        gained = advice.still_improving(list(rows.values())[-1], column, config)
        improving = gained is not None and gained > advice.IMPROVED
        options, now_ms, where = self._priced(found.lost, improving, held)
        model = format.load(self.files.model)
        legend = report.binary_legend()
        if config.classes:
            legend = {info.name: info.color for info in model.classes[1:]}
        return report.Report(
            title=f"{model.name}: what was trained",
            summary=found.summary,
            remarks=[*found.remarks, *self.warnings],
            scores=compare.table(found),
            by_class=compare.class_table(found),
            seen=self.seen.lines,
            choices=self.choices,
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
        self, lost: float | None, improving: bool, held: list[Sample]
    ) -> tuple[list[advice.Option], float, str]:
        """What to try, each with its milliseconds on a validation image of median size, and where that was measured."""
        config = self.config
        found = advice.options(self.asked, lost, improving, self.asked.minutes)
        image = advice.typical([sample.load(len(config.classes))[0] for sample in held[: advice.MOST_ROUNDS]])
        other = {option: changed for option, changed in found if advice.is_another_network(changed, config)}
        models = [format.load(self.files.model), *map(advice.untrained, other.values())]
        ms = advice.price(models, image, self.price_seconds)
        costs = dict(zip(other, ms[1:], strict=True))
        priced = [replace(option, ms=costs.get(option, ms[0])) for option, _ in found]
        height, width = image.shape[:2]
        with Engine.load(models[0]) as engine:
            where = f"Milliseconds of an image of {width} x {height} pixels on {engine.device}, kernel {engine.kernel}."
        return priced, ms[0], where


def unlike(stages: Mapping[str, Path], everything: Sequence[Sample]) -> list[str]:
    """That the validations of `stages`, whose curves are beside each other, took unlike many images of `everything`."""
    configs = {name: export.config_of(folder / "checkpoint.pt") for name, folder in stages.items()}
    counts = {name: len(evenly(everything, config.validate_on)) for name, config in configs.items()}
    each = ", ".join(f"{name} {count}" for name, count in counts.items())
    return [f"In the curves validations took so many of them: {each}."] if len({*counts.values()}) > 1 else []


def best(stages: Sequence[Path], say: Callable[[str], None]) -> Path:
    """The checkpoint of the end of the last of `stages`, folders, or one of an earlier validation that was better."""
    last = stages[-1] / "checkpoint.pt"
    there = [path for stage in stages for path in (stage / "best.pt", stage / "checkpoint.pt") if path.is_file()]
    scores = {last: 0.0} | {path: float(checkpoint.read(path).get("last", 0.0)) for path in reversed(there)}
    found = max(scores, key=lambda path: scores[path])  # of equal ones the later
    if found != last:
        say(f"\n{found} is taken: {scores[found]:.4f} on the validation images, where the end has {scores[last]:.4f}")
    return found


def _name(data: str) -> str:
    """The folder's name, as far as a model may be called that."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in Path(data).resolve().name)
    return name.lstrip("._-")[:64] or "model"


def _improving(gained: float | None) -> str:
    if gained is None or math.isnan(gained):
        return "Too few looks at the validation images to say whether it was still improving."
    than = "the best of the last third of the looks at the network as it is now, beside the best before"
    if gained > advice.IMPROVED:
        return f"Still improving: {gained:+.3f} ({than}); more time should help."
    return f"No longer improving: {gained:+.3f} ({than})."
