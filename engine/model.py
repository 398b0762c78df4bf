"""What a model is: layers, classes, preprocessing and packed tensors (DESIGN sections 2 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE = "image"
"""The name by which the first layer reads the pixels."""

IMAGE_CHANNELS = 3

SIDES = {"pixels3x3": 3, "conv3x3": 3, "pool2x2": 0, "upconv2x2": 2, "head1x1": 1}
"""The operations, with kernel height = width; a pool has no weights."""

Bools = NDArray[np.bool_]
Packed = NDArray[np.uint8]


class ModelFileError(ValueError):
    """A model or model file that is not what it should be; the message names the tensor, layer or field."""


@dataclass(frozen=True)
class Layer:
    """One step of the network; it reads the outputs of earlier layers, or IMAGE.

    `op` is one of SIDES. `weights` is "int16" (first and last layer), "binary" (+-1), "masked" (-1, 0, +1) or "" (a
    pool). `block` names the block of the cost-aware strategy. `planes` and `encoding` say how the output is written in
    bits. `scale` turns the head's integer logits into real ones; elsewhere it is 0.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    channels: int
    weights: str = ""
    block: str = ""
    planes: int = 1
    encoding: str = "sign"
    scale: float = 0.0

    @property
    def side(self) -> int:
        """Kernel height and width: 3, 2, 1, or 0 for a pool."""
        return SIDES[self.op]

    @property
    def taps(self) -> int:
        """Kernel positions: 9, 4, 1, or 0 for a pool."""
        return self.side * self.side

    @property
    def thresholds(self) -> int:
        """Thresholds per channel, one fewer than the levels that the output's planes can tell apart."""
        return (1 << self.planes) - 1


@dataclass(frozen=True)
class ClassInfo:
    """What one class is called and the color (red, green, blue, 0 … 255) it is drawn in."""

    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Preprocessing:
    """How an image is fitted to the network.

    "pad" keeps its size and replicates the edges up to a `multiple` of pixels, "resize" makes it `height` x `width`.
    With `contrast` "stretch" its grey range is stretched first (`engine.preprocess.stretch`).
    """

    fit: str = "pad"
    multiple: int = 16
    height: int = 0
    width: int = 0
    contrast: str = "none"


@dataclass(frozen=True, eq=False)
class Model:
    """A network with all that is needed to run it.

    One class: it is the foreground, one logit, `threshold` is the default probability. Several: one logit each.
    `provenance` is JSON: data, split, seed, code, scores. `tensors` holds, for layer N with C channels, T thresholds
    and inputs packed into B bytes (see `pack`):

    * pixels3x3: N.weight int16 [C, 3, 3, 3], N.theta int32 [C, T]
    * conv3x3:   N.pos uint8 [C, 3, 3, B], if masked also N.neg of that shape, N.theta int32 [C, T]
    * upconv2x2: N.pos uint8 [C, 2, 2, B], if masked also N.neg of that shape, N.theta int32 [C, T]
    * head1x1:   N.weight int16 [classes, input channels], N.bias int32 [classes]
    """

    name: str
    family: str
    layers: tuple[Layer, ...]
    classes: tuple[ClassInfo, ...]
    preprocessing: Preprocessing
    threshold: float
    provenance: dict[str, Any]
    tensors: dict[str, NDArray[Any]]

    def input_channels(self, layer: Layer) -> tuple[int, ...]:
        """Real channels of each of the layer's inputs."""
        channels = {IMAGE: IMAGE_CHANNELS} | {other.name: other.channels for other in self.layers}
        return tuple(channels[name] for name in layer.inputs)

    def signs(self, layer: Layer) -> NDArray[np.int8]:
        """Weights of a binary or masked layer, int8 [channels, kh, kw, input channels] in {-1, 0, +1}."""
        inputs = self.input_channels(layer)
        pos = unpack(self.tensors[f"{layer.name}.pos"], inputs)
        neg = unpack(self.tensors[f"{layer.name}.neg"], inputs) if layer.weights == "masked" else ~pos
        return pos.astype(np.int8) - neg.astype(np.int8)


def packed_bytes(inputs: Sequence[int]) -> int:
    """Bytes that one bit for every channel of every input takes: each input is rounded up to whole bytes."""
    return sum((channels + 7) // 8 for channels in inputs)


def pack(bits: Bools, inputs: Sequence[int]) -> Packed:
    """Pack bool [..., sum(inputs)] into uint8 [..., packed_bytes(inputs)], least significant bit first."""
    parts = np.split(bits, np.cumsum(inputs)[:-1], axis=-1)
    return np.concatenate([np.packbits(part, axis=-1, bitorder="little") for part in parts], axis=-1)


def unpack(packed: Packed, inputs: Sequence[int]) -> Bools:
    """Unpack uint8 [..., packed_bytes(inputs)] into bool [..., sum(inputs)]; padding bits are dropped."""
    ends = np.cumsum([packed_bytes([channels]) for channels in inputs])
    parts = np.split(packed, ends[:-1], axis=-1)
    bits = [np.unpackbits(p, axis=-1, count=c, bitorder="little") for p, c in zip(parts, inputs, strict=True)]
    return np.concatenate(bits, axis=-1).view(np.bool_)
