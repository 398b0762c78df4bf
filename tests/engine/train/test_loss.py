"""The loss for one class and for several: what it is least at, and what a teacher changes."""

from __future__ import annotations

import math

import pytest
import torch

from engine.train.loss import probabilities, segmentation_loss

LABELS = torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def certain(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits that are sure of `labels`."""
    if classes == 1:
        return 40 * labels[:, None].clamp(max=1).float() - 20
    return 20 * torch.nn.functional.one_hot(labels.long(), classes).movedim(3, 1).float()


@pytest.mark.parametrize("classes", [1, 3])
def test_the_truth_costs_nothing_and_its_opposite_much(classes: int) -> None:
    labels = LABELS.clamp(max=1) if classes == 1 else LABELS
    right = certain(labels, classes)
    wrong = -right if classes == 1 else certain((LABELS + 1) % 3, 3)
    assert segmentation_loss(right, labels).item() == pytest.approx(0, abs=1e-3)
    assert segmentation_loss(wrong, labels).item() > 5


def test_without_dice_cross_entropy_is_left() -> None:
    logits = torch.zeros(2, 1, 16, 16)
    assert segmentation_loss(logits, LABELS.clamp(max=1), dice=False).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("classes", [1, 3])
def test_a_teacher_draws_towards_itself(classes: int) -> None:
    labels = LABELS.clamp(max=1) if classes == 1 else LABELS
    right = certain(labels, classes)
    unsure = torch.zeros_like(right)
    soft = probabilities(unsure)
    assert segmentation_loss(right, labels, soft) > segmentation_loss(right, labels) + 1
    assert torch.allclose(soft.sum(1) if classes > 1 else 2 * soft[:, 0], torch.ones(2, 16, 16))
