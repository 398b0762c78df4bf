"""What every operation of a network is: one row of one table, which everything that must know asks.

A row tells how many inputs an operation reads and of what encoding, its kernel sizes, how it changes the resolution,
how far it reaches, its weights with dtype and shape, and the largest sum that they can give. The checks, the plan,
windows, the strategy, the roofline, pruning, export and the trainer ask it. What an operation computes says
`engine.backends.reference`, by a function of the same name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bits import packed_bytes
from engine.layer import IMAGE, Layer

MAX_SEGMENTS = 4
MAX_EXPONENT = 3
"""Of a segment: its weights count up to 2 ** 3 times."""
MAX_RESIDUAL_EXPONENT = 7
MAX_DOUBLINGS = 4

Spec = tuple[str, tuple[int, ...]]  # (dtype, shape) of an array
Arrays = Mapping[str, NDArray[Any]]  # of one layer, by the part of the name behind the layer's


@dataclass(frozen=True)
class Tensor:
    """What a layer writes: `channels` levels of `planes` bits at 1 / `stride` of the image's resolution."""

    channels: int
    stride: int
    planes: int = 1
    encoding: str = "sign"

    @property
    def largest(self) -> int:
        """Largest magnitude of a value: 1 for signs, else the highest level."""
        return 1 if self.encoding == "sign" else (1 << self.planes) - 1


PIXELS = Tensor(channels=3, stride=1, planes=8, encoding="unsigned")
"""The image, as the first layer reads it."""

Inputs = tuple[Tensor, ...]


def _same(layer: Layer, seen: int) -> int:
    return seen


def _no_fault(layer: Layer, inputs: Inputs) -> str:
    return ""


def _no_arrays(layer: Layer, inputs: Inputs) -> dict[str, Spec]:
    return {}


def _no_sums(layer: Layer, inputs: Inputs, arrays: Arrays) -> NDArray[np.int64]:
    return np.zeros(layer.channels, np.int64)


@dataclass(frozen=True)
class Operation:
    """One row. Functions take a layer and the tensors that it reads.

    `weights` are the kinds it may have, `kernels` the sizes of its kernel (0: none), `ups` by how much its output may
    be finer than its input, `down` by how much it is coarser, `inputs` how many it reads (fewest, most), `options` the
    further fields of `Layer` that it understands. `first` and `last` say that it stands at that end of a network and
    nowhere else.
    """

    kind: str
    """What a table of times calls it."""
    why: str = "bit-sliced counting: only non-zero weights are visited"
    """Why it runs on the kernel that it runs on."""
    weights: tuple[str, ...] = ("",)
    kernels: tuple[int, ...] = (0,)
    ups: tuple[int, ...] = (1,)
    down: int = 1
    inputs: tuple[int, int] = (1, 1)
    options: frozenset[str] = field(default=frozenset())
    first: bool = False
    last: bool = False
    fault: Callable[[Layer, Inputs], str] = _no_fault
    """What is wrong with a layer on these inputs (the residual's the last); "" where nothing is."""
    reach: Callable[[Layer, int], int] = _same
    """How far beyond a rectangle of the input the output's depends that reaches `seen` beyond its own."""
    arrays: Callable[[Layer, Inputs], dict[str, Spec]] = _no_arrays
    """The layer's arrays in a model: {part: (dtype, shape)}."""
    bound: Callable[[Layer, Inputs, Arrays], NDArray[np.int64]] = _no_sums
    """Largest magnitude B of each channel's sum, int64 [channels]; of the head, of each logit after its doublings."""

    @property
    def has_bits(self) -> bool:
        """Whether its weights are bits: the convolutions that a network's cost is made of."""
        return "binary" in self.weights

    def output(self, layer: Layer, inputs: Inputs) -> Tensor:
        """What it writes, of inputs that it may have."""
        stride = inputs[0].stride * self.down // layer.up >> layer.doublings
        return Tensor(layer.channels, stride, layer.planes, layer.encoding)


def operation(layer: Layer) -> Operation:
    """The row of `layer`; raises KeyError for an operation that there is not."""
    return OPERATIONS[layer.op]


def tensors(layers: Iterable[Layer]) -> dict[str, Tensor]:
    """What every layer writes and, as IMAGE, what the first one reads, by name."""
    found = {IMAGE: PIXELS}
    for layer in layers:
        found[layer.name] = operation(layer).output(layer, tuple(found[name] for name in layer.inputs))
    return found


