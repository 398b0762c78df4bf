"""A network in training in the place of an engine, for what no kernel runs: full precision above all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import mbu
from engine.model import Model
from engine.preprocess import Image
from engine.train import export
from engine.train.config import Config
from engine.train.network import Network
from engine.train.validation import logits_of, predict

SCALE = 2.0**-16
"""Of the integer logits that stand for real ones."""


@dataclass(frozen=True)
class Finished:
    """What has become of images: masks uint8 [h, w] and, where wanted, logits int32 [h, w, classes] of SCALE."""

    masks: list[NDArray[np.uint8]]
    logits: list[NDArray[np.int32]]

    def finish(self) -> Finished:
        """Itself: there is nothing left to do."""
        return self


class NetworkEngine:
    """A network that `config` has trained; it runs whole images, one after another, by torch."""

    def __init__(self, network: Network, config: Config, name: str = "network") -> None:
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

    def start(self, images: Sequence[Image], threshold: float | None = None, want_logits: bool = False) -> Finished:
        """As `Engine.start`; `threshold` is a probability, 0.5 by default."""
        masks = [mask.astype(np.uint8) for mask in self.run(images, threshold)[0]]
        return Finished(masks, [self._integers(image) for image in images] if want_logits else [])

    def run(self, images: Sequence[Image], threshold: float | None = None) -> tuple[list[NDArray[Any]], None]:
        """Masks [h, w] of `images`: bool, or class indices; `threshold` is a probability, 0.5 by default."""
        probability = 0.5 if threshold is None else threshold
        return [predict(self._network, image, self._config, probability) for image in images], None

    def probabilities(self, image: Image) -> NDArray[np.float64]:
        """Of every pixel and class, float64 [h, w, classes]."""
        return mbu.probabilities(self._logits(image))

    def close(self) -> None:
        """There is nothing to give back."""

    def _logits(self, image: Image) -> NDArray[np.float64]:
        logits: NDArray[np.float64] = logits_of(self._network, image, self._config).double().movedim(0, 2).cpu().numpy()
        return logits

    def _integers(self, image: Image) -> NDArray[np.int32]:
        limits = np.iinfo(np.int32)
        return np.rint(np.clip(self._logits(image) / SCALE, limits.min, limits.max)).astype(np.int32)


class CheckpointEngine(NetworkEngine):
    """The network of a checkpoint."""

    def __init__(self, checkpoint: str | Path) -> None:
        network, config, _ = export.restore(checkpoint)
        super().__init__(network, config, Path(checkpoint).stem)
