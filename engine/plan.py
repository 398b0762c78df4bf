"""From a model's layer list to a flat plan: which step writes which buffer, and when a buffer is free again."""

from __future__ import annotations

from dataclasses import dataclass

from engine.format import IMAGE, Layer, Model


@dataclass(frozen=True)
class Slot:
    """A buffer for the bits of one tensor at a time: `channels` planes at 1 / `stride` of the image's resolution."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Step:
    """One layer, the slots it reads (none for the image), how many channels it takes of each, the slot it writes."""

    layer: Layer
    inputs: tuple[int, ...]
    input_channels: tuple[int, ...]
    output: int | None  # None for the head: its result leaves the engine


@dataclass(frozen=True)
class Plan:
    """Steps in order of execution, and the slots they share."""

    steps: tuple[Step, ...]
    slots: tuple[Slot, ...]

    @property
    def stride(self) -> int:
        """What the sides of an image must be multiples of."""
        return max((slot.stride for slot in self.slots), default=1)


def compile_plan(model: Model) -> Plan:
    """Plan of `model`: every tensor gets a slot of its resolution that no later step still needs."""
    last_use = {name: layer.name for layer in model.layers for name in layer.inputs}
    strides = {IMAGE: 1}
    holder: dict[str, int] = {}
    slots: list[Slot] = []
    free: list[int] = []
    steps = []
    for layer in model.layers:
        strides[layer.name] = _stride(layer, strides[layer.inputs[0]])
        inputs = tuple(holder[name] for name in layer.inputs if name != IMAGE)
        output = None
        if layer.op != "head1x1":
            output = holder[layer.name] = _take(slots, free, Slot(layer.channels, strides[layer.name]))
        steps.append(Step(layer, inputs, model.input_channels(layer), output))
        free += [holder[name] for name in set(layer.inputs) if name != IMAGE and last_use[name] == layer.name]
    return Plan(tuple(steps), tuple(slots))


def _stride(layer: Layer, stride: int) -> int:
    if layer.op == "pool2x2":
        return stride * 2
    return stride // 2 if layer.op == "upconv2x2" else stride


def _take(slots: list[Slot], free: list[int], wanted: Slot) -> int:
    """A free slot of the wanted resolution, widened if need be, or a new one."""
    for index in sorted(free, key=lambda i: slots[i].channels, reverse=True):
        if slots[index].stride == wanted.stride:
            free.remove(index)
            slots[index] = Slot(max(slots[index].channels, wanted.channels), wanted.stride)
            return index
    slots.append(wanted)
    return len(slots) - 1
