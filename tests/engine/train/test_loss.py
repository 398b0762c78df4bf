"""The loss for one class and for several: what it is least at, and what a teacher changes."""

from __future__ import annotations

import math

import pytest
import torch

from engine.train.config import OVERLAPS
from engine.train.data.dataset import VOID
from engine.train.loss import Loss, probabilities

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
    assert Loss()(right, labels).item() == pytest.approx(0, abs=1e-3)
    assert Loss()(wrong, labels).item() > 5


def test_without_dice_cross_entropy_is_left() -> None:
    logits = torch.zeros(2, 1, 16, 16)
    assert Loss("none")(logits, LABELS.clamp(max=1)).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("classes", [1, 3])
def test_a_teacher_draws_towards_itself(classes: int) -> None:
    labels = LABELS.clamp(max=1) if classes == 1 else LABELS
    right = certain(labels, classes)
    unsure = torch.zeros_like(right)
    soft = probabilities(unsure)
    assert Loss()(right, labels, soft) > Loss()(right, labels) + 1
    assert torch.allclose(soft.sum(1) if classes > 1 else 2 * soft[:, 0], torch.ones(2, 16, 16))


@pytest.mark.parametrize("classes", [1, 3])
def test_pixels_without_a_name_do_not_count(classes: int) -> None:
    labels = LABELS.clamp(max=1) if classes == 1 else LABELS
    logits, hidden = certain(labels, classes), labels.clone()
    hidden[:, :8] = VOID
    wrong = logits.clone()
    wrong[:, :, :8] = -wrong[:, :, :8]
    for overlap in OVERLAPS:
        assert Loss(overlap)(wrong, hidden).item() == pytest.approx(0, abs=1e-3)
        assert Loss(overlap)(wrong, labels).item() > 1


def test_tversky_is_dice_at_a_half_and_minds_what_is_missed_above() -> None:
    labels = LABELS.clamp(max=1)
    few, many = certain(labels * (LABELS > 1), 1), certain(torch.ones_like(labels), 1)
    for logits in (few, many):
        assert Loss("tversky", 0.5)(logits, labels).item() == pytest.approx(Loss()(logits, labels).item())
    of_overlap = [Loss("tversky", 0.9)(logits, labels) - Loss("none")(logits, labels) for logits in (few, many)]
    assert of_overlap[0] > 2 * of_overlap[1]
    assert Loss("focal-tversky")(few, labels) > Loss("tversky")(few, labels)


def test_a_weight_counts_as_often_as_it_says() -> None:
    labels = torch.tensor([[[0, 0, 1]]], dtype=torch.uint8)
    logits = torch.tensor([[[[-1.0, 2.0, 0.5]]]])
    repeated = torch.tensor([[[0, 0, 1, 1, 1]]], dtype=torch.uint8), torch.tensor([[[[-1.0, 2.0, 0.5, 0.5, 0.5]]]])
    weighted = Loss("none", weights=torch.tensor([1.0, 3.0]))(logits, labels)
    assert weighted.item() == pytest.approx(Loss("none")(repeated[1], repeated[0]).item())