def stride(layers: Iterable[Layer]) -> int:
    """Image pixels between neighbors of the coarsest tensor: what the sides of an image must be multiples of."""
    return max(tensor.stride for tensor in tensors(layers).values())


def padded(layers: Iterable[Layer], height: int, width: int) -> tuple[int, int]:
    """Size of an image of `height` x `width` pixels with its right and bottom edges replicated for the network."""
    multiple = stride(layers)
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def visits(layers: Iterable[Layer], size: int) -> dict[str, int]:
    """By name: a layer's weights times the positions of its input at which each is used, of one `size` x `size` image.

    That is the number of its multiply-accumulates; 0 for a layer without weights.
    """
    flat = list(layers)
    found = tensors(flat)
    return {
        layer.name: weight_count(layer, tuple(found[name] for name in layer.inputs))
        * (size // found[layer.inputs[0]].stride) ** 2
        for layer in flat
    }


def weight_count(layer: Layer, inputs: Inputs) -> int:
    """Weights of `layer`: for every segment, output channel and input channel a kernel for each of up x up outputs."""
    channels = sum(tensor.channels for tensor in inputs[: len(layer.inputs)])
    return layer.segments * layer.channels * channels * (layer.up * layer.kernel) ** 2


def weight_shape(layer: Layer, channels_in: int) -> tuple[int, ...]:
    """Of a bit convolution's weights [segments, channels, up, up, kernel, kernel, inputs] (rows before columns)."""
    return (layer.segments, layer.channels, layer.up, layer.up, layer.kernel, layer.kernel, channels_in)


# -- convolutions of bits ---------------------------------------------------------------------------------------------


def _conv_fault(layer: Layer, inputs: Inputs) -> str:
    read = inputs[: len(layer.inputs)]
    if any((t.planes, t.encoding) != (read[0].planes, read[0].encoding) for t in read):
        return "its inputs are not written in the same planes and encoding"
    if not 1 <= layer.segments <= MAX_SEGMENTS:
        return f"segments {layer.segments}, not 1 to {MAX_SEGMENTS}"
    if not 0 <= layer.residual_exponent <= (MAX_RESIDUAL_EXPONENT if layer.residual else 0):
        return f"residual_exponent {layer.residual_exponent}, not 0 to {MAX_RESIDUAL_EXPONENT}, or without a residual"
    if not layer.residual:
        return ""
    if layer.up != 1:
        return "only a convolution that keeps the resolution has a residual"
    same = Tensor(layer.channels, read[0].stride, read[0].planes, read[0].encoding)
    return "" if inputs[-1] == same else "its residual is not of its channels and resolution, written as its inputs are"


def _conv_reach(layer: Layer, seen: int) -> int:
    return -(-seen // layer.up) + layer.kernel // 2


def _conv_arrays(layer: Layer, inputs: Inputs) -> dict[str, Spec]:
    channels = [tensor.channels for tensor in inputs[: len(layer.inputs)]]
    shape = weight_shape(layer, packed_bytes(channels))
    arrays: dict[str, Spec] = {"pos": ("uint8", shape)}
    if layer.weights == "masked":
        arrays["neg"] = ("uint8", shape)
    if layer.segments > 1:
        arrays["exponents"] = ("uint8", shape[:2])
    if layer.residual:
        arrays["residual_signs"] = ("int8", (layer.channels,))
    return arrays | {"theta": ("int32", (layer.channels, layer.thresholds))}


def largest_sums(layer: Layer, inputs: Inputs, taps: NDArray[np.int64], factors: NDArray[Any]) -> NDArray[np.int64]:
    """B of a bit convolution, int64 [channels].

    `taps` [segments, channels, up, up] are the magnitudes of its weights, added up for every output, and `factors`
    [segments, channels] how often each segment is doubled.
    """
    scaled = taps << factors.astype(np.int64)[:, :, None, None]
    sums: NDArray[np.int64] = scaled.sum(axis=0).max(axis=(1, 2)) * inputs[0].largest
    return sums + ((inputs[0].largest << layer.residual_exponent) if layer.residual else 0)


def nonzeros(layer: Layer, inputs: Inputs, arrays: Arrays) -> NDArray[np.int64]:
    """Weights of a bit convolution that are not zero, int64 [segments, channels, up, up]: counted for every output."""
    if layer.weights == "binary":
        taps = layer.kernel**2 * sum(tensor.channels for tensor in inputs[: len(layer.inputs)])
        return np.full((layer.segments, layer.channels, layer.up, layer.up), taps, np.int64)
    counts: NDArray[np.int64] = np.bitwise_count(arrays["pos"] | arrays["neg"]).sum(axis=(4, 5, 6), dtype=np.int64)
    return counts


def _conv_bound(layer: Layer, inputs: Inputs, arrays: Arrays) -> NDArray[np.int64]:
    return largest_sums(layer, inputs, nonzeros(layer, inputs, arrays), exponents(layer, arrays))


def exponents(layer: Layer, arrays: Arrays) -> NDArray[np.uint8]:
    """How often each segment of each channel is doubled, uint8 [segments, channels]."""
    if layer.segments == 1:
        return np.zeros((1, layer.channels), np.uint8)
    return np.asarray(arrays["exponents"], np.uint8)


# -- the layers in fixed point, pooling, gate --------------------------------------------------------------------------


def _stem_arrays(layer: Layer, inputs: Inputs) -> dict[str, Spec]:
    shape = (layer.channels, layer.kernel, layer.kernel, inputs[0].channels)
    return {"weight": ("int16", shape), "theta": ("int32", (layer.channels, layer.thresholds))}


def _stem_bound(layer: Layer, inputs: Inputs, arrays: Arrays) -> NDArray[np.int64]:
    sums: NDArray[np.int64] = np.abs(arrays["weight"].astype(np.int64)).reshape(layer.channels, -1).sum(axis=1)
    return sums * inputs[0].largest


def _head_fault(layer: Layer, inputs: Inputs) -> str:
    if not 0 <= layer.doublings <= MAX_DOUBLINGS:
        return f"doublings {layer.doublings}, not 0 to {MAX_DOUBLINGS}"
    return "" if math.isfinite(layer.scale) and layer.scale > 0 else f"scale {layer.scale} is not positive"


def _head_reach(layer: Layer, seen: int) -> int:
    for _ in range(layer.doublings):  # each reads one neighbor at the resolution before it
        seen = -(-seen // 2) + 1
    return seen


def _head_arrays(layer: Layer, inputs: Inputs) -> dict[str, Spec]:
    return {"weight": ("int16", (layer.channels, inputs[0].channels)), "bias": ("int32", (layer.channels,))}


def _head_bound(layer: Layer, inputs: Inputs, arrays: Arrays) -> NDArray[np.int64]:
    sums: NDArray[np.int64] = np.abs(arrays["weight"].astype(np.int64)).sum(axis=1) * inputs[0].largest
    return (sums + np.abs(arrays["bias"].astype(np.int64))) << 4 * layer.doublings


def _pool_fault(layer: Layer, inputs: Inputs) -> str:
    wrong = (layer.channels, layer.planes, layer.encoding) != (
        inputs[0].channels,
        inputs[0].planes,
        inputs[0].encoding,
    )
    return "its channels, planes or encoding are not its input's" if wrong else ""


def _gate_fault(layer: Layer, inputs: Inputs) -> str:
    if inputs[1].planes != 1 or inputs[1].channels not in (1, inputs[0].channels):
        return "its second input is not one plane of one or of all channels"
    return _pool_fault(layer, inputs)


OPERATIONS: dict[str, Operation] = {
    # 3x3 over RGB pixels
    "stem": Operation(
        kind="first layer",
        why="int16 fixed point, exact in int32",
        weights=("int16",),
        kernels=(3,),
        first=True,
        reach=lambda layer, seen: seen + layer.kernel // 2,
        arrays=_stem_arrays,
        bound=_stem_bound,
    ),
    "conv": Operation(
        kind="convolution",
        weights=("binary", "masked"),
        kernels=(1, 3),
        ups=(1, 2),
        inputs=(1, 2),  # a skip connection
        options=frozenset({"segments", "residual", "residual_exponent"}),
        fault=_conv_fault,
        reach=_conv_reach,
        arrays=_conv_arrays,
        bound=_conv_bound,
    ),
    # the highest level of every 2x2 square
    "pool": Operation(
        kind="pooling",
        why="the highest of four levels, by logic",
        down=2,
        fault=_pool_fault,
        reach=lambda layer, seen: 2 * seen,
    ),
    # the first input where the second's bit is set, level 0 elsewhere
    "gate": Operation(kind="gate", why="one AND a plane", inputs=(2, 2), fault=_gate_fault),
    # 1x1 to logits
    "head": Operation(
        kind="head",
        why="int16 fixed point, exact in int32",
        weights=("int16",),
        kernels=(1,),
        options=frozenset({"doublings", "scale"}),
        last=True,
        fault=_head_fault,
        reach=_head_reach,
        arrays=_head_arrays,
        bound=_head_bound,
    ),
}
