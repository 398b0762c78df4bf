"""What training minimises: cross-entropy, and how far the masks overlap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine.train.data.dataset import VOID

FOCAL = 0.75  # exponent of the focal Tversky loss (arXiv 1810.07842): classes that overlap badly count more
SMOOTH = 50  # pixels added to every overlap: a class that is absent has one


@dataclass(frozen=True)
class Loss:
    """Settings of the loss; `overlap` is one of `config.OVERLAPS`.

    Tversky's index is Dice's where `missed`, what a missed pixel counts, is a half. `weights` [classes], for one class
    of background and foreground, weigh pixels in cross-entropy.
    """

    overlap: str = "dice"
    missed: float = 0.7
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None = None) -> Tensor:
        """Of logits [n, classes, h, w] against labels [n, h, w], pixels that are VOID being left out.

        With a teacher's probabilities `soft` [n, classes, h, w], cross-entropy aims halfway between them and the
        labels.
        """
        known = labels != VOID
        labels = torch.where(known, labels, 0)
        if logits.shape[1] == 1:
            true = labels.unsqueeze(1).float()
        else:
            indices = torch.arange(logits.shape[1], device=labels.device).view(1, -1, 1, 1)
            true = (labels.unsqueeze(1) == indices).float()
        entropy = self._cross_entropy(logits, true if soft is None else 0.5 * (true + soft), labels, known)
        return entropy if self.overlap == "none" else entropy + self._apart(probabilities(logits), true, known)

    def _cross_entropy(self, logits: Tensor, target: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")[:, 0]
        else:
            each = functional.cross_entropy(logits, target, reduction="none")
        weight = known.float() if self.weights is None else self.weights[labels.long()] * known
        return (each * weight).sum() / weight.sum().clamp(min=1e-6)

    def _apart(self, probability: Tensor, true: Tensor, known: Tensor) -> Tensor:
        """1 minus Tversky's index, the mean over classes and images."""
        probability, true = probability * known.unsqueeze(1), true * known.unsqueeze(1)
        missed = 0.5 if self.overlap == "dice" else self.missed
        both = (probability * true).sum((2, 3))
        apart = missed * (true.sum((2, 3)) - both) + (1 - missed) * (probability.sum((2, 3)) - both)
        lost = apart / (both + apart + SMOOTH)
        return (lost.clamp(min=1e-6) ** FOCAL if self.overlap == "focal-tversky" else lost).mean()


def probabilities(logits: Tensor) -> Tensor:
    """Of logits [n, classes, h, w]: each pixel's own with one class, shared out among several."""
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, 1)
