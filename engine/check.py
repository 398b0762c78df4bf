"""What must hold for a model before anything may trust it: its description, its tensors' shapes, their values.

The three checks build on one another: `check_shapes` may assume what `check_description` has found right, and
`check_values` both. Each raises ModelFileError at the first fault, naming the layer, tensor or field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from reprlib import repr as shorten

import numpy as np
from numpy.typing import NDArray

from engine.model import IMAGE, SIDES, Layer, Model, ModelFileError, pack, packed_bytes

FAMILY = "mbu-net"
MAX_LAYERS = 256
MAX_CHANNELS = 4096
MAX_CLASSES = 256  # masks are uint8
MAX_MULTIPLE = 1024  # pixels
MAX_SIDE = 8192  # pixels, of resized images

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LABEL_LENGTH = 64

WEIGHTS = {
    "pixels3x3": ("int16",),
    "conv3x3": ("binary", "masked"),
    "pool2x2": ("",),
    "upconv2x2": ("binary", "masked"),
    "head1x1": ("int16",),
}
MAX_INPUTS = {"conv3x3": 2}  # a skip connection; every other operation reads one layer

Spec = tuple[str, tuple[int, ...]]  # (dtype, shape) of a tensor


def check(model: Model) -> None:
    """Check everything about `model`."""
    check_description(model)
    check_shapes(model, {name: (str(array.dtype), array.shape) for name, array in model.tensors.items()})
    check_values(model)


def require(condition: bool, place: str, fault: str) -> None:
    """Raise ModelFileError, "place: fault", unless `condition` holds."""
    if not condition:
        raise ModelFileError(f"{place}: {fault}")


# -- the description: everything but the tensors ----------------------------------------------------------------------


def check_description(model: Model) -> None:
    """Check names, layers, classes, preprocessing, threshold and provenance; no tensor is looked at."""
    require(bool(NAME.fullmatch(model.name)), "name", "must be letters, digits, '.', '_' and '-', at most 64")
    require(
        model.family == FAMILY, "family", f"{shorten(model.family)} is not supported by this version; {FAMILY!r} is"
    )
    coarsest = _check_layers(model.layers)
    _check_classes(model)
    _check_preprocessing(model, coarsest)
    require(0.0 <= model.threshold <= 1.0, "threshold", f"{model.threshold} lies outside [0, 1]")
    try:
        json.dumps(model.provenance, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"provenance: is not JSON: {error}") from None


def _check_layers(layers: tuple[Layer, ...]) -> int:
    """Check the layer list in order; returns the network's coarsest stride in image pixels."""
    require(2 <= len(layers) <= MAX_LAYERS, "layers", f"there are {len(layers)}; 2 to {MAX_LAYERS} are possible")
    earlier: dict[str, Layer] = {}
    strides = {IMAGE: 1}
    for layer in layers:
        _check_layer(layer)
        require(layer.name not in strides, layer.name, "a second layer of this name")
        _check_inputs(layer, earlier)
        strides[layer.name] = _stride(layer, strides)
        earlier[layer.name] = layer
    _check_ends(layers, strides)
    return max(strides.values())


def _check_layer(layer: Layer) -> None:
    """Check what can be said about one layer without the others."""
    require(bool(NAME.fullmatch(layer.name)), f"layer {shorten(layer.name)}", "is no valid name")
    require(layer.op in SIDES, layer.name, f"op {shorten(layer.op)} is not supported by this version")
    require(layer.weights in WEIGHTS[layer.op], layer.name, f"{layer.op} cannot have weights {shorten(layer.weights)}")
    require(
        not layer.block or bool(NAME.fullmatch(layer.block)),
        layer.name,
        f"block {shorten(layer.block)} is no valid name",
    )
    require(1 <= layer.channels <= MAX_CHANNELS, layer.name, f"channels {layer.channels}, not 1 to {MAX_CHANNELS}")
    require(layer.planes == 1, layer.name, f"planes {layer.planes} is not supported by this version")
    require(
        layer.encoding == "sign", layer.name, f"encoding {shorten(layer.encoding)} is not supported by this version"
    )
    if layer.op == "head1x1":
        require(math.isfinite(layer.scale) and layer.scale > 0, layer.name, f"scale {layer.scale} is not positive")
    else:
        require(layer.scale == 0, layer.name, "only the head has a scale")


