"""From a model file back to a network that learns on: ternary weights as latent ones, thresholds as batch norm.

A file tells which weights are zero and which way the others point, not how large they were; where a sum is cut, not how
it was distributed. So latent weights are drawn as those of a new network are, the smaller ones for the zeros, and batch
norm is estimated on images, its shift being what puts the cut where the file has it. Until its first step the network
computes what the file computes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import mbu
from engine.layer import IMAGE, Layer
from engine.model import Model
from engine.train import params
from engine.train.convolution import BitConv
from engine.train.head import Head
from engine.train.network import Network, key

APART = 0.5
"""Latent weights of zeros are so much smaller still: no step of the optimizer takes them over the threshold at once."""
SMALLEST_VARIANCE = 1e-2
"""Of a channel's sums: those of a channel that is constant have none."""

Floats = NDArray[np.float64]


class UnfoldError(ValueError):
    """A model file that no network can begin from; the message says why."""


def begin(network: Network, model: Model, batches: Iterable[Tensor], seed: int, head: bool = True) -> None:
    """Give `network` the weights and thresholds of `model`, and batch norm from the pixels of `batches`.

    A pruned layer's channels come first, what it lacks begins anew and is read by zero weights. Without `head`
    that begins anew too. Raises UnfoldError where the layers are of other shapes.
    """
    _check(network, model)
    rng = np.random.default_rng(seed)
    convolutions = {layer.name: _conv(network, layer) for layer in model.layers if layer.op in ("stem", "conv")}
    for layer in model.layers:
        if layer.name in convolutions:
            _set_weights(convolutions[layer.name], _padded(network, model, layer), rng)
    if head:
        _set_head(network, model)
    network.set_zeros(0.0)
    for layer in model.layers:
        if layer.name in convolutions:
            stage = convolutions[layer.name]
            stage.zeros = _zeros(network, model, layer)
            stage.refresh_threshold()
            _set_norm(stage, model, np.zeros(stage.layer.channels), np.ones(stage.layer.channels))
    means, variances = _distributions(network, batches)
    for name, stage in convolutions.items():
        _set_norm(stage, model, means[name], variances[name])


def _check(network: Network, model: Model) -> None:
    theirs = {layer.name: layer for layer in model.layers}
    for layer in network.layers:
        other = theirs.get(layer.name)
        if other is None or len(theirs) != len(network.layers) or _form(other) != _form(layer):
            raise UnfoldError(f"{model.name} has other layers than this run's network")
        if other.channels > layer.channels and layer.op != "head":
            raise UnfoldError(f"{layer.name} of {model.name} has {other.channels} channels, here {layer.channels}")
        if layer.segments > 1 or layer.residual:
            raise UnfoldError(
                f"{model.name} adds several things into one sum ({layer.name}); begin from its checkpoint"
            )


def _form(layer: Layer) -> tuple[object, ...]:
    """What two layers have in common that compute alike, whatever their channels and quantizers."""
    return layer.op, layer.inputs, layer.kernel, layer.up, layer.segments, layer.planes, layer.encoding, layer.residual


def _conv(network: Network, layer: Layer) -> BitConv:
    stage = network.stages[key(layer)]
    assert isinstance(stage, BitConv)
    return stage


def _padded(network: Network, model: Model, layer: Layer) -> NDArray[np.float64]:
    """The file's weights [channels, up, up, kernel, kernel, inputs], with zeros for channels that it has pruned."""
    array = model.tensors[f"{layer.name}.weight"][:, None, None] if layer.op == "stem" else model.ternary(layer)[0]
    outputs = network.outputs
    parts = np.split(array, np.cumsum(model.input_channels(layer))[:-1], axis=-1)
    widths = [outputs[name].channels if name != IMAGE else part.shape[-1] for name, part in _named(layer, parts)]
    wide = [_to(part, -1, width) for part, width in zip(parts, widths, strict=True)]
    return _to(np.concatenate(wide, axis=-1), 0, outputs[layer.name].channels).astype(np.float64)


def _named(layer: Layer, parts: list[NDArray[np.int8]]) -> Iterable[tuple[str, NDArray[np.int8]]]:
    return zip(layer.inputs, parts, strict=True)


def _to(array: NDArray[np.int8], axis: int, size: int) -> NDArray[np.int8]:
    """`array` with zeros behind its end, of `size` along `axis`."""
    more = [(0, 0)] * array.ndim
    more[axis] = (0, size - array.shape[axis])
    return np.pad(array, more)


