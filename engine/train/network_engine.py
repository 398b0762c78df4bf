"""A network in training in the place of an engine: in full precision, which no kernel runs, or on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import mbu, preprocess
from engine.model import Model
from engine.preprocess import Image
from engine.train import allocator, export
from engine.train.config import Config
from engine.train.network import Network

SCALE = 2.0**-16
"""Of the integer logits that stand for real ones."""


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


class NetworkEngine:
    """A network that `config` has trained; it runs whole images, one after another, by torch."""

    def __init__(self, network: Network, config: Config, name: str = "network") -> None:
        allocator.keep()
        self._network, self._config, self._name = network, config, name

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of index masks."""
        return self._config.classes

    @cached_property
    def model(self) -> Model:
        """What its masks are of and how images are prepared; it has no tensors, so no backend runs it."""
        config = self._config
        layers = config.layers()
        layers[-1] = replace(layers[-1], scale=SCALE)
        classes = tuple(export.classes_of(config))
        return Model(self._name, config.family, tuple(layers), classes, config.preprocessing, 0.5, {}, {})

    def run(self, images: Sequence[Image], threshold: float | None = None) -> tuple[list[NDArray[np.uint8]], None]:
        """As `Engine.run`, untimed; `threshold` is 0.5 by default."""
        probability = 0.5 if threshold is None else threshold
        masks = [predict(self._network, image, self._config, probability) for image in images]
        return [mask.astype(np.uint8) for mask in masks], None

    def mask_and_logits(
        self, image: Image, threshold: float | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """As `Engine.mask_and_logits`: integers of SCALE."""
        limits = np.iinfo(np.int32)
        integers = np.rint(np.clip(self._logits(image) / SCALE, limits.min, limits.max)).astype(np.int32)
        return self.run([image], threshold)[0][0], integers

    def probabilities(self, image: Image) -> NDArray[np.float64]:
        """Of every pixel and class, float64 [h, w, classes]."""
        return mbu.probabilities(self._logits(image))

    def close(self) -> None:
        """There is nothing to give back."""

    def __enter__(self) -> NetworkEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _logits(self, image: Image) -> NDArray[np.float64]:
        logits: NDArray[np.float64] = logits_of(self._network, image, self._config).double().movedim(0, 2).cpu().numpy()
        return logits
