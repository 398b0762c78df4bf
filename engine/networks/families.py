"""The families of networks, by the names that model files give them."""

from __future__ import annotations

from collections.abc import Callable

from engine.layer import Layer
from engine.networks import bfcn, multibranch, unet

FAMILIES: dict[str, Callable[..., list[Layer]]] = {
    "mbu-net": unet.layers,
    "bfcn": bfcn.layers,
    "multi-branch": multibranch.layers,
}
