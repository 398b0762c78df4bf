"""What a model is: layers, classes, preprocessing and packed weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import ops
from engine.bits import unpack
from engine.layer import Layer


class ModelFileError(ValueError):
    """A model or model file that is not what it should be; the message names the tensor, layer or field."""


OPTIONAL = {"optional": True}
"""Metadata of fields that a model file leaves out where they are empty."""


@dataclass(frozen=True)
class ClassInfo:
    """What one class is called and the color (red, green, blue, 0 … 255) it is drawn in."""

    name: str
    color: tuple[int, int, int]


RESIZE_MODES = ("pad", "resize", "aspect")
CONTRASTS = ("none", "stretch")


@dataclass(frozen=True)
class Preprocessing:
    """How an image is fitted to the network.

    With the `resize_mode` "pad" it keeps its size, with "resize" it becomes `height` x `width`, with "aspect" as large
    as fits into that in its own proportions; then its edges are replicated to what `Model.padded` says. With `contrast`
    "stretch" its grey range is stretched first
    (`engine.preprocess.stretch`). Of a file with several channels or pages the decoder takes `channel` and `page`, each
    a number from 0, or "max" for the maximum projection, unless a request says otherwise; empty: the first.
    """

    resize_mode: str = "pad"
    height: int = 0
    width: int = 0
    contrast: str = "none"
    channel: str = field(default="", metadata=OPTIONAL)
    page: str = field(default="", metadata=OPTIONAL)


@dataclass(frozen=True, eq=False)
class Model:
    """A network with all that is needed to run it.

    One class: it is the foreground, one logit, `threshold` is the default probability. Several: one logit each.
    `provenance` is JSON: data, split, seed, code, metrics. `tensors` holds the arrays of every layer as "LAYER.PART";
    which parts, of what dtype and shape, tells the layer's row in `engine.ops`.
    """

    name: str
    family: str
    layers: tuple[Layer, ...]
    classes: tuple[ClassInfo, ...]
    preprocessing: Preprocessing
    threshold: float
    provenance: dict[str, Any]
    tensors: dict[str, NDArray[Any]]

    @cached_property
    def outputs(self) -> dict[str, ops.Tensor]:
        """What every layer writes, and the image, by name."""
        return ops.tensors(self.layers)

    @cached_property
    def stride(self) -> int:
        """What the sides of an image are padded to multiples of."""
        return ops.stride(self.layers)

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Size of an image of `height` x `width` pixels with its right and bottom edges replicated for the network."""
        return -(-height // self.stride) * self.stride, -(-width // self.stride) * self.stride

    def inputs(self, layer: Layer) -> ops.Inputs:
        """The tensors that `layer` reads, its residual the last."""
        return tuple(self.outputs[name] for name in layer.reads)

    def input_channels(self, layer: Layer) -> tuple[int, ...]:
        """Real channels of each of the layer's inputs."""
        return tuple(self.outputs[name].channels for name in layer.inputs)

    def arrays(self, layer: Layer) -> dict[str, NDArray[Any]]:
        """The layer's own arrays by the part of their name that stands behind the layer's."""
        parts = ops.operation(layer).arrays(layer, self.inputs(layer))
        return {part: self.tensors[f"{layer.name}.{part}"] for part in parts if f"{layer.name}.{part}" in self.tensors}

    def bound(self, layer: Layer) -> NDArray[np.int64]:
        """Largest magnitude B that each channel's sum can reach, int64 [channels]; of the head, each logit."""
        return ops.operation(layer).bound(layer, self.inputs(layer), self.arrays(layer))

    def ternary(self, layer: Layer) -> NDArray[np.int8]:
        """Weights of a bit convolution in {-1, 0, +1}, int8 [segments, channels, up, up, kernel, kernel, inputs]."""
        inputs = self.input_channels(layer)
        pos = unpack(self.tensors[f"{layer.name}.pos"], inputs)
        neg = unpack(self.tensors[f"{layer.name}.neg"], inputs) if layer.weights == "masked" else ~pos
        return pos.astype(np.int8) - neg.astype(np.int8)
