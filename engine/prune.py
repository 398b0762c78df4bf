"""Channels that can never change a result, removed exactly: the smaller model gives the same logits, bit for bit.

A channel is constant when its threshold lies beyond what its sums can reach. Its readers then learn nothing from it:

* Constant 0 is the activation -1, which is also what stands outside the image. So a tap reads -1 wherever it lies, and
  the channel adds -sum(w) to every sum: that goes into the reader's threshold, borders included.
* Constant 1 is +1 inside the image and -1 outside, so what an off-centre tap adds depends on the place. Only a reader
  whose off-centre taps on that channel are all zero takes it into its threshold; the centre never lies outside.
* The outputs that a transposed convolution makes of one input share a threshold, so what the channel adds to each must
  be equal. A head reads one pixel, adds a constant to its bias, and never stands in the way.
* Pooling a constant gives that constant, so a pool is no more than another name for the layer that it reads.

A channel whose readers all have zero weights on it, at first or after this, is not computed at all. Removing it takes
reads away from earlier channels, and narrower reaches make new constants, so both go on until nothing changes.

Networks with levels, residuals, gates or several segments are left as they are: a residual ties the channels of two
layers together, and a constant level between the lowest and the highest is not what stands outside the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import ops
from engine.bits import pack
from engine.layer import IMAGE, Layer
from engine.model import Model

Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass
class _Node:
    """A layer with weights in the making.

    `sources` are the layers it reads, directly or through a pool. `weights` are int64 [channels, outputs, taps,
    inputs], for each of up x up outputs the kernel x kernel taps, `offsets` (theta, or the head's bias) int64
    [channels], `kept` the old indices of its channels.
    """

    layer: Layer
    sources: tuple[str, ...]
    weights: Integers
    offsets: Integers
    kept: NDArray[np.intp]


Nodes = dict[str, _Node]


@dataclass(frozen=True)
class Pruned:
    """The smaller model, and for each layer which of its channels are left (indices into the old ones)."""

    model: Model
    kept: Mapping[str, NDArray[np.intp]]
    why: str = ""
    """Why the model was left as it is; empty where it was looked at."""

    def report(self, old: Model) -> str:
        """How much smaller the model is, or why it is not, in one line."""
        if self.why:
            return f"no channel is removed: {self.why}"
        channels = [sum(layer.channels for layer in m.layers if layer.weights) for m in (old, self.model)]
        weights = [_nonzeros(m) for m in (old, self.model)]
        return (
            f"{channels[0] - channels[1]} of {channels[0]} channels can never change a result and are removed; "
            f"of {weights[0]} non-zero bit weights {weights[1]} are left"
        )


def prune(model: Model) -> Pruned:
    """`model` without the channels that can never change a result; every layer keeps at least one."""
    if why := _obstacle(model):
        return Pruned(model, {layer.name: np.arange(layer.channels) for layer in model.layers}, why)
    origins = _origins(model)
    nodes = {layer.name: _node(model, layer, origins) for layer in model.layers if layer.weights}
    changed = True
    while changed:
        changed = _fold_flexible(nodes) | _fold_rigid(nodes)
        changed |= _drop_unread(nodes)
    return Pruned(_rebuilt(model, nodes, origins), {name: nodes[origin].kept for name, origin in origins.items()})


def _obstacle(model: Model) -> str:
    """What keeps the model from being pruned; "" where nothing does."""
    for layer in model.layers:
        if layer.encoding != "sign":
            return f"{layer.name} has activations of several levels"
        if layer.residual or layer.segments > 1 or layer.op not in ("stem", "conv", "pool", "head"):
            return f"{layer.name} has a residual, several segments or an operation that ties channels together"
    return ""


def _origins(model: Model) -> dict[str, str]:
    """For every layer the one that makes its bits: itself, or what a pool reads."""
    origins: dict[str, str] = {}
    for layer in model.layers:
        origins[layer.name] = layer.name if layer.weights else origins[layer.inputs[0]]
    return origins


def _node(model: Model, layer: Layer, origins: Mapping[str, str]) -> _Node:
    arrays = model.arrays(layer)
    weights: NDArray[Any] = model.ternary(layer) if ops.operation(layer).has_bits else arrays["weight"]
    offsets: NDArray[Any] = arrays["theta"][:, 0] if "theta" in arrays else arrays["bias"]
    shape = (layer.channels, layer.up**2, layer.kernel**2, sum(model.input_channels(layer)))
    sources = tuple(origins[name] for name in layer.inputs if name != IMAGE)
    return _Node(
        layer, sources, weights.reshape(shape).astype(np.int64), offsets.astype(np.int64), np.arange(layer.channels)
    )


# -- constants ---------------------------------------------------------------------------------------------------------


def _fold_flexible(nodes: Nodes) -> bool:
    """Take constant inputs into the thresholds and biases of layers that may hold zeros; whether there were any."""
    constants = _constants(nodes)
    changed = False
    for node in nodes.values():
        if node.sources and node.layer.weights != "binary":
            values = np.concatenate([constants[name] for name in node.sources])
            able = _absorbable(node, values) & np.any(node.weights != 0, axis=(1, 2))
            _absorb(node, values, able)
            changed |= bool(np.any(able))
    return changed


def _fold_rigid(nodes: Nodes) -> bool:
    """Take constant inputs into the thresholds of binary layers, which hold no zeros; whether there were any.

    That is possible where the channel then has no reader left and goes, and as long as its layer keeps another.
    """
    constants = _constants(nodes)
    rigid = [node for node in nodes.values() if node.layer.weights == "binary"]
    free = {name: values != 0 for name, values in constants.items()}
    for node in nodes.values():
        if node.sources:
            values = np.concatenate([constants[name] for name in node.sources])
            unread = ~np.any(node.weights != 0, axis=(0, 1, 2))
            able = unread | (np.all(_absorbable(node, values), axis=0) & (node.layer.weights == "binary"))
            for name, part in _by_source(nodes, node, able):
                free[name] &= part
    for channels in free.values():
        channels[0] &= not np.all(channels)
    changed = False
    for node in rigid:
        values = np.concatenate([constants[name] for name in node.sources])
        gone = np.concatenate([free[name] for name in node.sources]) & np.any(node.weights != 0, axis=(0, 1, 2))
        _absorb(node, values, np.broadcast_to(gone, (len(node.kept), len(gone))))
        changed |= bool(np.any(gone))
    return changed


def _constants(nodes: Nodes) -> dict[str, Integers]:
    """For every layer but the head what its channels are wherever they are: -1 or +1, or 0 where that varies."""
    found: dict[str, Integers] = {}
    for name, node in nodes.items():
        if node.layer.op != "head":
            low, high = _reach(node)
            found[name] = np.where(node.offsets <= low, 1, np.where(node.offsets > high, -1, 0))
    return found


def _reach(node: _Node) -> tuple[Integers, Integers]:
    """(smallest, largest) sum of each channel."""
    if node.layer.op == "stem":  # pixels are not negative
        flat = 255 * node.weights.reshape(len(node.kept), -1)
        return np.minimum(flat, 0).sum(1), np.maximum(flat, 0).sum(1)
    return -_bound(node), _bound(node)


def _bound(node: _Node) -> Integers:
    """B of every channel, as the operation's row has it."""
    bound: Integers = np.abs(node.weights).sum((2, 3)).max(1)
    return bound


def _absorbable(node: _Node, values: Integers) -> Bools:
    """Where a channel (row) can take a constant input (column) into its threshold, bool [channels, inputs]."""
    sums = node.weights.sum(2)  # [channels, outputs, inputs]
    off_center = np.delete(node.weights, node.weights.shape[2] // 2, axis=2)
    anywhere = (values == -1) | ~np.any(off_center != 0, axis=(1, 2))
    able: Bools = (values != 0) & anywhere & np.all(sums == sums[:, :1], axis=1)
    return able


def _absorb(node: _Node, values: Integers, able: Bools) -> None:
    """Set the weights where `able` to 0 and move what they add, the inputs being `values`, into the offsets."""
    weights = np.where(able[:, None, None], node.weights, 0)
    added = weights[:, 0].sum(1) @ values  # the same for all outputs
    node.weights = node.weights - weights
    if node.layer.op == "head":
        node.offsets = node.offsets + added
    else:
        bound = _bound(node)
        node.offsets = np.clip(node.offsets - added, -bound, bound + 1)


# -- channels that nothing reads ---------------------------------------------------------------------------------------


def _drop_unread(nodes: Nodes) -> bool:
    """Remove the channels on which no reader has a weight; whether there were any."""
    read = {name: np.zeros(len(node.kept), np.bool_) for name, node in nodes.items()}
    for node in nodes.values():
        for name, part in _by_source(nodes, node, np.any(node.weights != 0, axis=(0, 1, 2))):
            read[name] |= part
    changed = False
    for name, node in nodes.items():
        if node.layer.op != "head" and not np.all(read[name]):
            keep = read[name] if np.any(read[name]) else np.arange(len(node.kept)) == 0
            changed |= not np.all(keep)
            _remove(nodes, name, keep)
    return changed


def _remove(nodes: Nodes, name: str, keep: Bools) -> None:
    """Leave the channels `keep` of one layer, in itself and in its readers' weights."""
    for reader in nodes.values():
        if name in reader.sources:
            parts = [
                keep if source == name else np.ones(len(nodes[source].kept), np.bool_) for source in reader.sources
            ]
            reader.weights = reader.weights[..., np.concatenate(parts)]
    node = nodes[name]
    node.kept, node.weights, node.offsets = node.kept[keep], node.weights[keep], node.offsets[keep]


def _by_source(nodes: Nodes, node: _Node, inputs: Bools) -> list[tuple[str, Bools]]:
    """`inputs` [all inputs of `node`], part by part with the layer that each comes from."""
    if not node.sources:
        return []
    ends = np.cumsum([len(nodes[name].kept) for name in node.sources])
    return list(zip(node.sources, np.split(inputs, ends[:-1]), strict=True))


# -- back to a model ---------------------------------------------------------------------------------------------------


def _rebuilt(model: Model, nodes: Nodes, origins: Mapping[str, str]) -> Model:
    layers: list[Layer] = []
    tensors: dict[str, NDArray[Any]] = {}
    for layer in model.layers:
        layers.append(replace(layer, channels=len(nodes[origins[layer.name]].kept)))
        if layer.weights:
            node = nodes[layer.name]
            inputs = [len(nodes[name].kept) for name in node.sources] or [ops.PIXELS.channels]
            parts = _tensors(node, inputs)
            tensors |= {f"{layer.name}.{part}": np.ascontiguousarray(array) for part, array in parts.items()}
    return replace(model, layers=tuple(layers), tensors=tensors)


def _tensors(node: _Node, inputs: list[int]) -> dict[str, NDArray[Any]]:
    layer, channels = node.layer, len(node.kept)
    if layer.op == "head":
        return {"weight": node.weights[:, 0, 0].astype(np.int16), "bias": node.offsets.astype(np.int32)}
    theta = {"theta": node.offsets.astype(np.int32)[:, None]}
    if layer.op == "stem":
        shape = (channels, layer.kernel, layer.kernel, *inputs)
        return {"weight": node.weights.reshape(shape).astype(np.int16), **theta}
    weights = node.weights.reshape(ops.weight_shape(replace(layer, channels=channels), sum(inputs)))
    planes: dict[str, NDArray[Any]] = {"pos": pack(weights > 0, inputs), **theta}
    return planes | ({"neg": pack(weights < 0, inputs)} if layer.weights == "masked" else {})


def _nonzeros(model: Model) -> int:
    bits = [layer for layer in model.layers if ops.operation(layer).has_bits]
    return sum(int(np.count_nonzero(model.ternary(layer))) for layer in bits)
