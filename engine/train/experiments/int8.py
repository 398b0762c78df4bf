"""Post-training INT8 of a full-precision network: what one gets without any retraining. A baseline, run by torch."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn

from engine.train import kinds, quantize
from engine.train.convolution import BitConv
from engine.train.head import Head
from engine.train.network import Network


@torch.no_grad()
def quantized(network: Network, batches: Iterable[Tensor]) -> Network:
    """A copy of the full-precision `network` with INT8 weights and 8-bit activations.

    Weights are symmetric and per output channel, so batch norm, being per channel, may be folded before or after.
    Activations are unsigned and per tensor; their largest value is taken over `batches` (uint8 [n, 3, h, w]).
    """
    copy = deepcopy(network).eval()
    stages = [stage for stage in copy.stages.values() if isinstance(stage, BitConv)]
    for stage in copy.stages.values():
        if isinstance(stage, BitConv | Head):
            axes = stage.summed if isinstance(stage, BitConv) else (1, 2, 3)
            stage.weight.data = quantize.fixed_point(stage.weight, axes, kinds.MULTIBIT["int8"])
    largest = _largest_outputs(copy, stages, batches)
    for stage in stages:
        stage.register_forward_hook(_Round(largest[stage]))
    return copy


def _largest_outputs(network: Network, stages: list[BitConv], batches: Iterable[Tensor]) -> dict[nn.Module, Tensor]:
    largest: dict[nn.Module, Tensor] = {}

    def note(stage: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        largest[stage] = torch.maximum(largest.get(stage, output.max()), output.max())

    hooks = [stage.register_forward_hook(note) for stage in stages]
    for pixels in batches:
        network(pixels)
    for hook in hooks:
        hook.remove()
    return largest


class _Round:
    """A forward hook: what a ReLU gives, rounded to 255 steps up to `largest`."""

    def __init__(self, largest: Tensor) -> None:
        self._step = float(largest) / 255 or 1.0

    def __call__(self, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.round(output / self._step).clamp_(max=255) * self._step
