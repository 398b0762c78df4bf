"""The kinds of weights that a masked layer may be trained with in place of our masking, by name."""

from __future__ import annotations

TERNARY = ("masked", "twn", "max-abs", "seq")
"""Ways to choose which weights become zero: a share of them (ours), the thresholds of TWN and max-abs, SEQ's own."""

MULTIBIT = {"int8": 127, "int4": 7}
"""Weights of several bits, per output channel: the largest integer. Baselines; no kernel runs them."""

ALL = (*TERNARY, *MULTIBIT)
