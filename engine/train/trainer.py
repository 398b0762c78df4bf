"""The trainer: random crops in, checkpoints, a CSV log and pictures out. Resumes where it was interrupted."""

from __future__ import annotations

import csv
import math
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from engine import fit, unet
from engine.train import augment, folder, scores
from engine.train.network import Network

REFRESH_EVERY = 16  # steps between two looks at the masking thresholds
LOG_EVERY = 25  # steps
NORM_BATCHES = 64  # batches over which batch norm is estimated anew at the end


@dataclass(frozen=True)
class Config:
    """One training run. `crops` is the budget; rates fall to zero over it along a cosine."""

    data: str
    out: str
    width: int = 32
    masked: tuple[str, ...] = unet.BLOCKS
    floating: bool = False
    crops: int = 24000
    batch: int = 4
    crop: int = 192
    rate: float = 1e-3
    zeros: float = 0.9
    zeros_from: float = 0.5
    contrast: str = "none"
    validation: float = 0.2
    seed: int = 0
    init: str = ""
    teacher: str = ""
    validate_every: int = 2000
    device: str = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")

    @property
    def steps(self) -> int:
        return self.crops // self.batch


class Trainer:
    """`Trainer(config).run()` trains to the end and leaves checkpoint.pt, log.csv in `config.out`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.out = Path(config.out)
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.training, self.validation = folder.split(folder.pairs(config.data), config.validation, config.seed)
        layers = unet.layers(config.width, masked=config.masked)
        self.network = Network(layers, config.floating).to(config.device, memory_format=torch.channels_last)
        if config.init:
            self.network.load_state_dict(torch.load(config.init, weights_only=True)["network"])
        self.teacher = _load_teacher(config, layers) if config.teacher else None
        self.optimizer = torch.optim.Adam(self.network.parameters(), config.rate)
        self.step = 0
        self.best = 0.0
        self._resume()

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    def run(self) -> scores.Scores:
        """Train what is left of the budget, re-estimate batch norm, save; returns the validation scores."""
        config, started, first = self.config, time.monotonic(), self.step
        self._set_zeros()
        bar = tqdm(total=config.steps, initial=self.step, unit="step", dynamic_ncols=True)
        running = 0.0
        for pixels, labels in prefetch(self._batches(self.step, config.steps)):
            running += self._train_step(pixels, labels)
            self.step += 1
            bar.update()
            if self.step % LOG_EVERY == 0:
                speed = (self.step - first) * config.batch / (time.monotonic() - started)
                self._log(loss=running / LOG_EVERY, crops_per_second=speed)
                bar.set_postfix(loss=f"{running / LOG_EVERY:.4f}", crops_s=f"{speed:.1f}", dice=f"{self.best:.4f}")
                running = 0.0
            if self.step % config.validate_every == 0 and self.step < config.steps:
                self._validate_and_save()
        bar.close()
        self._estimate_norms()
        return self._validate_and_save()

    def _train_step(self, pixels: Tensor, labels: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate * _rate(self.step / self.config.steps)
        if self.step % REFRESH_EVERY == 0:
            self._set_zeros()
        self.network.train()
        with torch.autocast(self.config.device, torch.bfloat16):
            logits = self.network(pixels)
            target = None
            if self.teacher is not None:
                with torch.no_grad():
                    target = torch.sigmoid(self.teacher(pixels).float())
        loss = segmentation_loss(logits.float(), labels, target)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        return float(loss.detach())

    def _set_zeros(self) -> None:
        """The share of zeros climbs from `zeros_from` to `zeros` along a cubic over the first half."""
        if not self.config.floating:
            left = max(0.0, 1 - 2 * self.step / self.config.steps) ** 3
            self.network.set_zeros(self.config.zeros + (self.config.zeros_from - self.config.zeros) * left)

    def _batches(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the steps start … stop - 1; each depends on seed and step alone, so a resumed run is the same."""
        config = self.config
        items = [(prepare(image, config.contrast), mask) for image, mask in (pair.load() for pair in self.training)]
        weights = np.sqrt([mask.size for _, mask in items])
        weights /= weights.sum()
        for step in range(start, stop):
            rng = np.random.default_rng((config.seed, step))
            chosen = rng.choice(len(items), config.batch, p=weights)
            crops = [augment.crop(*items[i], config.crop, rng) for i in chosen]
            pixels = np.stack([image.transpose(2, 0, 1) for image, _ in crops])
            labels = np.stack([mask for _, mask in crops])
            yield torch.from_numpy(pixels).to(config.device), torch.from_numpy(labels).to(config.device)

    @torch.no_grad()
    def _estimate_norms(self) -> None:
        """Batch norm statistics of the final weights, averaged over fresh crops, without weight updates."""
        self.network.train()
        for module in self.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # type: ignore[assignment]
        for pixels, _ in prefetch(self._batches(self.config.steps, self.config.steps + NORM_BATCHES)):
            with torch.autocast(self.config.device, torch.bfloat16):
                self.network(pixels)

    def _validate_and_save(self) -> scores.Scores:
        result = validate(self.network, self.validation, self.config)
        self.best = max(self.best, result.dice)
        self._log(dice=result.dice, iou=result.iou, f1=result.f1)
        state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        part = self.checkpoint.with_suffix(".part")
        torch.save(state | {"config": asdict(self.config), "best": self.best}, part)
        part.replace(self.checkpoint)
        return result

    def _resume(self) -> None:
        if self.checkpoint.is_file():
            state = torch.load(self.checkpoint, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.best = state["step"], state["best"]

    def _log(self, **values: float) -> None:
        path = self.out / "log.csv"
        columns = ["step", "crops", "rate", "zeros", "loss", "crops_per_second", "dice", "iou", "f1"]
        zeros = [stage.zeros for stage in self.network.bit_convolutions().values() if stage.kind == "masked"]
        row: dict[str, Any] = {"step": self.step, "crops": self.step * self.config.batch, "zeros": max(zeros, default=0)}
        row |= {"rate": self.optimizer.param_groups[0]["lr"]} | values
        new = not path.is_file()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns)
            if new:
                writer.writeheader()
            writer.writerow(row)