def _set_weights(stage: BitConv, weights: Floats, rng: np.random.Generator) -> None:
    """Latent weights: of the first layer the file's, of the others magnitudes drawn, by which of them are zero."""
    spread = float(stage.weight.detach().std())
    if stage.layer.op == "stem":
        latent = weights * (3 * spread / mbu.FIXED_POINT_MAX)
    else:
        drawn = np.sort(np.abs(rng.normal(0, spread, weights.size)))
        zero = weights == 0
        zeros, others = drawn[: zero.sum()] * APART, drawn[zero.sum() :]
        latent = np.empty_like(weights)
        latent[zero] = rng.permutation(zeros) * rng.choice([-1, 1], len(zeros))
        latent[~zero] = rng.permutation(others) * weights[~zero]
    if stage.transposed:  # [channels, up, up, 1, 1, inputs] -> [inputs, channels, up, up]
        latent = np.moveaxis(latent[:, :, :, 0, 0], -1, 0)
    else:
        latent = np.moveaxis(latent, -1, 3).reshape(tuple(stage.weight.shape))
    stage.weight.data.copy_(torch.from_numpy(np.ascontiguousarray(latent)))


def _zeros(network: Network, model: Model, layer: Layer) -> float:
    """The share of zeros in a layer of the file, with those of the channels that it lacks."""
    return float(np.mean(_padded(network, model, layer) == 0)) if layer.weights == "masked" else 0.0


def _set_head(network: Network, model: Model) -> None:
    layer = model.layers[-1]
    head = network.stages[key(layer)]
    assert isinstance(head, Head)
    weight, bias = model.tensors[f"{layer.name}.weight"], model.tensors[f"{layer.name}.bias"]
    scale = layer.scale * 16**layer.doublings
    wide = _to(weight, 1, head.input.channels).astype(np.float64) * (scale * head.input.largest)
    head.weight.data.copy_(torch.from_numpy(wide)[..., None, None])
    head.bias.data.copy_(torch.from_numpy(bias * scale))


@torch.no_grad()
def _distributions(network: Network, batches: Iterable[Tensor]) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Mean and variance of what each layer's batch norm sees, by layer and channel, as the integers are computed."""
    network.eval()
    moments: dict[str, list[Tensor]] = {}
    for pixels in batches:
        values = {IMAGE: pixels / 255} | network.trace(pixels, keep=True)
        for layer in network.layers:
            stage = network.stages[key(layer)]
            if isinstance(stage, BitConv):
                sums = stage.sums(*[values[name] for name in layer.reads]).double()
                moments.setdefault(layer.name, []).append(
                    torch.stack([sums.mean((0, 2, 3)), sums.square().mean((0, 2, 3))])
                )
    if not moments:
        raise UnfoldError("there are no images to estimate batch norm on")
    found = {name: torch.stack(parts).mean(0).cpu().numpy() for name, parts in moments.items()}
    return {n: mean for n, (mean, _) in found.items()}, {n: square - mean**2 for n, (mean, square) in found.items()}


def _set_norm(stage: BitConv, model: Model, mean: Floats, variance: Floats) -> None:
    """Batch norm of that mean and variance whose level changes at the file's thresholds."""
    layer, norm = stage.layer, stage.norm
    theta = model.tensors[f"{layer.name}.theta"].astype(np.float64)  # [channels, T]
    scale, bias = params.sums_seen(stage)
    known = len(theta)
    cut = scale[:known, None] * (theta - 0.5) + bias[:known, None]  # a sum between two integers
    variance = np.maximum(variance, SMALLEST_VARIANCE * scale**2)
    deviation = np.sqrt(variance[:known] + norm.eps)
    where = (cut - mean[:known, None]) / deviation[:, None]
    gamma, beta = np.ones(layer.channels), np.zeros(layer.channels)
    targets = mbu.SIGN if layer.encoding == "sign" else mbu.level_targets(layer.planes)
    wanted = (
        np.array(targets) if layer.encoding == "sign" else (np.array(targets) - stage.ramp.shift) / stage.ramp.scale
    )
    if len(wanted) > 1:  # the line through the first and the last
        gamma[:known] = (wanted[-1] - wanted[0]) / np.maximum(where[:, -1] - where[:, 0], 1e-3)
    beta[:known] = np.mean(wanted - gamma[:known, None] * where, axis=1)
    for tensor, values in (
        *((norm.weight.data, gamma), (norm.bias.data, beta)),
        *((norm.running_mean, mean), (norm.running_var, variance)),
    ):
        assert tensor is not None
        tensor.copy_(torch.from_numpy(values))
