"""One step of training: forward, loss, backward, and the weights moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.train.config import BALANCED, Config
from engine.train.data import samples
from engine.train.loss import Loss, probabilities
from engine.train.network import Network

LARGEST_GRADIENT = 5.0  # norm of all of them together; larger ones are scaled down to it


class Step:
    """Steps of `network`, which learns from labels and, with a `teacher`, from what that says of the same pixels."""

    def __init__(self, config: Config, network: Network, teacher: Network | None) -> None:
        self.config, self.network, self.teacher = config, network, teacher
        self.optimizer = torch.optim.Adam(network.parameters(), config.learning_rate)

    def __call__(self, pixels: Tensor, labels: Tensor, loss_of: Loss, progress: float) -> float:
        """The loss of one batch, by which the weights have been moved."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(progress)
        self.network.set_annealed(self.config.annealed_at(progress))
        self.network.set_bits(self.config.bits_at(progress))
        self.network.train()
        with torch.autocast(pixels.device.type, torch.bfloat16):
            logits = self.network(pixels)
            target = None
            if self.teacher is not None:
                with torch.no_grad():
                    target = probabilities(self.teacher(pixels).float())
        loss = loss_of(logits.float(), labels, target)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        return float(loss.detach())

    @property
    def learning_rate(self) -> float:
        """That of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])


def loss_of(config: Config, weights: Sequence[float], device: torch.device) -> Loss:
    """The loss that a run minimizes, with `weights` of the classes, if any."""
    placed = torch.tensor(weights, dtype=torch.float32, device=device) if weights else None
    return Loss("none" if "dice" in config.ablate else config.overlap, config.missed, placed)


def class_weights(config: Config, loaded: Sequence[samples.Loaded]) -> list[float]:
    """Weights of the classes, the background's first: given, or by their rarity in `loaded`; [] for none."""
    if config.class_weights == BALANCED:
        return balanced(samples.pixels_of_classes(loaded, max(len(config.classes), 2)))
    return [float(text) for text in config.class_weights]


def balanced(pixels: NDArray[np.int64]) -> list[float]:
    """Weights of classes of so many pixels: by the root of their rarity, 1 for the mean pixel; 0 for those absent."""
    roots = np.sqrt(pixels / max(int(pixels.sum()), 1))
    return [float(1 / (root * roots.sum())) if root else 0.0 for root in roots]
