"""One step of training: forward, loss, backward, and the weights moved. Nothing in it waits for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.train import launch
from engine.train.config import BALANCED, Config
from engine.train.data import samples
from engine.train.loss import Loss, probabilities
from engine.train.network import Network

LARGEST_GRADIENT = 5.0  # norm of all of them together; larger ones are scaled down to it


class Step:
    """Steps of `network`, which learns from labels and, with a `teacher`, from what that says of the same pixels.

    Forward passes are in bfloat16 where torch's autocast thinks it fit, the teacher's too. What is learned is not:
    weights, which of them become zero, and the signs and levels drawn from them are float32's.

    A step is run as `config.launch` says. Where that fails, `say` is told, and steps are from then on what they can be:
    captured where a compilation failed on a GPU, else plain.
    `static` steps keep what changes between them in tensors, as a recorded or a compiled one needs it.
    """

    def __init__(
        self,
        config: Config,
        network: Network,
        teacher: Network | None,
        loss: Callable[[], Loss],
        say: Callable[[str], None] = print,
        static: bool | None = None,
    ) -> None:
        self.config, self.network, self.teacher, self.loss = config, network, teacher, loss
        self._mode = launch.mode(config, network.device)
        on_gpu, fused = network.device.type == "cuda", self._mode == "compiled"
        self._static = (on_gpu or fused) if static is None else static
        self._annealed = torch.zeros((), device=network.device)
        self._say = say
        self.optimizer = torch.optim.Adam(network.parameters(), **self._optimizer_settings())
        self._student: Callable[[Tensor], Tensor] = network
        self._teach: Callable[[Tensor], Tensor] | None = teacher
        self.graph = launch.Graph(self.update) if self._mode == "captured" or (on_gpu and fused) else None
        if fused:
            self._student = torch.compile(network, dynamic=False)
            self._teach = torch.compile(teacher, dynamic=False) if teacher else None

    def __call__(self, pixels: Tensor, labels: Tensor, progress: float) -> Tensor:
        """The loss of one batch, a scalar on the device, by which the weights have been moved."""
        form = self._set(progress)
        try:
            return self.graph(pixels, labels, form) if self.graph else self.update(pixels, labels)
        except Exception as error:  # whatever it is, the run can do without graphs and compilers
            if self._mode == "plain":
                raise
            self._step_down(error)
            return self(pixels, labels, progress)

    def update(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """The step itself."""
        self.optimizer.zero_grad()
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):  # all batches have one size
            loss = self._loss(pixels, labels)
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        return loss.detach()

    def _loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, torch.bfloat16):
            logits = self._student(pixels)
            target = None
            if self._teach is not None:
                with torch.no_grad():
                    target = probabilities(self._teach(pixels).float())
        return self.loss()(logits.float(), labels, target)

    @property
    def learning_rate(self) -> float:
        """That of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from the optimizer's state in a checkpoint, of whatever device: its settings are this one's own."""
        own = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["state"], "param_groups": own})

    def _optimizer_settings(self) -> dict[str, Any]:
        rate = self.config.learning_rate
        if not self._static:
            return {"lr": rate}
        return {"lr": torch.tensor(rate, device=self.network.device), "fused": True, "capturable": True}

    def _set(self, progress: float) -> Hashable:
        """Set what depends on the run's progress; returns what of it Python decides by."""
        config, network = self.config, self.network
        rate, annealed, bits = config.learning_rate_at(progress), config.annealed_at(progress), config.bits_at(progress)
        for group in self.optimizer.param_groups:
            if self._static:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if self._static and annealed < 1:
            network.set_annealed(self._annealed.fill_(annealed))
        else:
            network.set_annealed(annealed)
        network.set_bits(bits)
        if not network.training:
            network.train()
        return annealed < 1, bits

    def _step_down(self, error: Exception) -> None:
        why, before = next(iter(str(error).splitlines()), ""), self._mode
        self._mode = "captured" if before == "compiled" and self.graph else "plain"
        self.graph = launch.Graph(self.update) if self._mode == "captured" else None
        self._student, self._teach = self.network, self.teacher
        self._say(f"steps are {self._mode}, not {before}: {type(error).__name__}: {why}")


def loss_of(config: Config, weights: Sequence[float], device: torch.device) -> Loss:
    """The loss that a run minimizes, with `weights` of the classes, if any."""
    placed = torch.tensor(weights, dtype=torch.float32, device=device) if weights else None
    return Loss("none" if "dice" in config.ablate else config.overlap, config.missed, placed)


def class_weights(config: Config, loaded: Sequence[samples.Loaded]) -> list[float]:
    """Weights of the classes, the background's first: given, or by their rarity in `loaded`; [] for none."""
    if config.class_weights == BALANCED:
        return balanced(samples.pixels_of_classes(loaded, max(len(config.classes), 2)))
    return [float(text) for text in config.class_weights]


def balanced(pixels: NDArray[np.int64]) -> list[float]:
    """Weights of classes of so many pixels: by the root of their rarity, 1 for the mean pixel; 0 for those absent."""
    roots = np.sqrt(pixels / max(int(pixels.sum()), 1))
    return [float(1 / (root * roots.sum())) if root else 0.0 for root in roots]
