"""From a model's layer list to a flat plan: which step writes which tensor, and how long a tensor is needed."""

from __future__ import annotations

from dataclasses import dataclass

from engine import ops
from engine.layer import IMAGE, Layer
from engine.model import Model


@dataclass(frozen=True)
class Lifetime:
    """The steps from the one that writes a tensor to the last that reads it, both included."""

    first: int
    last: int


@dataclass(frozen=True)
class Step:
    """One layer and the tensors it reads and writes, by index; none for the image and for the head's logits."""

    layer: Layer
    inputs: tuple[int, ...]
    residual: int | None
    output: int | None


@dataclass(frozen=True)
class Plan:
    """A model's steps in order of execution.

    Every tensor is written once; those whose lifetimes do not meet may share memory.
    """

    model: Model
    steps: tuple[Step, ...]
    tensors: tuple[ops.Tensor, ...]
    lifetimes: tuple[Lifetime, ...]


def compile_plan(model: Model) -> Plan:
    """The plan of `model`."""
    hidden = [layer.name for layer in model.layers if not ops.operation(layer).last]
    index = {name: i for i, name in enumerate(hidden)}
    last = {name: i for i, layer in enumerate(model.layers) for name in layer.reads}
    steps = [
        Step(
            layer,
            tuple(index[name] for name in layer.inputs if name != IMAGE),
            index[layer.residual] if layer.residual else None,
            index.get(layer.name),
        )
        for layer in model.layers
    ]
    tensors = tuple(model.outputs[name] for name in hidden)
    return Plan(model, tuple(steps), tensors, tuple(Lifetime(i, last[name]) for i, name in enumerate(hidden)))
