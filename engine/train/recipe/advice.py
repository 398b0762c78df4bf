"""What to try next, with its price in milliseconds, measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.model import Model
from engine.preprocess import Image
from engine.runtime import Engine
from engine.train import export, timing
from engine.train.config import Config
from engine.train.network import Network

MOST_ROUNDS = 15
LOST = 0.02  # Dice below full precision: more than that, and the bits are what to change
IMPROVED = 0.005  # Dice gained by the last third of the looks: it was still improving


@dataclass(frozen=True)
class Option:
    """A flag to give, why one would, and milliseconds of an image with it (nan where they were not measured)."""

    flag: str
    why: str
    ms: float = float("nan")


def options(config: Config, lost: float | None, improving: bool, minutes: float) -> list[tuple[Option, Config]]:
    """What may be better than `config`, the most promising first, each with its configuration."""
    far = lost is not None and lost > LOST
    found: list[tuple[int, Option, Config]] = []

    def add(rank: int, flag: str, why: str, **changes: object) -> None:
        found.append((rank, Option(flag, why), replace(config, **changes)))  # type: ignore[arg-type]

    longer = f"--minutes {2 * minutes:g}" if minutes else f"--samples {2 * config.samples}"
    add(0 if improving else 3, longer, "it was still improving" if improving else "more time to learn")
    if config.family != "bfcn" and config.activation_bits < 2:
        why = (
            f"bits lose {lost:.3f} of full precision: four levels an activation" if far else "four levels an activation"
        )
        add(1 if far else 4, "--activation-bits 2", why, activation_bits=2)
    if config.masked and config.zeros > 0.8:
        add(2 if far else 5, "--zeros 0.8", "twice as many weights are not zero", zeros=0.8, zeros_from=0.5)
    add(6 if far else 2, f"--width {2 * config.width}", "four times the weights", width=2 * config.width)
    return [(option, changed) for _, option, changed in sorted(found, key=lambda entry: entry[0])]


def is_another_network(changed: Config, config: Config) -> bool:
    """Whether an image costs something else by `changed`."""
    return (changed.layers(), changed.zeros) != (config.layers(), config.zeros)


def untrained(config: Config) -> Model:
    """A model of `config` with random weights: what it costs does not depend on what they are."""
    network = Network(config.layers(), ramp=config.ramp)
    network.set_zeros(config.zeros, config.zeros_by)
    return export.bare_model(network.eval(), config, "untrained")


def price(models: list[Model], image: Image, seconds: float) -> list[float]:
    """Milliseconds of each model on `image`, the fastest of as many rounds as `seconds` allow, one at least."""
    engines = [Engine.load(model) for model in models]
    for engine in engines:
        engine.run([image])
    try:
        return timing.fastest(engines, image, _rounds(seconds))
    finally:
        for engine in engines:
            engine.close()


def _rounds(seconds: float) -> Iterator[int]:
    started = time.monotonic()
    for k in range(MOST_ROUNDS):
        if k and time.monotonic() - started > seconds:
            return
        yield k


def still_improving(rows: list[dict[str, float]], column: str, config: Config) -> float | None:
    """What the best of the last third of a stage's looks at validation images has gained over the best before.

    Those of a network that was not yet what `config` makes of it, in zeros and bits, are none. None where too few are
    left.
    """
    end = rows[-1]["samples"] if rows else 0
    looks = [row[column] for row in rows if column in row and config.settled_at(row["samples"] / end)]
    last = len(looks) // 3
    return max(looks[-last:]) - max(looks[:-last]) if last else None


def typical(images: list[Image]) -> Image:
    """The image of median size."""
    return sorted(images, key=lambda image: image.size)[len(images) // 2]
