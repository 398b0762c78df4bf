"""Random layer lists: every operation in every form that the engine has, in networks that no family would build."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine import ops
from engine.layer import IMAGE, Layer

WRITTEN = ((1, "sign"), (1, "unsigned"), (2, "unsigned"))
"""(planes, encoding) that a tensor may have."""


def random_layers(seed: int, steps: int = 12, channels: int = 9, deepest: int = 4) -> list[Layer]:
    """A valid layer list of at most `steps` + 2 layers, of up to `channels` channels, down to 1 / 2^`deepest`.

    Layers are drawn one after another; what the head does not depend on is left out again.
    """
    return _Draw(np.random.default_rng(seed), steps, channels, deepest).layers()


@dataclass
class _Draw:
    rng: np.random.Generator
    steps: int
    most: int
    deepest: int
    flat: list[Layer] = field(default_factory=list)

    def layers(self) -> list[Layer]:
        self.add("stem", (IMAGE,), self.channels(), "int16", 3, **self.written())
        for _ in range(self.steps):
            draw = self.rng.random()
            if draw < 0.25:
                self.pool()
            elif draw < 0.35:
                self.gate()
            else:
                self.conv()
        last = self.pick()
        doublings = self.tensors[last].stride.bit_length() - 1
        self.add("head", (last,), int(self.rng.integers(1, 4)), "int16", 1, doublings=doublings, scale=2.0**-17)
        return self.used()

    def used(self) -> list[Layer]:
        wanted = {self.flat[-1].name}
        for layer in reversed(self.flat):
            if layer.name in wanted:
                wanted |= set(layer.reads)
        return [layer for layer in self.flat if layer.name in wanted]

    @property
    def tensors(self) -> dict[str, ops.Tensor]:
        return ops.tensors(self.flat)

    def add(self, op: str, inputs: tuple[str, ...], channels: int, *rest: Any, **options: Any) -> None:
        self.flat.append(Layer(f"{op}{len(self.flat)}", op, inputs, channels, *rest, **options))

    def channels(self) -> int:
        return int(self.rng.integers(1, self.most + 1))

    def written(self) -> dict[str, Any]:
        planes, encoding = WRITTEN[self.rng.integers(len(WRITTEN))]
        return {"planes": planes, "encoding": encoding}

    def pick(self) -> str:
        """A tensor, one of the latest most of the time."""
        back = min(int(self.rng.exponential(1.5)), len(self.flat) - 1)
        return self.flat[-1 - back].name

    def like(self, name: str, **fields: Any) -> list[str]:
        """Tensors of the resolution of `name`, and equal in `fields`."""
        tensors = self.tensors
        wanted = {"stride": tensors[name].stride, **fields}
        return [
            layer.name for layer in self.flat if all(getattr(tensors[layer.name], k) == v for k, v in wanted.items())
        ]

    def pool(self) -> None:
        name = self.pick()
        tensor = self.tensors[name]
        if tensor.stride < 1 << self.deepest:
            self.add("pool", (name,), tensor.channels, planes=tensor.planes, encoding=tensor.encoding)

    def gate(self) -> None:
        name = self.pick()
        tensor = self.tensors[name]
        gates = self.like(name, planes=1, channels=1) + self.like(name, planes=1, channels=tensor.channels)
        if gates:
            by = gates[self.rng.integers(len(gates))]
            self.add("gate", (name, by), tensor.channels, planes=tensor.planes, encoding=tensor.encoding)

    def conv(self) -> None:
        rng, name = self.rng, self.pick()
        tensor = self.tensors[name]
        kernel, up = int(rng.choice([1, 3, 3])), 1
        if tensor.stride > 1 and rng.random() < 0.4:
            up = 2
        inputs: tuple[str, ...] = (name,)
        alike = self.like(name, planes=tensor.planes, encoding=tensor.encoding)
        if rng.random() < 0.3:
            inputs = (name, alike[rng.integers(len(alike))])
        channels, residual = self.channels(), {}
        if up == 1 and rng.random() < 0.4:
            other = alike[rng.integers(len(alike))]
            channels = self.tensors[other].channels
            residual = {"residual": other, "residual_exponent": int(rng.integers(0, 5))}
        segments = int(rng.choice([1, 1, 1, 2, 3]))
        weights = str(rng.choice(["binary", "masked"]))
        self.add("conv", inputs, channels, weights, kernel, up, segments, **residual, **self.written())
