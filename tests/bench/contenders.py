"""What is compared: each contender prepares one network and returns a call that segments one image."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from engine.layer import Layer
    from engine.model import Model

Call = Callable[[], Any]
NEEDS = {
    "ours": (),
    "torch": ("torch",),
    "openvino": ("openvino", "nncf", "onnx"),
    "onnxruntime": ("onnxruntime", "onnx"),
}


@dataclass(frozen=True)
class Contender:
    """A way to run the network of `width` on one `size` x `size` image with `threads` threads."""

    name: str
    kind: str  # a key of NEEDS
    width: int = 64
    size: int = 512
    threads: int = 2
    blocks: str = "masked"  # ours: "binary", "masked", "cost-aware", "shipped", or "random as shipped"
    zeros: float = 0.0  # share among the masked weights; peers: the same weights are zero
    kernel: str = "auto"
    family: str = "mbu-net"  # a key of FAMILIES
    weight_bits: int = 1  # ours, of BFCN
    precision: str = "fp32"  # peers: "fp32", "bf16" or "int8"
    highest: str = ""  # the best instruction set that oneDNN may use, as it names it

    def missing(self) -> tuple[str, ...]:
        """Packages that it needs and that are not installed."""
        return tuple(name for name in NEEDS[self.kind] if importlib.util.find_spec(name) is None)

    def prepare(self) -> Call:
        """The call to time; everything that is done once is done here. For a process of its own."""
        if self.highest:
            os.environ["ONEDNN_MAX_CPU_ISA"] = self.highest  # read when the library is first used
        from tests.bench import peers

        return {"ours": _ours, "torch": _torch, "openvino": peers.openvino, "onnxruntime": peers.onnxruntime}[
            self.kind
        ](self)


def image(size: int) -> NDArray[np.uint8]:
    """The image that every contender runs."""
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def our_model(contender: Contender) -> Model:
    """The network that `blocks`, `width` and `zeros` ask for."""
    from engine import format
    from engine.networks import bfcn, multibranch, unet
    from engine.runtime import resolve
    from tests.models import random_model

    weights = "masked" if contender.zeros else "binary"
    if contender.family == "bfcn":
        flat = bfcn.layers(contender.width, 1, weights, contender.weight_bits, zeros=contender.zeros)
        return random_model(layers=flat, zeros=contender.zeros)
    if contender.family == "multi-branch":
        flat = multibranch.layers(contender.width, 1, weights)
        return random_model(layers=flat, zeros=zeros_of_branches(flat, contender.zeros))
    if "shipped" not in contender.blocks:
        masked = {"binary": (), "masked": unet.BLOCKS, "cost-aware": cheapest_half(contender.width)}[contender.blocks]
        return random_model(contender.width, masked=masked, zeros=contender.zeros)
    shipped = format.load(resolve("nuclei-small"))
    if contender.blocks == "shipped":
        return shipped
    zeros = {
        layer.name: float(np.mean(shipped.ternary(layer) == 0)) for layer in shipped.layers if layer.weights == "masked"
    }
    return replace(random_model(layers=shipped.layers, zeros=zeros), preprocessing=shipped.preprocessing)


def zeros_of_branches(flat: Sequence[Layer], zeros: float) -> dict[str, float]:
    """By layer: `zeros` of the weights that it may have, and all that no branch has."""
    from engine.networks import multibranch

    able = float(np.mean([multibranch.support(branch) for branch in range(multibranch.BRANCHES)]))
    return {layer.name: 1 - (1 - zeros) * (able if layer.segments > 1 else 1.0) for layer in flat}


def cheapest_half(width: int) -> tuple[str, ...]:
    """The six blocks that the cost-aware strategy masks first (equation 2); the others are binary."""
    from engine import mbu
    from engine.networks import unet

    costs = unet.block_costs(unet.layers(width), 512, 512)
    scores = mbu.cost_scores([cost.operations for cost in costs], [cost.parameters for cost in costs])
    return tuple(costs[i].block for i in np.argsort(scores)[:6])


def _ours(contender: Contender) -> Call:
    """The whole engine call, from decoded pixels to the mask."""
    from engine.runtime import Engine

    engine = Engine.load(our_model(contender), device="cpu", threads=contender.threads, kernel=contender.kernel)
    pixels = image(contender.size)
    return lambda: engine.run([pixels])[0][0]


def folded(contender: Contender) -> Any:
    """The full-precision torch network of the same shape with random weights, batch norm folded away."""
    import torch

    from engine.networks.families import FAMILIES
    from engine.train.network import Network

    torch.manual_seed(0)
    network = Network(FAMILIES[contender.family](contender.width), full_precision=True).eval()
    for stage in network.stages.values():
        if hasattr(stage, "norm"):
            fold_norm(stage)
    with torch.inference_mode():  # both sides of the threshold are to occur
        logits = network(torch.from_numpy(image(64)).permute(2, 0, 1)[None])
    network.stages["head"].bias.data -= logits.median()
    return network


def _torch(contender: Contender) -> Call:
    """PyTorch, channels last."""
    import torch

    torch.set_num_threads(contender.threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[contender.precision]
    network = folded(contender).to(dtype=dtype, memory_format=torch.channels_last)
    pixels = torch.from_numpy(image(contender.size)).permute(2, 0, 1)[None]

    def call() -> Any:
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return (network(pixels)[0, 0] >= 0).numpy()

    return call


def fold_norm(stage: Any) -> None:
    """Move a layer's batch norm, and the factors of its branches, into its weights and a bias, as every deployment of
    the full-precision net would."""
    import torch

    norm, up = stage.norm, 1 if stage.transposed else stage.layer.up
    scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
    bias = (norm.bias - norm.running_mean * scale).detach()
    stage.gain = scale.view(-1, 1, 1)  # of a residual, which is added before batch norm
    scale, bias = scale.repeat_interleave(up**2), bias.repeat_interleave(up**2)
    weight = stage._merged(stage.weight).detach() * scale.view((1, -1, 1, 1) if stage.transposed else (-1, 1, 1, 1))
    stage.weight, stage.bias, stage.norm = torch.nn.Parameter(weight), torch.nn.Parameter(bias), torch.nn.Identity()
    stage.factors = stage.support = None

    def convolve(x: Any, weight: Any, residual: Any = None) -> Any:
        if stage.transposed:
            return torch.nn.functional.conv_transpose2d(x, weight, stage.bias, stride=2)
        sums = torch.nn.functional.conv2d(x, weight, stage.bias, padding=stage.layer.kernel // 2)
        sums = torch.nn.functional.pixel_shuffle(sums, up) if up > 1 else sums
        return sums if residual is None else sums + stage.gain * residual

    stage._sums = convolve
