"""What a network in training is worth on whole images, by what computes it fastest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from engine.runtime import Engine
from engine.train import evaluate, export, metrics
from engine.train.config import Config
from engine.train.data.dataset import Sample
from engine.train.network import Network
from engine.train.network_engine import NetworkEngine

Item = TypeVar("Item")


def engine_of(network: Network, config: Config) -> Engine | NetworkEngine:
    """What segments as `network` does in evaluation mode: on a CPU, of bits, our kernels, which give the bits of torch.

    The network is in evaluation mode then. The engine holds its weights as they are now.
    """
    network.eval()
    if network.device.type != "cpu" or not export.exportable(config):
        return NetworkEngine(network, config)
    return Engine.load(export.bare_model(network, config, "validation"), "cpu", threads=torch.get_num_threads())


def validate(network: Network, items: Sequence[Sample], config: Config) -> metrics.Metrics:
    """Metrics of `network` in evaluation mode over whole images."""
    with engine_of(network, config) as engine:
        return evaluate.score(evaluate.evaluate(engine, items, classes=config.classes))


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of `items`, spread over them; all of them where `count` is 0."""
    return list(items[:: -(-len(items) // count)] if count else items)
