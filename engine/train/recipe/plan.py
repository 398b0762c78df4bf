"""What a folder says of how to train on it: settings, each with its reason. Whatever was given by flag stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from engine.train.config import BALANCED, Config
from engine.train.data.facts import EDGE, Facts

THIN = 0.35  # share of a class that lies within EDGE pixels of its edge: lines and dots, where bits cost most,
KEPT = 0.8  # and zeros too: on vessels .001 to .015 of Dice between this and .9, for a quarter more milliseconds
DULL = 0.5  # of the range that greys take: below it, every image is stretched to its own
FILLING, FEW = 0.05, 3  # an object of that share of the image, and no more of them: it is seen whole
RESIZED = 192  # pixels a side
SCARCE = 0.02  # of all pixels: a class of less is made sure to be seen,
SHOWN = 0.33  # in so many of the crops, and beside other classes weighs more
CROP, SMALLEST_CROP = 192, 32
SIZES = ((32, 192), (16, 192), (16, 128), (8, 96))
"""(width, crop) to try, the best first; the first that sees ENOUGH samples in its time is taken, else the last."""
ENOUGH = 16_000
HARD = 2
"""Of SIZES, so many are offered where a class is thin and scarce: by less, it is not told from what it lies in."""
STRIDE = 32  # of any family: a crop is a multiple of it


@dataclass(frozen=True)
class Choice:
    """A setting of `Config`, its value, and why."""

    setting: str
    value: Any
    reason: str

    def __str__(self) -> str:
        value = " ".join(self.value) if isinstance(self.value, tuple) else self.value
        return f"--{self.setting.replace('_', '-')} {value}: {self.reason}"


def of_folder(facts: Facts) -> list[Choice]:
    """What follows from the samples alone."""
    rules = (_contrast, _resize, _activation_bits, _zeros, _foreground)
    return [choice for rule in rules for choice in rule(facts)]


def _contrast(facts: Facts) -> list[Choice]:
    if facts.deep:
        return [Choice("contrast", "stretch", f"{facts.deep} images have more than 8 bits, and use a part of them")]
    if facts.grey_range < DULL:
        return [Choice("contrast", "stretch", f"greys take {facts.grey_range:.0%} of the range")]
    return []


def _resize(facts: Facts) -> list[Choice]:
    if facts.largest >= FILLING and facts.objects <= FEW and facts.side > RESIZED and not _thin(facts):
        reason = f"one object covers {facts.largest:.0%} of an image, so the network should see all of it"
        return [Choice("resize", RESIZED, reason)]
    return []


def _activation_bits(facts: Facts) -> list[Choice]:
    names = _thin(facts)
    if names:
        reason = f"thin or small: {', '.join(names)} ({THIN:.0%} or more within {EDGE} pixels of an edge)"
        return [Choice("activation_bits", 2, reason)]
    return []


def _zeros(facts: Facts) -> list[Choice]:
    names = _thin(facts)
    return [Choice("zeros", KEPT, f"thin or small: {', '.join(names)}; fewer zeros find more of it")] if names else []


def _foreground(facts: Facts) -> list[Choice]:
    names = _scarce(facts)
    if not names:
        return []
    reason = "little of the pixels: " + ", ".join(f"{name} ({share:.2%})" for name, share in names.items())
    weights = [Choice("class_weights", BALANCED, reason)] if len(facts.classes) > 1 else []
    return [Choice("foreground", SHOWN, reason), *weights]


def _scarce(facts: Facts) -> dict[str, float]:
    """Shares of the pixels, of classes that have less than SCARCE."""
    return {entry.name: entry.share for entry in facts.classes if entry.share < SCARCE}


def _thin(facts: Facts) -> list[str]:
    return [entry.name for entry in facts.classes if entry.rim >= THIN]


def sizes(facts: Facts, given: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(width, crop) that may be taken, the best first; crops no larger than the images."""
    largest = given.get("resize") or max(SMALLEST_CROP, STRIDE * math.ceil(facts.side / STRIDE))
    offered = SIZES[:HARD] if set(_thin(facts)) & set(_scarce(facts)) else SIZES
    able = [(given.get("width", width), given.get("crop", min(crop, largest))) for width, crop in offered]
    return list(dict.fromkeys(able))


def of_speed(
    able: Sequence[tuple[int, int]], seconds: float, speed: Callable[[int, int], float], given: Collection[str] = ()
) -> tuple[list[Choice], float]:
    """(width and crop, samples a second) of the first of `able` that sees ENOUGH samples in `seconds` of training.

    `speed` measures how many samples a second this machine trains at, of a width and a crop.
    """
    for width, crop in able:
        rate = speed(width, crop)
        if rate * seconds >= ENOUGH or (width, crop) == able[-1]:
            break
    reason = f"this machine trains on {rate:.1f} such crops a second, so on {_round(rate * seconds)} in its time"
    choices = [Choice("width", width, reason), Choice("crop", crop, reason)]
    return [choice for choice in choices if choice.setting not in given], rate


def _round(count: float) -> str:
    """Two digits of it: what a speed of seconds can tell."""
    digits = 10 ** max(0, int(math.log10(max(count, 1))) - 1)
    return f"{int(count // digits * digits):,}"


def changed(choices: Sequence[Choice]) -> list[Choice]:
    """Those that are not the defaults of `Config`."""
    default = {field.name: field.default for field in fields(Config)}
    return [choice for choice in choices if default[choice.setting] != choice.value]
