"""What must hold for a model before anything may trust it: its description, its tensors' shapes, their values.

The three checks build on one another: `check_shapes` may assume what `check_description` has found right, and
`check_values` both. Each raises ModelFileError at the first fault, naming the layer, tensor or field. What is right for
an operation says its row in `engine.ops`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from reprlib import repr as shorten

import numpy as np

from engine import ops
from engine.bits import pack
from engine.layer import IMAGE, Layer
from engine.model import CONTRASTS, RESIZE_MODES, Model, ModelFileError
from engine.networks.families import FAMILIES

MAX_LAYERS = 256
MAX_CHANNELS = 4096
MAX_STRIDE = 1024  # pixels: images are padded to multiples of it
MAX_DEPTH = 32  # of provenance
MAX_CLASSES = 256  # masks are uint8
MAX_SIDE = 8192  # pixels, of resized images
MAX_COUNT = 1 << 22
"""Largest sum of a convolution's weights and residual: what the CPU's counters hold."""
MAX_INPUTS = 65528
"""Most bits that one output of a convolution adds up: what the CPU's lists of them hold, filled up to whole quads."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PART = re.compile(r"([0-9]{1,9}|max)?")
LABEL_LENGTH = 64

OPTIONS = ("segments", "residual", "residual_exponent", "doublings", "scale")
"""Fields of a layer that only some operations understand; elsewhere they stand at their defaults."""
DEFAULTS = {field.name: field.default for field in fields(Layer) if field.name in OPTIONS}


def check(model: Model) -> None:
    """Check everything about `model`."""
    check_description(model)
    check_shapes(specs(model), {name: (str(array.dtype), array.shape) for name, array in model.tensors.items()})
    check_values(model)


def require(condition: bool, place: str, fault: str) -> None:
    """Raise ModelFileError, "place: fault", unless `condition` holds."""
    if not condition:
        raise ModelFileError(f"{place}: {fault}")


# -- the description: everything but the tensors ----------------------------------------------------------------------


def check_description(model: Model) -> None:
    """Check names, layers, classes, preprocessing, threshold and provenance; no tensor is looked at."""
    require(bool(NAME.fullmatch(model.name)), "name", "must be letters, digits, '.', '_' and '-', at most 64")
    known = model.family in FAMILIES
    require(known, "family", f"{shorten(model.family)} is not supported by this version; {', '.join(FAMILIES)} are")
    _check_layers(model.layers)
    _check_classes(model)
    _check_preprocessing(model)
    require(0.0 <= model.threshold <= 1.0, "threshold", f"{model.threshold} lies outside [0, 1]")
    require(_is_flat(model.provenance, MAX_DEPTH), "provenance", f"is nested more than {MAX_DEPTH} levels deep")
    try:
        json.dumps(model.provenance, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"provenance: is not JSON: {error}") from None


def _is_flat(value: object, levels: int) -> bool:
    """Whether lists and mappings lie in each other no deeper than so many levels: others write and read them too."""
    if not isinstance(value, (dict, list, tuple)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_flat(one, levels - 1) for one in inner)


def _check_layers(layers: tuple[Layer, ...]) -> None:
    """Check the layer list in order, and that every layer is used."""
    require(2 <= len(layers) <= MAX_LAYERS, "layers", f"there are {len(layers)}; 2 to {MAX_LAYERS} are possible")
    found = {IMAGE: ops.PIXELS}
    for i, layer in enumerate(layers):
        _check_layer(layer)
        row = ops.operation(layer)
        require(layer.name not in found, layer.name, "a second layer of this name")
        require(row.first == (i == 0), layer.name, "the first layer, and no other, reads the image")
        require(row.last == (i == len(layers) - 1), layer.name, "the last layer, and no other, is the head")
        found[layer.name] = _check_reads(layer, found)
    head = layers[-1]
    require(found[head.name].stride == 1, head.name, "the logits must have the image's resolution")
    used = {name for layer in layers for name in layer.reads}
    for layer in layers[:-1]:
        require(layer.name in used, layer.name, "no layer reads it")


def _check_layer(layer: Layer) -> None:
    """Check what can be said about one layer without the others."""
    place = layer.name
    require(bool(NAME.fullmatch(place)), f"layer {shorten(place)}", "is no valid name")
    require(layer.op in ops.OPERATIONS, place, f"op {shorten(layer.op)} is not supported by this version")
    row = ops.operation(layer)
    require(layer.weights in row.weights, place, f"{layer.op} cannot have weights {shorten(layer.weights)}")
    require(layer.kernel in row.kernels, place, f"{layer.op} cannot have kernel {layer.kernel}")
    require(layer.up in row.ups, place, f"{layer.op} cannot have up {layer.up}")
    named = not layer.block or bool(NAME.fullmatch(layer.block))
    require(named, place, f"block {shorten(layer.block)} is no valid name")
    require(1 <= layer.channels <= MAX_CHANNELS, place, f"channels {layer.channels}, not 1 to {MAX_CHANNELS}")
    require(layer.encoding in ("sign", "unsigned"), place, f"encoding {shorten(layer.encoding)} is not supported")
    most = 2 if layer.encoding == "unsigned" and not row.last else 1
    require(1 <= layer.planes <= most, place, f"planes {layer.planes}, not 1 to {most}")
    for name in OPTIONS:
        own = name in row.options or getattr(layer, name) == DEFAULTS[name]
        require(own, place, f"{layer.op} has no {name}")


