"""What a network in training gives for whole images, and its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import preprocess
from engine.preprocess import Image
from engine.train import metrics
from engine.train.config import Config
from engine.train.data.dataset import Sample
from engine.train.network import Network

Item = TypeVar("Item")


@torch.no_grad()
def logits_of(network: Network, image: Image, config: Config) -> Tensor:
    """Real logits [classes, h, w] of one image [h, w, 3] by the network's evaluation mode."""
    prepared = preprocess.preprocess(image, config.preprocessing)
    height, width = prepared.shape[:2]
    pixels = torch.from_numpy(preprocess.pad(prepared, network.padded(height, width)).transpose(2, 0, 1).copy())
    logits = network(pixels[None].to(network.device))[0, :, :height, :width]
    whole = preprocess.postprocess(logits.permute(1, 2, 0).cpu().numpy(), image.shape, config.preprocessing)
    return torch.from_numpy(whole).permute(2, 0, 1)


@torch.no_grad()
def predict(network: Network, image: Image, config: Config, threshold: float = 0.5) -> NDArray[Any]:
    """Mask [h, w] of one image [h, w, 3] by the network's evaluation mode: bool, or class indices uint8."""
    logits = logits_of(network, image, config)
    if len(logits) > 1:  # numpy's argmax, unlike torch's, promises the lowest class on ties
        classes: NDArray[np.uint8] = logits.numpy().argmax(0).astype(np.uint8)
        return classes
    mask: NDArray[np.bool_] = (torch.sigmoid(logits[0]) >= threshold).numpy()
    return mask


def validate(network: Network, items: Sequence[Sample], config: Config) -> metrics.Metrics:
    """Metrics of `network` in evaluation mode over whole images."""
    network.eval()
    counts: list[tuple[str, metrics.Counts]] = []
    for sample in items:
        image, mask = sample.load(len(config.classes))
        counts += metrics.by_class(predict(network, image, config), mask, config.classes)
    return metrics.summarize_classes(counts)


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of `items`, spread over them; all of them where `count` is 0."""
    return list(items[:: -(-len(items) // count)] if count else items)
