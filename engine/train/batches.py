"""The batches of a run, as tensors on its device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from engine.model import Preprocessing
from engine.preprocess import Pixels
from engine.train.config import Config
from engine.train.data import augment, samples
from engine.train.data.dataset import Sample
from engine.train.data.prefetch import prefetch

Load = Callable[[Sample, int, Preprocessing], samples.Loaded]
Batch = tuple[Tensor, Tensor]
"""(pixels uint8 [n, 3, side, side], labels uint8 [n, side, side])."""


class Batches:
    """Crops of the samples `training`: a batch depends on the run's seeds and on its step alone, so a resumed run is
    the same.
    """

    def __init__(self, config: Config, training: Sequence[Sample], load: Load, device: torch.device) -> None:
        self._config, self._training, self._load, self._device = config, training, load, device

    @cached_property
    def loaded(self) -> list[samples.Loaded]:
        """The training samples as crops are taken from them."""
        return [self._load(sample, len(self._config.classes), self._config.preprocessing) for sample in self._training]

    def augmented(self, steps: Iterable[int]) -> Iterator[Batch]:
        """What is learned from at `steps`."""
        return prefetch(self.now(steps))

    def now(self, steps: Iterable[int]) -> Iterator[Batch]:
        """`augmented`, each made when it is asked for."""
        return self._of(steps, self._crop, self._config.foreground)

    def as_they_are(self, steps: Iterable[int]) -> Iterator[Batch]:
        """Crops that nothing has been done to."""
        return prefetch(self._of(steps, augment.window))

    def _crop(
        self, image: Pixels, mask: Pixels, size: int, rng: np.random.Generator, around: augment.Place | None = None
    ) -> samples.Loaded:
        return augment.crop(image, mask, size, rng, around, self._config.augmented)

    def _of(self, steps: Iterable[int], cut: samples.Cut, foreground: float = 0.0) -> Iterator[Batch]:
        config = self._config
        seeds = ((config.seed, step, config.run_seed)[: 3 if config.run_seed else 2] for step in steps)
        for pixels, labels in samples.batches(self.loaded, seeds, config.batch, config.crop, cut, foreground):
            yield torch.from_numpy(pixels).to(self._device), torch.from_numpy(labels).to(self._device)