def _check_inputs(layer: Layer, earlier: Mapping[str, Layer]) -> None:
    """Check that `layer` reads earlier layers, as many as its operation takes; the first reads the image alone."""
    if layer.op == "pixels3x3":
        require(layer.inputs == (IMAGE,), layer.name, f"pixels3x3 reads {IMAGE!r} and nothing else")
        return
    most = MAX_INPUTS.get(layer.op, 1)
    require(1 <= len(layer.inputs) <= most, layer.name, f"{len(layer.inputs)} inputs; {layer.op} reads 1 to {most}")
    for name in layer.inputs:
        require(name in earlier, layer.name, f"input {shorten(name)} is no earlier layer")
    if layer.op == "pool2x2":
        same = layer.channels == earlier[layer.inputs[0]].channels
        require(same, layer.name, f"channels {layer.channels} are not its input's")


def _stride(layer: Layer, strides: Mapping[str, int]) -> int:
    """Image pixels between neighbouring outputs of `layer`: a pool doubles its input's stride, an upconv halves it."""
    stride = strides[layer.inputs[0]]
    agree = all(strides[name] == stride for name in layer.inputs)
    require(agree, layer.name, "its inputs have different resolutions")
    if layer.op == "pool2x2":
        return stride * 2
    if layer.op == "upconv2x2":
        require(stride > 1, layer.name, "its output would be finer than the image")
        return stride // 2
    return stride


def _check_ends(layers: tuple[Layer, ...], strides: Mapping[str, int]) -> None:
    """Check that the first and last layer, and they alone, are what they must be, and that every layer is used."""
    for i, layer in enumerate(layers):
        require((layer.op == "pixels3x3") == (i == 0), layer.name, "the first layer, and no other, is pixels3x3")
        last = i == len(layers) - 1
        require((layer.op == "head1x1") == last, layer.name, "the last layer, and no other, is head1x1")
    head = layers[-1]
    require(strides[head.name] == 1, head.name, "the head must have the image's resolution")
    used = {name for layer in layers for name in layer.inputs}
    for layer in layers[:-1]:
        require(layer.name in used, layer.name, "no layer reads it")


def _check_classes(model: Model) -> None:
    """Check that there is a class for every logit, each with a printable name of its own and a color of three bytes."""
    count, head = len(model.classes), model.layers[-1]
    require(1 <= count <= MAX_CLASSES, "classes", f"there are {count}; 1 to {MAX_CLASSES} are possible")
    require(count == head.channels, head.name, f"{head.channels} logits for {count} classes")
    for i, info in enumerate(model.classes):
        fine = 1 <= len(info.name) <= LABEL_LENGTH and info.name.isprintable()
        require(fine, f"classes[{i}]", f"the name must be 1 to {LABEL_LENGTH} printable characters")
        byte = all(0 <= value <= 255 for value in info.color)
        require(byte, f"classes[{i}]", f"color {info.color} is not three values from 0 to 255")
    require(len({info.name for info in model.classes}) == count, "classes", "two have the same name")


def _check_preprocessing(model: Model, coarsest: int) -> None:
    """Check the way images are fitted against the network's coarsest stride."""
    how, place = model.preprocessing, "preprocessing"
    require(how.fit in ("pad", "resize"), place, f"fit {shorten(how.fit)} is not supported by this version")
    require(
        how.contrast in ("none", "stretch"), place, f"contrast {shorten(how.contrast)} is not supported by this version"
    )
    require(1 <= how.multiple <= MAX_MULTIPLE, place, f"multiple {how.multiple} is not 1 to {MAX_MULTIPLE}")
    require(how.multiple % coarsest == 0, place, f"multiple {how.multiple} is none of the network's stride {coarsest}")
    for side in (how.height, how.width):
        if how.fit == "pad":
            require(side == 0, place, "only resized images have a height and a width")
        else:
            fits = 0 < side <= MAX_SIDE and side % how.multiple == 0
            require(fits, place, f"size {side} is no multiple of {how.multiple} up to {MAX_SIDE}")


# -- shapes: what every tensor must look like -------------------------------------------------------------------------


def check_shapes(model: Model, found: Mapping[str, Spec]) -> None:
    """Check that `found` holds exactly the tensors that the layers of `model` need, in dtype and shape."""
    expected = specs(model)
    for name in found:
        require(name in expected, shorten(name), "there should be no such tensor")
    for name, (dtype, shape) in expected.items():
        require(name in found, name, "the tensor is missing")
        found_dtype, found_shape = found[name]
        require(found_dtype == dtype, name, f"is {found_dtype}, not {dtype}")
        require(found_shape == shape, name, f"has shape {shorten(found_shape)}, not {shape}")


