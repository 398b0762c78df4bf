"""Model files of format 1: MBU-Net alone, an operation for every kernel size. They are read forever, never written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as shorten
from typing import Any

from engine import ops
from engine.check import require
from engine.layer import Layer
from engine.model import ClassInfo, Model, Preprocessing

OPS: dict[str, dict[str, Any]] = {
    "pixels3x3": {"op": "stem", "kernel": 3},
    "conv3x3": {"op": "conv", "kernel": 3},
    "pool2x2": {"op": "pool"},
    "upconv2x2": {"op": "conv", "kernel": 1, "up": 2},
    "head1x1": {"op": "head", "kernel": 1},
}
"""What the operations of format 1 are today."""

FORMAT = 1
MAX_MULTIPLE = 1024


@dataclass(frozen=True)
class Layer1:
    """A layer as format 1 describes it."""

    name: str
    op: str
    inputs: tuple[str, ...]
    channels: int
    weights: str
    block: str
    planes: int
    encoding: str
    scale: float


@dataclass(frozen=True)
class Preprocessing1:
    """`fit` is today's resize_mode; `multiple` has no effect: images are padded to the network's stride."""

    fit: str
    multiple: int
    height: int
    width: int
    contrast: str


@dataclass(frozen=True)
class Model1:
    """The description in a file of format 1."""

    name: str
    family: str
    layers: tuple[Layer1, ...]
    classes: tuple[ClassInfo, ...]
    preprocessing: Preprocessing1
    threshold: float
    provenance: dict[str, Any]

    def upgraded(self) -> Model:
        """The same model in today's terms, without tensors. Raises ModelFileError for what format 1 does not have."""
        how = self.preprocessing
        in_range = 1 <= how.multiple <= MAX_MULTIPLE
        require(in_range, "preprocessing", f"multiple {how.multiple} is not 1 to {MAX_MULTIPLE}")
        return Model(
            name=self.name,
            family=self.family,
            layers=tuple(_layer(layer) for layer in self.layers),
            classes=self.classes,
            preprocessing=Preprocessing(how.fit, how.height, how.width, how.contrast),
            threshold=self.threshold,
            provenance=self.provenance,
            tensors={},
        )


def _layer(old: Layer1) -> Layer:
    require(old.op in OPS, shorten(old.name), f"op {shorten(old.op)} is not supported in format 1")
    one_bit = old.planes == 1 and old.encoding == "sign"
    require(one_bit, shorten(old.name), "planes and encoding other than 1 and 'sign' are not supported in format 1")
    return Layer(
        old.name, inputs=old.inputs, channels=old.channels, weights=old.weights, block=old.block, scale=old.scale,
        **OPS[old.op],
    )  # fmt: skip


def shapes(specs: Mapping[str, ops.Spec]) -> dict[str, ops.Spec]:
    """What format 1 expects in the place of `specs`: planes [channels, kh, kw, bytes], of one segment."""
    return {name: (dtype, _shape(shape)) for name, (dtype, shape) in specs.items()}


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 7:
        return shape
    _, channels, up, _, kernel, _, inputs = shape  # either up or kernel is 1, so rows and columns are their products
    return (channels, up * kernel, up * kernel, inputs)
