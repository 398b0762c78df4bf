"""What is compared: each contender is a function that prepares one network and returns a call that runs one image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], Any]


@dataclass(frozen=True)
class Contender:
    """A way to run the U-Net of `width` on one `size` x `size` image with `threads` threads."""

    name: str
    kind: str  # "ours" or "torch"
    width: int
    size: int
    threads: int
    zeros: float = 0.0
    kernel: str = "auto"
    dtype: str = "float32"

    def prepare(self) -> Call:
        """The call to time; everything that is done once is done here."""
        return _ours(self) if self.kind == "ours" else _torch(self)


def image(size: int) -> NDArray[np.uint8]:
    """The image that every contender runs."""
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def _ours(contender: Contender) -> Call:
    """The whole engine call, from decoded pixels to the mask. No zeros means binary blocks, else all masked."""
    from engine import unet
    from engine.runtime import Engine
    from tests.models import random_model

    masked = unet.BLOCKS if contender.zeros else ()
    model = random_model(contender.width, masked=masked, zeros=contender.zeros)
    engine = Engine.load(model, device="cpu", threads=contender.threads, kernel=contender.kernel)
    pixels = image(contender.size)
    return lambda: engine.run([pixels])


def _torch(contender: Contender) -> Call:
    """The full-precision network of the same shape, batch norm folded away, channels last."""
    import torch

    from engine import unet
    from engine.train.network import Network

    torch.set_num_threads(contender.threads)
    network = Network(unet.layers(contender.width), floating=True).eval()
    for stage in network.stages.values():
        if hasattr(stage, "norm"):
            fold_norm(stage)
    dtype = getattr(torch, contender.dtype)
    network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.from_numpy(image(contender.size)).permute(2, 0, 1)[None]

    def call() -> Any:
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return network(pixels)[0, 0] >= 0

    return call


def fold_norm(stage: Any) -> None:
    """Move a layer's batch norm into its weights and a bias, as every deployment of the full-precision net would."""
    import torch

    norm = stage.norm
    scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
    bias = torch.nn.Parameter((norm.bias - norm.running_mean * scale).detach())
    weight = stage.weight.detach() * scale.view((1, -1, 1, 1) if stage.upsamples else (-1, 1, 1, 1))
    stage.weight, stage.bias, stage.norm = torch.nn.Parameter(weight), bias, torch.nn.Identity()

    def convolve(x: Any, weight: Any) -> Any:
        if stage.upsamples:
            return torch.nn.functional.conv_transpose2d(x, weight, stage.bias, stride=2)
        return torch.nn.functional.conv2d(x, weight, stage.bias, padding=1)

    stage._convolve = convolve
