"""What the folder of a command holds, and the settings that it and this machine ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.train import pretrained, split
from engine.train.config import Config
from engine.train.data import dataset, facts
from engine.train.data.dataset import Sample
from engine.train.recipe import plan, speed
from engine.train.recipe.plan import Choice
from engine.train.recipe.speed import Speed
from engine.train.validation import evenly

LOOKED_AT = 64  # samples, evenly chosen, by which a folder is judged
SPLIT = ("channel", "page", "group", "validation")
DRAWN = {"validation", "group", "seed"}  # settings that ask for a split
BUDGET = ("minutes", "samples")


def samples(given: Mapping[str, Any]) -> list[Sample]:
    """Every sample of a command whose settings are `given`; raises DataError."""
    return split.samples(Config(str(given["data"]), "", **{n: v for n, v in given.items() if n in SPLIT}))


def held(given: Mapping[str, Any], config: Config) -> list[Sample]:
    """The validation images, as a first stage would hold them."""
    return dataset.split(samples(given), config.share, config.seed)[1]


def look(given: Mapping[str, Any]) -> facts.Facts:
    """LOOKED_AT of its samples in numbers, none of a test part: settings follow from them."""
    classes = given.get("classes", ())
    chosen = evenly(dataset.usable(samples(given)), LOOKED_AT)
    return facts.of_samples([facts.of_sample(*s.load(len(classes)), len(classes)) for s in chosen], classes)


def choose(
    given: Mapping[str, Any], found: facts.Facts, minutes: float, say: Callable[[str], None]
) -> tuple[list[Choice], Speed | None]:
    """What is not `given` and no default, and by the clock (`minutes` above 0) how fast this machine is at it."""
    taken = _teachers(given)
    names = {*given, *(choice.setting for choice in taken)}
    chosen = [*taken, *(choice for choice in plan.of_folder(found) if choice.setting not in names)]
    able = plan.sizes(found, dict(given) | {choice.setting: choice.value for choice in chosen})
    if not minutes:
        width, crop = able[0]
        reason = "no larger than the images" if crop < plan.CROP else "the default"
        more = [Choice("width", width, "the default"), Choice("crop", crop, reason)]
        return plan.changed([*chosen, *(choice for choice in more if choice.setting not in given)]), None
    measured: list[Speed] = []
    sample = dataset.usable(samples(given))[0]

    def of_size(width: int, crop: int) -> float:
        own = settings(given, chosen) | {"width": width, "crop": crop}
        measured.append(speed.measure(Config(out=str(given["out"]), data=str(given["data"]), **own), sample))
        return measured[-1].samples

    more, rate = plan.of_speed(able, 60 * minutes, of_size, given)
    say(f"this machine: {rate:.1f} samples a second")
    return plan.changed([*chosen, *more]), measured[-1]


def settings(given: Mapping[str, Any], choices: list[Choice]) -> dict[str, Any]:
    """Those of the command and those that were chosen, without budget and places."""
    own = {name: value for name, value in given.items() if name not in (*BUDGET, "data", "out")}
    return {choice.setting: choice.value for choice in choices} | own


def _teachers(given: Mapping[str, Any]) -> list[Choice]:
    """How a teacher that is given has its images prepared, and whatever learns from it too."""
    if not given.get("teacher"):
        return []
    theirs = pretrained.load(given["teacher"]).config
    return [
        Choice(name, getattr(theirs, name), "as the teacher") for name in ("contrast", "resize") if name not in given
    ]
