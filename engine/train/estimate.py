"""Batch norm of a network's final weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from engine.train.network import Network


@torch.no_grad()
def reestimate(network: Network, batches: Iterable[Tensor], enough: Callable[[], bool]) -> None:
    """Average batch norm's statistics over the pixels of `batches`, without weight updates, until it is `enough`."""
    network.set_annealed(1.0)
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    for pixels in batches:
        with torch.autocast(pixels.device.type, torch.bfloat16):
            network(pixels)
        if enough():
            break
