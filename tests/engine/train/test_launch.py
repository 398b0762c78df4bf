"""What torch.compile makes of networks has the gradients of plain steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.train.config import Config
from engine.train.network import Network, key
from tests.engine.train.test_step import FORMS, batch, step_of

CLASSES = tuple("abcdefghijk")


def gradients(config: Config) -> dict[str, Tensor]:
    tried = step_of(config, static=None, teacher=False)
    tried.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tried._set(0.2)
    tried._loss(*batch(config, 0)).backward()  # type: ignore[no-untyped-call]
    return of_weights(tried.network)


def of_weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


def as_large(plain: dict[str, Tensor], fused: dict[str, Tensor]) -> None:
    """Convolutions', within a half. Those of batch norm are sums that cancel: rounding to bfloat16 elsewhere, which
    moves levels, changes even their norms by more."""
    assert plain.keys() == fused.keys()
    for name, gradient in plain.items():
        if gradient.dim() > 1:
            assert gradient.norm() / 1.5 <= fused[name].norm() <= gradient.norm() * 1.5, name


def test_gradients_pass_through_an_enlarged_head_behind_a_convolution() -> None:
    torch.manual_seed(0)
    layers = Config("", "", family="bfcn", width=8, classes=CLASSES).layers()
    whole = Network(layers, full_precision=True)
    network = nn.Sequential(
        nn.Conv2d(16, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), whole.stages[key(layers[-1])]
    )
    pixels = torch.rand(4, 16, 18, 18).contiguous(memory_format=torch.channels_last)
    found = []
    for called in (network, torch.compile(network, dynamic=False)):
        network.zero_grad()
        called(pixels).square().sum().backward()
        found.append(of_weights(network))
    for plain, fused in zip(*(each.values() for each in found), strict=True):
        assert (fused - plain).norm() <= 0.05 * plain.norm()


@pytest.mark.slow
@pytest.mark.parametrize("full", [True, False], ids=["full precision", "bits"])
@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("full precision", "classes")])
def test_gradients_of_fused_kernels_are_as_large_as_those_of_plain_ones(form: str, full: bool) -> None:
    changes: dict[str, Any] = {
        **FORMS[form],
        "full_precision": full,
        "classes": CLASSES,
        "width": 16,
        "crop": 64,
        "batch": 4,
    }
    as_large(*(gradients(Config("", "", device="cpu", launch=way, **changes)) for way in ("plain", "compiled")))
