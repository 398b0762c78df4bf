"""Channels that can never change a result, removed exactly: the smaller model gives the same logits, bit for bit.

A channel is constant when its threshold lies beyond what its sums can reach. Its readers then learn nothing from it:

* Constant 0 is the activation -1, which is also what stands outside the image. So a 3x3 tap reads -1 wherever it
  lies, and the channel adds -sum(w) to every sum: that goes into the reader's threshold, borders included.
* Constant 1 is +1 inside the image and -1 outside, so what an off-centre tap adds depends on the place. Only a reader
  whose off-centre taps on that channel are all zero takes it into its threshold; the centre never lies outside.
* A transposed convolution's four taps write different pixels against one threshold, so their weights on that channel
  must be equal. A head reads one pixel, adds a constant to its bias, and never stands in the way.
* Pooling a constant gives that constant, so a pool is no more than another name for the layer that it reads.

A channel whose readers all have zero weights on it, at first or after this, is not computed at all. Removing it takes
reads away from earlier channels, and narrower reaches make new constants, so both go on until nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.model import IMAGE, IMAGE_CHANNELS, Layer, Model, pack

Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass
class _Node:
    """A layer with weights in the making.

    `sources` are the layers it reads, directly or through a pool. `weights` are int64 [channels, kh, kw, inputs],
    `offsets` (theta, or the head's bias) int64 [channels], `kept` the old indices of its channels.
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

    def report(self, old: Model) -> str:
        """How much smaller the model is, in one line."""
        channels = [sum(layer.channels for layer in m.layers if layer.weights) for m in (old, self.model)]
        weights = [_nonzeros(m) for m in (old, self.model)]
        return (
            f"{channels[0] - channels[1]} of {channels[0]} channels can never change a result and are removed; "
            f"of {weights[0]} non-zero bit weights {weights[1]} are left"
        )


def prune(model: Model) -> Pruned:
    """`model` without the channels that can never change a result; every layer keeps at least one."""
    if any(layer.planes != 1 or layer.encoding != "sign" for layer in model.layers):
        raise ValueError("only activations of one bit can be pruned")
    origins = _origins(model)
    nodes = {layer.name: _node(model, layer, origins) for layer in model.layers if layer.weights}
    changed = True
    while changed:
        changed = _fold_flexible(nodes) | _fold_rigid(nodes)
        changed |= _drop_unread(nodes)
    return Pruned(_rebuilt(model, nodes, origins), {name: nodes[origin].kept for name, origin in origins.items()})


def _origins(model: Model) -> dict[str, str]:
    """For every layer the one that makes its bits: itself, or what a pool reads."""
    origins: dict[str, str] = {}
    for layer in model.layers:
        origins[layer.name] = layer.name if layer.weights else origins[layer.inputs[0]]
    return origins


def _node(model: Model, layer: Layer, origins: Mapping[str, str]) -> _Node:
    if layer.op == "head1x1":
        weights: NDArray[Any] = model.tensors[f"{layer.name}.weight"][:, None, None]
        offsets: NDArray[Any] = model.tensors[f"{layer.name}.bias"]
    else:
        int16 = layer.weights == "int16"
        weights = model.tensors[f"{layer.name}.weight"] if int16 else model.signs(layer)
        offsets = model.tensors[f"{layer.name}.theta"][:, 0]
    sources = tuple(origins[name] for name in layer.inputs if name != IMAGE)
    return _Node(layer, sources, weights.astype(np.int64), offsets.astype(np.int64), np.arange(layer.channels))


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
        if node.layer.op != "head1x1":
            low, high = _reach(node)
            found[name] = np.where(node.offsets <= low, 1, np.where(node.offsets > high, -1, 0))
    return found


def _reach(node: _Node) -> tuple[Integers, Integers]:
    """(smallest, largest) sum of each channel."""
    if node.layer.op == "pixels3x3":  # pixels are not negative
        flat = 255 * node.weights.reshape(len(node.kept), -1)
        return np.minimum(flat, 0).sum(1), np.maximum(flat, 0).sum(1)
    return -_bound(node), _bound(node)


def _bound(node: _Node) -> Integers:
    """B of every channel, as `engine.check.bound` has it."""
    taps = np.abs(node.weights).sum(3)
    bound: Integers = taps.max((1, 2)) if node.layer.op == "upconv2x2" else taps.sum((1, 2))
    return bound


def _absorbable(node: _Node, values: Integers) -> Bools:
    """Where a channel (row) can take a constant input (column) into its threshold, bool [channels, inputs]."""
    weights = node.weights
    able: Bools = np.broadcast_to(values != 0, (weights.shape[0], weights.shape[3]))
    if node.layer.op == "upconv2x2":
        able = able & np.all(weights == weights[:, :1, :1], axis=(1, 2))
    elif node.layer.op == "conv3x3":
        off_centre = weights.copy()
        off_centre[:, 1, 1] = 0
        able = able & ((values == -1) | ~np.any(off_centre != 0, axis=(1, 2)))
    return able


def _absorb(node: _Node, values: Integers, able: Bools) -> None:
    """Set the weights where `able` to 0 and move what they add, the inputs being `values`, into the offsets."""
    weights = np.where(able[:, None, None], node.weights, 0)
    # of a transposed convolution's taps, all equal here, one reaches a pixel
    per_input = weights[:, 0, 0] if node.layer.op == "upconv2x2" else weights.sum((1, 2))
    added = per_input @ values
    node.weights = node.weights - weights
    if node.layer.op == "head1x1":
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
        if node.layer.op != "head1x1" and not np.all(read[name]):
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
            inputs = [len(nodes[name].kept) for name in node.sources] or [IMAGE_CHANNELS]
            parts = _tensors(node, inputs)
            tensors |= {f"{layer.name}.{part}": np.ascontiguousarray(array) for part, array in parts.items()}
    return replace(model, layers=tuple(layers), tensors=tensors)


def _tensors(node: _Node, inputs: list[int]) -> dict[str, NDArray[Any]]:
    if node.layer.op == "head1x1":
        return {"weight": node.weights[:, 0, 0].astype(np.int16), "bias": node.offsets.astype(np.int32)}
    theta = {"theta": node.offsets.astype(np.int32)[:, None]}
    if node.layer.weights == "int16":
        return {"weight": node.weights.astype(np.int16), **theta}
    planes: dict[str, NDArray[Any]] = {"pos": pack(node.weights > 0, inputs), **theta}
    return planes | ({"neg": pack(node.weights < 0, inputs)} if node.layer.weights == "masked" else {})


def _nonzeros(model: Model) -> int:
    bits = [layer for layer in model.layers if layer.weights in ("binary", "masked")]
    return sum(int(np.count_nonzero(model.signs(layer))) for layer in bits)