def segmentation_loss(logits: Tensor, labels: Tensor, soft: Tensor | None = None) -> Tensor:
    """Cross-entropy plus soft Dice of logits [n, 1, h, w] against labels [n, h, w].

    With a teacher's probabilities `soft` [n, 1, h, w], cross-entropy aims halfway between them and the labels.
    """
    true = labels.unsqueeze(1).float()
    target = true if soft is None else 0.5 * (true + soft)
    entropy = F.binary_cross_entropy_with_logits(logits, target)
    probability = torch.sigmoid(logits)
    overlap = (probability * true).sum((1, 2, 3))
    total = probability.sum((1, 2, 3)) + true.sum((1, 2, 3))
    return entropy + (1 - (2 * overlap + 100) / (total + 100)).mean()


def prepare(image: NDArray[np.uint8], contrast: str) -> NDArray[np.uint8]:
    """The model file's preprocessing of one image before crops are taken."""
    return fit.stretch(image) if contrast == "stretch" else image


@torch.no_grad()
def predict(network: Network, image: NDArray[np.uint8], config: Config) -> NDArray[np.bool_]:
    """Mask bool [h, w] of one image [h, w, 3] by the network's evaluation mode."""
    height, width = image.shape[:2]
    pixels = torch.from_numpy(fit.pad(prepare(image, config.contrast)).transpose(2, 0, 1).copy())
    logits = network(pixels[None].to(config.device))
    mask: NDArray[np.bool_] = (logits[0, 0, :height, :width] >= 0).cpu().numpy()
    return mask


def validate(network: Network, items: list[folder.Pair], config: Config) -> scores.Scores:
    """Scores of `network` in evaluation mode over whole images."""
    network.eval()
    counts = []
    for pair in items:
        image, mask = pair.load()
        counts.append(scores.count(predict(network, image, config), mask))
    return scores.summarise(counts)


def prefetch(batches: Iterator[Any], depth: int = 8) -> Iterator[Any]:
    """The same batches, made ahead in a thread of their own; an error there is raised here."""
    waiting: queue.Queue[Any] = queue.Queue(depth)
    end = object()

    def fill() -> None:
        try:
            for batch in batches:
                waiting.put(batch)
            waiting.put(end)
        except BaseException as error:  # handed to the consumer below
            waiting.put(error)

    threading.Thread(target=fill, daemon=True).start()
    while (item := waiting.get()) is not end:
        if isinstance(item, BaseException):
            raise item
        yield item


def _rate(progress: float) -> float:
    """Linear warm-up over 3 % of the run, then half a cosine down to zero."""
    return min(progress / 0.03, 1.0) * 0.5 * (1 + math.cos(math.pi * progress))


def _load_teacher(config: Config, layers: list[Any]) -> Network:
    teacher = Network(layers, floating=True)
    teacher.load_state_dict(torch.load(config.teacher, weights_only=True)["network"])
    return teacher.to(config.device, memory_format=torch.channels_last).eval()
