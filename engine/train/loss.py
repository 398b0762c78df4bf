"""What training minimises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def probabilities(logits: Tensor) -> Tensor:
    """Of logits [n, classes, h, w]: each pixel's own with one class, shared out among several."""
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, 1)


def segmentation_loss(logits: Tensor, labels: Tensor, soft: Tensor | None = None, dice: bool = True) -> Tensor:
    """Cross-entropy plus soft Dice, the mean over classes, of logits [n, classes, h, w] against labels [n, h, w].

    Without `dice`, cross-entropy alone.

    With a teacher's probabilities `soft` [n, classes, h, w], cross-entropy aims halfway between them and the labels.
    """
    classes = logits.shape[1]
    if classes == 1:
        true = labels.unsqueeze(1).float()
    else:
        true = functional.one_hot(labels.long(), classes).movedim(3, 1).float()
    target = true if soft is None else 0.5 * (true + soft)
    if classes == 1:
        entropy = functional.binary_cross_entropy_with_logits(logits, target)
    else:
        entropy = functional.cross_entropy(logits, target)
    if not dice:
        return entropy
    probability = probabilities(logits)
    overlap = (probability * true).sum((2, 3))
    total = probability.sum((2, 3)) + true.sum((2, 3))
    return entropy + (1 - (2 * overlap + 100) / (total + 100)).mean()
