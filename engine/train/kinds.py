"""The kinds of weights and of activations that a network may be trained with, by name."""

from __future__ import annotations

from dataclasses import dataclass

from engine.layer import Layer

TERNARY = ("masked", "twn", "max-abs", "seq")
"""Ways to choose which weights become zero: a share of them (ours), the thresholds of TWN and max-abs, SEQ's own."""

MULTIBIT = {"int8": 127, "int4": 7}
"""Weights of several bits, per output channel: the largest integer. Baselines; no kernel runs them."""

ALL = (*TERNARY, *MULTIBIT)

TWO_BIT = {"two-bit": "binary", "two-bit-masked": "masked"}
"""Weights of two bits, by DoReFa: two segments, stored as that. Masked, a share of them is zero in both."""
OF_TWO_BITS = {stored: kind for kind, stored in TWO_BIT.items()}

SCALED = ("seq", *MULTIBIT)
"""Weights with a scale per output channel: nothing may be added to their sums, no other segment and no residual."""

MASKED = ("masked", "two-bit-masked")
"""Kinds with the share of zeros that is asked for."""


def stored(kind: str) -> str:
    """What a model file calls weights that are trained as `kind`."""
    return "masked" if kind in TERNARY else TWO_BIT.get(kind, kind)


def latents(layer: Layer) -> int:
    """Sets of weights that a layer learns: one for each of its segments, but one for both bits of a weight."""
    return 1 if layer.weights in TWO_BIT else layer.segments


@dataclass(frozen=True)
class Ramp:
    """How a normalised sum z becomes a level: round(n * clip(scale * z + shift, 0, 1)), n being the highest level.

    Going back the slope is the line's from `margin` below the ramp to as much above it.
    """

    scale: float = 1.0
    shift: float = 0.0
    margin: float = 0.0


DOREFA = Ramp()
CENTERED = Ramp(scale=0.5, shift=0.25, margin=0.25)
"""Reaches from -1/2 to 3/2, over most of what batch norm gives, and lets gradients in from beyond."""
SIGN = Ramp(scale=0.5, shift=0.5)
"""The clipped line that a sign is annealed from."""
