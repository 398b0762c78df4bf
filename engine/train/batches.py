"""The batches of a run, as tensors on its device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from engine import preprocess
from engine.model import Preprocessing
from engine.preprocess import Pixels
from engine.train.config import Config
from engine.train.data import augment, samples
from engine.train.data.dataset import Sample
from engine.train.data.prefetch import prefetch

Load = Callable[[Sample, int, Preprocessing], samples.Loaded]
Batch = tuple[Tensor, Tensor]
"""(pixels uint8 [n, 3, side, side], labels uint8 [n, side, side])."""

OTHERS = 2  # cores that are left to the run itself and to autograd, where processes make batches
MOST = 16  # of them, unless more are asked for


class Batches:
    """Crops of the samples `training`: a batch depends on the run's seeds and on its step alone.

    So a resumed run sees the same, and so does one with any number of processes that make batches.
    """

    def __init__(self, config: Config, training: Sequence[Sample], load: Load, device: torch.device) -> None:
        self._config, self._training, self._load, self._device = config, training, load, device

    @cached_property
    def loaded(self) -> list[samples.Loaded]:
        """The training samples as crops are taken from them."""
        return [self._load(sample, len(self._config.classes), self._config.preprocessing) for sample in self._training]

    def augmented(self, steps: Iterable[int]) -> Iterator[Batch]:
        """What is learned from at `steps`."""
        return self._placed(prefetch(self._augmented, self._seeds(steps), self.workers))

    def now(self, steps: Iterable[int]) -> Iterator[Batch]:
        """`augmented`, each made when it is asked for."""
        return self._placed(map(self._augmented, self._seeds(steps)))

    def as_they_are(self, steps: Iterable[int]) -> Iterator[Batch]:
        """Crops that nothing has been done to."""
        config = self._config
        sampler = samples.Sampler(self.loaded, config.batch, config.crop, augment.window)
        return self._placed(prefetch(sampler, self._seeds(steps)))

    @property
    def workers(self) -> int:
        """How many processes make batches."""
        if self._config.workers >= 0:
            return self._config.workers
        cores = len(os.sched_getaffinity(0))
        return 0 if self._device.type == "cpu" else min(max(1, cores - OTHERS), MOST)

    @cached_property
    def _augmented(self) -> samples.Sampler:
        config = self._config
        shares = config.foreground, config.empty
        return samples.Sampler(self.loaded, config.batch, config.crop, self._crop, *shares, self._fit)

    def _crop(
        self, image: Pixels, mask: Pixels, size: int, rng: np.random.Generator, around: augment.Place | None = None
    ) -> samples.Loaded:
        return augment.crop(image, mask, size, rng, around, self._config.augmented)

    def _fit(self, pixels: Pixels) -> Pixels:
        """A part of an image as the network sees an image of it alone."""
        return preprocess.in_8_bits(pixels, self._config.preprocessing)

    def _seeds(self, steps: Iterable[int]) -> Iterator[samples.Seed]:
        config = self._config
        return ((config.seed, step, config.run_seed)[: 3 if config.run_seed else 2] for step in steps)

    def _placed(self, batches: Iterable[samples.Loaded]) -> Iterator[Batch]:
        for pixels, labels in batches:
            yield self._tensor(pixels), self._tensor(labels)

    def _tensor(self, array: Pixels) -> Tensor:
        """On the device; a GPU's copy engine gets it from pinned memory, and nobody waits for that."""
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)
