"""The minutes of a command: how many are gone, and what of them its end takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from engine.train import export
from engine.train.config import Config
from engine.train.data.dataset import Sample
from engine.train.pace import Clock
from engine.train.recipe import speed
from engine.train.recipe.speed import Speed

OVERHEAD = 4.0  # seconds at the end, beside what is measured: reading and writing files, drawing
PRICED = 0.02  # of the minutes, for the prices of what to try next; at most PRICED_SECONDS
PRICED_SECONDS = 15.0
COMPARED = 0.02  # of the minutes, at most, for a look at whether both sides of the split hold the same images
EVALUATED = 0.02  # of the minutes, at most, for one look at the validation images: every stage has two and more
PASSES = 2  # of bits, with probabilities, over the images at the end: for the threshold and for the scores


class Stopwatch:
    """The seconds of a command: `before` in its earlier parts, `gone` in this one so far."""

    def __init__(self, clock: Clock, gone: float) -> None:
        self.before = 0.0
        self._clock = clock
        self._started = clock() - gone
        self._computed = 0.0 if gone else time.process_time()  # before that start

    @property
    def spent(self) -> float:
        """Seconds since the command was first given, those between its parts not counted."""
        return self.before + self._clock() - self._started

    @property
    def slowness(self) -> float:
        """Seconds on the wall for one of computing, as others share the machine; 1 where nobody does."""
        computed = time.process_time() - self._computed
        return max(1.0, (self._clock() - self._started) / computed) if computed > 0 else 1.0


def look_seconds(held: Sequence[Sample], config: Config, measured: Speed, full_precision: bool) -> float:
    """What a look at the images `held` takes."""
    by_network = speed.evaluation_pixels(held, config) / measured.pixels if full_precision else 0
    return by_network + speed.own_pixels(held) / measured.bits


def held_limit(held: Sequence[Sample], config: Config, measured: Speed, full_precision: bool, minutes: float) -> int:
    """How many validation images there is time for in a look; 0: for all of them."""
    seconds = look_seconds(held, config, measured, full_precision)
    able = EVALUATED * 60 * minutes
    return max(1, int(len(held) * able / seconds)) if seconds > able else 0


def end_seconds(
    held: Sequence[Sample],
    compared: Sequence[Sample],
    config: Config,
    measured: Speed,
    full_precision: bool,
    minutes: float,
    slowness: float,
) -> float:
    """What comes after the last stage: calibrating on all that is `held`, comparing, proving, pricing, drawing.

    Some of what is held is `compared`: bits, and `full_precision` where there is one.
    """
    evaluated = look_seconds(compared, config, measured, True) if full_precision else 0
    evaluated += (PASSES * speed.own_pixels(compared) + speed.own_pixels(held)) / measured.compared
    median = speed.evaluation_pixels(compared, config) // max(len(compared), 1)
    proven = 2 * min(median, export.PROVEN**2) + sum(h * w for h, w in export.PROOF_SIZES)
    return OVERHEAD * slowness + evaluated + proven / measured.proven + price_seconds(minutes)


def price_seconds(minutes: float) -> float:
    """For what to try next to be timed; a budget of samples has 0 `minutes`."""
    return min(PRICED * 60 * minutes, PRICED_SECONDS) if minutes else PRICED_SECONDS
