"""What torch.compile makes of networks: the gradients of plain steps."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.train import step
from engine.train.config import Config
from engine.train.network import Network, key
from engine.train.step import Step
from tests.engine.train.test_step import FORMS

CLASSES = tuple("abcdefghijk")


@pytest.fixture(autouse=True)
def _whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32: bfloat16 rounds differently wherever operations are fused."""
    monkeypatch.setattr(torch, "autocast", lambda *_: contextlib.nullcontext())


def gradients(config: Config) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = Network(config.layers(), config.full_precision, config.ramp)
    weights = [1.0 + k for k in range(len(config.classes))]
    loss = step.loss_of(config, weights, network.device)
    tried = Step(config, network, None, lambda: loss)
    labels = torch.randint(0, max(len(config.classes), 2), (2, config.crop, config.crop)).to(torch.uint8)
    pixels = torch.randint(0, 256, (2, 3, config.crop, config.crop), dtype=torch.uint8)
    tried._set(0.2)
    tried._loss(pixels, labels).backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


def same(plain: dict[str, Tensor], fused: dict[str, Tensor]) -> None:
    """But for what another order of sums changes, by which some units fall on the other side of zero."""
    assert plain.keys() == fused.keys()
    for name, gradient in plain.items():
        assert (fused[name] - gradient).norm() <= 0.05 * gradient.norm(), name


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
        found.append({name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None})
    same(*found)


@pytest.mark.slow
@pytest.mark.parametrize("full", [True, False], ids=["full precision", "bits"])
@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("full precision", "classes")])
def test_gradients_of_fused_kernels_are_those_of_plain_ones(form: str, full: bool) -> None:
    changes: dict[str, Any] = {
        **FORMS[form],
        "full_precision": full,
        "classes": CLASSES,
        "width": 16,
        "crop": 64,
        "batch": 2,
    }
    same(*(gradients(Config("", "", device="cpu", launch=way, **changes)) for way in ("plain", "compiled")))
