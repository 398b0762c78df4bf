"""What training minimises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def segmentation_loss(logits: Tensor, labels: Tensor, soft: Tensor | None = None) -> Tensor:
    """Cross-entropy plus soft Dice of logits [n, 1, h, w] against labels [n, h, w].

    With a teacher's probabilities `soft` [n, 1, h, w], cross-entropy aims halfway between them and the labels.
    """
    true = labels.unsqueeze(1).float()
    target = true if soft is None else 0.5 * (true + soft)
    entropy = functional.binary_cross_entropy_with_logits(logits, target)
    probability = torch.sigmoid(logits)
    overlap = (probability * true).sum((1, 2, 3))
    total = probability.sum((1, 2, 3)) + true.sum((1, 2, 3))
    return entropy + (1 - (2 * overlap + 100) / (total + 100)).mean()