def _check_reads(layer: Layer, found: Mapping[str, ops.Tensor]) -> ops.Tensor:
    """Check that `layer` reads earlier layers, as many and such as its operation takes; returns what it writes."""
    row = ops.operation(layer)
    fewest, most = row.inputs
    right = fewest <= len(layer.inputs) <= most
    require(right, layer.name, f"{len(layer.inputs)} inputs; {layer.op} reads {fewest} to {most}")
    for name in layer.reads:
        require((name == IMAGE) == row.first, layer.name, f"the first layer, and no other, reads {IMAGE!r}")
        require(name in found, layer.name, f"input {shorten(name)} is no earlier layer")
    inputs = tuple(found[name] for name in layer.reads)
    agree = all(tensor.stride == inputs[0].stride for tensor in inputs)
    require(agree, layer.name, "its inputs have different resolutions")
    fault = row.fault(layer, inputs)
    require(not fault, layer.name, fault)
    finer = layer.up << layer.doublings
    require(inputs[0].stride * row.down >= finer, layer.name, "its output would be finer than the image")
    written = row.output(layer, inputs)
    require(written.stride <= MAX_STRIDE, layer.name, f"stride {written.stride}, not 1 to {MAX_STRIDE}")
    return written


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


def _check_preprocessing(model: Model) -> None:
    """Check the way images are fitted."""
    how, place = model.preprocessing, "preprocessing"
    known = how.resize_mode in RESIZE_MODES
    require(known, place, f"resize_mode {shorten(how.resize_mode)} is not supported by this version")
    known = how.contrast in CONTRASTS
    require(known, place, f"contrast {shorten(how.contrast)} is not supported by this version")
    for name, part in (("channel", how.channel), ("page", how.page)):
        require(bool(PART.fullmatch(part)), place, f"{name} {shorten(part)} is neither a number from 0 nor 'max'")
    for side in (how.height, how.width):
        if how.resize_mode == "pad":
            require(side == 0, place, "only resized images have a height and a width")
        else:
            require(1 <= side <= MAX_SIDE, place, f"size {side} is not 1 to {MAX_SIDE}")


# -- shapes: what every tensor must look like -------------------------------------------------------------------------


def check_shapes(expected: Mapping[str, ops.Spec], found: Mapping[str, ops.Spec]) -> None:
    """Check that `found` holds exactly the `expected` tensors, in dtype and shape."""
    for name in found:
        require(name in expected, shorten(name), "there should be no such tensor")
    for name, (dtype, shape) in expected.items():
        require(name in found, name, "the tensor is missing")
        found_dtype, found_shape = found[name]
        require(found_dtype == dtype, name, f"is {found_dtype}, not {dtype}")
        require(found_shape == shape, name, f"has shape {shorten(found_shape)}, not {shape}")


def specs(model: Model) -> dict[str, ops.Spec]:
    """Every tensor that the layers of `model` need: {name: (dtype, shape)}."""
    found: dict[str, ops.Spec] = {}
    for layer in model.layers:
        parts = ops.operation(layer).arrays(layer, model.inputs(layer))
        found |= {f"{layer.name}.{part}": spec for part, spec in parts.items()}
    return found


# -- values ------------------------------------------------------------------------------------------------------------


def check_values(model: Model) -> None:
    """Check what the tensors hold: padding bits, planes that exclude each other, sums within int32, thresholds."""
    for layer in model.layers:
        arrays = model.arrays(layer)
        if "weight" in arrays:
            require(bool(np.all(arrays["weight"] > -32768)), f"{layer.name}.weight", "a weight lies beyond +-32767")
        if "pos" in arrays:
            _check_bits(model, layer, arrays)
        if layer.weights:
            _check_sums(model, layer, arrays)


def _check_bits(model: Model, layer: Layer, arrays: ops.Arrays) -> None:
    """Check that no padding bit is set, no weight is both +1 and -1, and factors are what they may be."""
    inputs = model.input_channels(layer)
    padding = ~pack(np.ones(sum(inputs), np.bool_), inputs)
    pos, neg = arrays["pos"], arrays.get("neg")
    require(not np.any(pos & padding), f"{layer.name}.pos", "a padding bit is set")
    if neg is not None:
        require(not np.any(neg & padding), f"{layer.name}.neg", "a padding bit is set")
        require(not np.any(pos & neg), f"{layer.name}.neg", f"overlaps {layer.name}.pos")
    most = ops.MAX_EXPONENT
    low = "exponents" not in arrays or bool(np.all(arrays["exponents"] <= most))
    require(low, f"{layer.name}.exponents", f"an exponent is not 0 to {most}")
    signs = arrays.get("residual_signs", np.ones(1, np.int8))
    require(bool(np.all((signs == 1) | (signs == -1))), f"{layer.name}.residual_signs", "a sign is neither +1 nor -1")


def _check_sums(model: Model, layer: Layer, arrays: ops.Arrays) -> None:
    """Check that no sum can leave its range and that thetas lie within their channel's reach, in ascending order."""
    bounds = model.bound(layer)
    require(bool(np.all(bounds < 2**31 - 1)), layer.name, "its sums can leave the range of int32")
    if ops.operation(layer).has_bits:
        require(bool(np.all(bounds <= MAX_COUNT)), layer.name, f"its sums can exceed {MAX_COUNT}")
        inputs = model.inputs(layer)
        weights = int(ops.nonzeros(layer, inputs, arrays).sum(axis=0).max()) + bool(layer.residual)
        counted = weights * inputs[0].planes
        require(counted <= MAX_INPUTS, layer.name, f"an output adds up {counted} bits; {MAX_INPUTS} are possible")
    if "theta" not in arrays:
        return
    name, theta = f"{layer.name}.theta", arrays["theta"].astype(np.int64)
    inside = (theta >= -bounds[:, None]) & (theta <= bounds[:, None] + 1)
    require(bool(np.all(inside)), name, "a threshold lies outside [-B, B + 1], B being the largest sum possible")
    require(bool(np.all(np.diff(theta, axis=1) >= 0)), name, "the thresholds of a channel do not ascend")
