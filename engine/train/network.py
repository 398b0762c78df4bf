"""The layer list as a torch network: straight-through bits in training, exact integers in evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine import mbu, ops, strategy
from engine.layer import IMAGE, Layer
from engine.train import kinds, quantize
from engine.train.convolution import BitConv
from engine.train.head import Head
from engine.train.params import QuantizedParams


class Pool(nn.Module):
    """The highest level of every 2x2 square."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 2)


class Gate(nn.Module):
    """The first input where the second is open, by as much as it is: a bit, or ReLU's output up to 1."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def forward(self, x: Tensor, by: Tensor) -> Tensor:
        return x * by.clamp(max=1)


STAGES: dict[str, type[nn.Module]] = {"stem": BitConv, "conv": BitConv, "pool": Pool, "gate": Gate, "head": Head}
"""What trains each operation of `engine.ops`: a module of (layer, inputs, full_precision, ramp), called with levels."""


class Network(nn.Module):
    """Any list of layers. `full_precision` gives the full-precision network of the same shape (ReLU, zero padding).

    `ramp` is how levels are made of what batch norm gives.
    """

    def __init__(
        self, layers: Iterable[Layer], full_precision: bool = False, ramp: kinds.Ramp = kinds.CENTERED
    ) -> None:
        super().__init__()
        self.layers = list(layers)
        self.full_precision = full_precision
        self.stages = nn.ModuleDict()
        self.outputs = ops.tensors(self.layers)
        self.last_use = {name: layer.name for layer in self.layers for name in layer.reads}
        for layer in self.layers:
            inputs = tuple(self.outputs[name] for name in layer.reads)
            self.stages[key(layer)] = STAGES[layer.op](layer, inputs, full_precision, ramp)

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(self.parameters()).device

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 pixels [n, 3, h, w], sides as `padded` gives them -> logits [n, classes, h, w]."""
        return self.trace(pixels)[self.layers[-1].name]

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Size of an image of `height` x `width` pixels with its right and bottom edges replicated for the network."""
        return ops.padded(self.layers, height, width)

    def trace(self, pixels: Tensor, keep: bool = False) -> dict[str, Tensor]:
        """Output of the last layer by name; of every layer with `keep`."""
        values = {IMAGE: (pixels / 255).contiguous(memory_format=torch.channels_last)}
        for layer in self.layers:
            values[layer.name] = self.stages[key(layer)](*[values[name] for name in layer.reads])
            for name in () if keep else layer.reads:
                if self.last_use[name] == layer.name:
                    values.pop(name, None)
        return values

    def warm_start(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of another network of this shape, however it was quantized; learned scales begin anew."""
        own = self.state_dict()
        shared = {name: tensor for name, tensor in state.items() if not name.endswith(".scale")}
        self.load_state_dict(shared | {name: own[name] for name in own if name.endswith(".scale")})
        for stage in self.bit_convolutions().values():
            stage.reset_scale()

    def bit_convolutions(self) -> dict[str, BitConv]:
        """The layers whose weights are bits, all but the first and the last, by layer name."""
        found = {layer.name: self.stages[key(layer)] for layer in self.layers if ops.operation(layer).has_bits}
        return {name: stage for name, stage in found.items() if isinstance(stage, BitConv)}

    def quantized_params(self) -> dict[str, QuantizedParams]:
        """What every backend computes, by the names of layers with weights; raises ValueError in full precision."""
        found = {layer.name: self.stages[key(layer)] for layer in self.layers}
        return {name: stage.quantized_params() for name, stage in found.items() if isinstance(stage, BitConv | Head)}

    def set_annealed(self, annealed: quantize.Share) -> None:
        """How far activations are bits in training: 0 a clipped line, 1 bits. Evaluation always takes bits."""
        for stage in self.stages.values():
            if isinstance(stage, BitConv):
                stage.annealed = annealed

    def set_bits(self, bits: int) -> None:
        """Train activations and bit weights in so many bits, 2 or more; 0: in their own, as evaluation does always."""
        for stage in self.stages.values():
            if isinstance(stage, BitConv):
                stage.bits = bits

    def set_zeros(self, zeros: float, by: str = "layer") -> None:
        """Ask the masked layers for this share of zeros, and take their thresholds anew.

        By "layer" each has that share of zero weights. By "cost" it is the share of all their products that is zero:
        what the CPU engine saves. A product is worth most where a pixel needs few, so a weight is kept if its
        magnitude, over its layer's root mean square, exceeds a common bound times the root of the layer's products.
        """
        masked = {name: stage for name, stage in self.bit_convolutions().items() if stage.kind in kinds.MASKED}
        shares = self._zeros_by_cost(masked, zeros) if by == "cost" else dict.fromkeys(masked, zeros)
        for name, stage in masked.items():
            stage.zeros = shares[name]
        for stage in self.bit_convolutions().values():
            stage.refresh_threshold()

    def _zeros_by_cost(self, masked: dict[str, BitConv], zeros: float) -> dict[str, float]:
        visits = dict(zip([layer.name for layer in self.layers], strategy.weight_visits(self.layers), strict=True))
        latents = {name: stage.maskable().cpu().numpy() for name, stage in masked.items()}
        products = {name: visits[name] * latents[name].size / stage.weight.numel() for name, stage in masked.items()}
        return mbu.zeros_by_cost(latents, products, zeros)


def key(layer: Layer) -> str:
    """A layer's key among the stages: torch allows no dots in module names."""
    return layer.name.replace(".", "_")
