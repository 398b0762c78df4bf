"""What a run's settings say of the network: the family's layers, and by which quantizer each is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.layer import Layer
from engine.networks import bfcn, multibranch, unet
from engine.networks.families import FAMILIES
from engine.train import kinds

if TYPE_CHECKING:
    from engine.train.config import Config

OWN = {"bfcn": ("weight_bits",), "multi-branch": ("branches", "gates")}
"""Settings that one family alone has."""

ACTIVATION_BITS = {"mbu-net": 1, "bfcn": 2, "multi-branch": 1}
"""Bits of an activation, as published."""


def layers(config: Config) -> list[Layer]:
    """The layers of a run; `weights` of a layer of bits names the quantizer. Raises ValueError for what cannot be."""
    _check(config)
    flat, quantizers = _flat(config), _quantizers(config)
    blocks = {layer.block for layer in flat if layer.weights == "masked"} | {""}
    for block, kind in quantizers.items():
        if block not in blocks:
            raise ValueError(f"{block!r} is no masked block, so its weights cannot be {kind!r}")
    return [replace(layer, weights=_kind(layer, config, quantizers)) for layer in flat]


def masked(family: str, flat: Iterable[Layer]) -> tuple[str, ...]:
    """The setting of that name of which a model file's layers are. Branches of an upsampling are masked in any case."""
    found = {layer.block for layer in flat if layer.weights == "masked" and (layer.block or layer.up == 1)}
    if family != "mbu-net":
        return unet.BLOCKS if found else ()
    return tuple(block for block in unet.BLOCKS if block in found)


def ramp(config: Config) -> kinds.Ramp:
    """How a run makes levels of what batch norm gives; BFCN's are DoReFa's."""
    return kinds.DOREFA if config.family == "bfcn" else kinds.CENTERED


def _check(config: Config) -> None:
    if config.family not in FAMILIES:
        raise ValueError(f"no family {config.family!r}; there are {', '.join(FAMILIES)}")
    for family, names in OWN.items():
        for name in names:
            if family != config.family and getattr(config, name) != getattr(type(config), name):
                raise ValueError(f"{config.family} has no {name}; {family} has")
    if config.family != "mbu-net" and config.masked not in (unet.BLOCKS, ()):
        raise ValueError(f"the blocks are mbu-net's; {config.family} is masked in all layers or in none")


def _flat(config: Config) -> list[Layer]:
    classes, bits = max(len(config.classes), 1), config.activation_bits or ACTIVATION_BITS[config.family]
    weights = "masked" if config.masked else "binary"
    if config.family == "bfcn":
        zeros = config.zeros if config.masked else 0.0
        return bfcn.layers(config.width, classes, weights, config.weight_bits, bits, zeros)
    if config.family == "multi-branch":
        return multibranch.layers(config.width, classes, weights, config.branches, config.gates, bits)
    return unet.layers(config.width, classes, config.masked, bits)


def _quantizers(config: Config) -> dict[str, str]:
    """The quantizer of masked weights by block; of "" that of all others."""
    parts = [entry.rpartition("=") for entry in config.weights]
    for _, _, kind in parts:
        if kind not in kinds.ALL:
            raise ValueError(f"no quantizer {kind!r} for weights; there are {', '.join(kinds.ALL)}")
    return {"": "masked"} | {block: kind for block, _, kind in parts}


def _kind(layer: Layer, config: Config, quantizers: dict[str, str]) -> str:
    kind = quantizers.get(layer.block, quantizers[""]) if layer.weights == "masked" else layer.weights
    if config.weight_bits == 2 and layer.segments == 2:
        if kind not in kinds.OF_TWO_BITS:
            raise ValueError(f"weights of two bits cannot be {kind!r}")
        return kinds.OF_TWO_BITS[kind]
    if kind in kinds.SCALED and (layer.segments > 1 or layer.residual):
        raise ValueError(
            f"{layer.name} adds something to its sums, so its weights cannot be {kind!r}, which scales them"
        )
    return kind
