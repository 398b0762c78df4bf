"""Post-training INT8: near the full-precision network, and really of 8 bits."""

from __future__ import annotations

import numpy as np
import torch

from engine.networks import unet
from engine.train.convolution import BitConv
from engine.train.experiments.int8 import quantized
from engine.train.network import Network


def full_precision() -> tuple[Network, torch.Tensor]:
    torch.manual_seed(0)
    network = Network(unet.layers(4), full_precision=True)
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        for _ in range(20):
            network(pixels)
    return network.eval(), pixels


def test_int8_is_near_full_precision_and_leaves_it_alone() -> None:
    network, pixels = full_precision()
    with torch.no_grad():
        before = network(pixels)
        rounded = quantized(network, [pixels])(pixels)
        assert torch.equal(network(pixels), before)
    assert 0 < (rounded - before).std() < 0.1 * before.std()


def test_weights_and_activations_have_8_bits() -> None:
    network, pixels = full_precision()
    copy = quantized(network, [pixels])
    with torch.no_grad():
        outputs = copy.trace(pixels, keep=True)
    stage = copy.stages["down2_conv1"]
    assert isinstance(stage, BitConv)
    for channel in stage.weight:
        steps = 127 * channel / channel.abs().max()
        assert torch.allclose(steps, steps.round(), atol=1e-3)
    values = outputs["down2.conv1"]
    assert len(np.unique(values.numpy())) <= 256
    assert values.min() >= 0
