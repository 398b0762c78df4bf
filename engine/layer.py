"""One entry of a network's layer list."""

from __future__ import annotations

from dataclasses import dataclass

IMAGE = "image"
"""The name by which the first layer reads the pixels."""


@dataclass(frozen=True)
class Layer:
    """One step of the network; it reads the outputs of earlier layers, or IMAGE. What it does: `engine.ops`.

    `op` names a row of `ops.OPERATIONS`. `weights` is "int16" (first and last layer), "binary" (+-1), "masked" (-1, 0,
    +1) or "" (none). A convolution makes `up` x `up` outputs of every input position, each from `kernel` x `kernel`
    taps. Its weights are the sum of `segments` ternary ones, each doubled as often as its exponent says. `residual`
    names an earlier layer that is added, 2 ** `residual_exponent` times, inside the sum.

    The output is written in `planes` bits per channel: with the `encoding` "sign" one that means -1 or +1, with
    "unsigned" a level from 0 to 2 ** planes - 1. `block` names the block of the cost-aware strategy. The head's integer
    logits are doubled in size `doublings` times, and times `scale` they are real ones; elsewhere both are 0.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    channels: int
    weights: str = ""
    kernel: int = 0
    up: int = 1
    segments: int = 1
    residual: str = ""
    residual_exponent: int = 0
    planes: int = 1
    encoding: str = "sign"
    block: str = ""
    doublings: int = 0
    scale: float = 0.0

    @property
    def reads(self) -> tuple[str, ...]:
        """All that it reads: its inputs, then its residual."""
        return (*self.inputs, self.residual) if self.residual else self.inputs

    @property
    def thresholds(self) -> int:
        """Thresholds per channel, one fewer than the levels that the output's planes can tell apart."""
        return (1 << self.planes) - 1
