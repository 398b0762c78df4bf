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
    layers = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
    for count, pixels in enumerate(batches, 1):
        for layer in layers:
            layer.momentum = 1 / count  # the mean of all; without a momentum, torch waits to read how many there were
        with torch.autocast(pixels.device.type, torch.bfloat16):
            network(pixels)
        if enough():
            break