def specs(model: Model) -> dict[str, Spec]:
    """Every tensor that the layers of `model` need: {name: (dtype, shape)}."""
    found: dict[str, Spec] = {}
    for layer in model.layers:
        inputs = model.input_channels(layer)
        found |= {f"{layer.name}.{part}": spec for part, spec in _layer_specs(layer, inputs).items()}
    return found


def _layer_specs(layer: Layer, inputs: tuple[int, ...]) -> dict[str, Spec]:
    if layer.op == "pool2x2":
        return {}
    if layer.op == "head1x1":
        return {"weight": ("int16", (layer.channels, sum(inputs))), "bias": ("int32", (layer.channels,))}
    kernel = (layer.channels, layer.side, layer.side)
    theta: dict[str, Spec] = {"theta": ("int32", (layer.channels, layer.thresholds))}
    if layer.weights == "int16":
        return {"weight": ("int16", (*kernel, sum(inputs))), **theta}
    plane: Spec = ("uint8", (*kernel, packed_bytes(inputs)))
    return {"pos": plane, **theta} | ({"neg": plane} if layer.weights == "masked" else {})


# -- values -----------------------------------------------------------------------------------------------------------


def check_values(model: Model) -> None:
    """Check the values of all tensors: planes, fixed-point weights, sums, thresholds."""
    for layer in model.layers:
        if layer.weights == "int16":
            name = f"{layer.name}.weight"
            require(bool(np.all(model.tensors[name] > -32768)), name, "a weight lies beyond +-32767")
        elif layer.weights:
            _check_planes(model, layer)
        if layer.weights:
            _check_sums(model, layer)


def _check_planes(model: Model, layer: Layer) -> None:
    """Check that no padding bit is set and that no weight is both +1 and -1."""
    inputs = model.input_channels(layer)
    padding = ~pack(np.ones(sum(inputs), np.bool_), inputs)
    planes = {f"{layer.name}.{part}": model.tensors.get(f"{layer.name}.{part}") for part in ("pos", "neg")}
    for name, plane in planes.items():
        require(plane is None or not np.any(plane & padding), name, "a padding bit is set")
    pos, neg = planes.values()
    require(neg is None or not np.any(pos & neg), f"{layer.name}.neg", f"overlaps {layer.name}.pos")


def _check_sums(model: Model, layer: Layer) -> None:
    """Check that no sum can leave int32 and that every theta lies within its channel's reach, in ascending order."""
    bounds = bound(model, layer)
    require(bool(np.all(bounds < 2**31 - 1)), layer.name, "its sums can leave the range of int32")
    if layer.op == "head1x1":
        return
    name = f"{layer.name}.theta"
    theta = model.tensors[name].astype(np.int64)
    inside = (theta >= -bounds[:, None]) & (theta <= bounds[:, None] + 1)
    require(bool(np.all(inside)), name, "a threshold lies outside [-B, B + 1], B being the largest sum possible")
    require(bool(np.all(np.diff(theta, axis=1) >= 0)), name, "the thresholds of a channel do not ascend")


def bound(model: Model, layer: Layer) -> NDArray[np.int64]:
    """Largest magnitude B that each channel's sum can reach, int64 [channels]; of the head, each logit."""
    if layer.weights == "int16":
        weight = model.tensors[f"{layer.name}.weight"].astype(np.int64).reshape(layer.channels, -1)
        sums: NDArray[np.int64] = np.abs(weight).sum(axis=1)
        if layer.op == "head1x1":
            return sums + np.abs(model.tensors[f"{layer.name}.bias"].astype(np.int64))
        return 255 * sums
    per_tap = _nonzeros(model, layer).reshape(layer.channels, layer.taps)
    bounds: NDArray[np.int64] = per_tap.max(axis=1) if layer.op == "upconv2x2" else per_tap.sum(axis=1)
    return bounds


def _nonzeros(model: Model, layer: Layer) -> NDArray[np.int64]:
    """Non-zero weights of every tap, int64 [channels, kh, kw]."""
    if layer.weights == "binary":
        return np.full((layer.channels, layer.side, layer.side), sum(model.input_channels(layer)), np.int64)
    either = model.tensors[f"{layer.name}.pos"] | model.tensors[f"{layer.name}.neg"]
    counts: NDArray[np.int64] = np.bitwise_count(either).sum(axis=-1, dtype=np.int64)
    return counts
