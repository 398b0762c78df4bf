"""The trainer: random crops in, checkpoints, a CSV log and pictures out. Resumes where it was interrupted."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from engine import preprocess
from engine.model import Preprocessing
from engine.preprocess import Image, Pixels
from engine.train import checkpoint, figures, kinds, log, metrics, pretrained, split, threads
from engine.train.config import BALANCED, Config
from engine.train.data import augment, dataset, samples
from engine.train.data.files import DataError
from engine.train.data.prefetch import prefetch
from engine.train.loss import Loss, probabilities
from engine.train.network import Network
from engine.train.pace import Clock, Pace
from engine.train.renamed import current

REFRESH_EVERY = 16  # steps between two looks at the masking thresholds
LOG_EVERY = 25  # steps
BATCH_NORM_SAMPLES = 256  # over which batch norm is estimated anew at the end
UNFOLD_SAMPLES = 64  # over which it is estimated at first, where a run begins from a model file
BATCH_NORM_SHARE = 0.1  # of the minutes of a run by the clock, at most
EXAMPLES = 6  # validation images, on a sheet
EARLY = 0.05  # of the run: the first look at the validation images
LOOKS = 20  # at most so many more of them in a run by the clock, and never more than a tenth of its time
SAVED_EVERY = 60.0  # seconds, by the clock
FORWARD = 0.4  # of a training step's time, or less, is what a forward pass takes
FREE_FIELDS = ("out", "device", "minutes")  # a run may move to another folder or device, or get another time, and go on


Load = Callable[[dataset.Sample, int, Preprocessing], samples.Loaded]


class ResumeError(ValueError):
    """The checkpoint in the output folder belongs to another run; the message names the fields that differ."""


class Interrupted(Exception):  # noqa: N818
    """A run that was asked to stop and has saved its state; the message says where."""


class Trainer:
    """`Trainer(config).run()` leaves checkpoint.pt, best.pt, log.csv, curves.png and examples.png in `config.out`.

    A checkpoint holds no masking thresholds: they follow from its weights and from the share of zeros at its step.
    They are taken anew before every save, so a resumed run gives the same bits as one that was never interrupted.
    Who trains many networks passes a `load` that remembers, and asks for `quiet`: no progress bar. A new run takes the
    split of `parts` where that is given.
    """

    def __init__(
        self,
        config: Config,
        load: Load = samples.load,
        quiet: bool = False,
        parts: dataset.Parts | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.config = config
        self.pace = Pace(config, clock)
        self._load = load
        self._quiet = quiet
        self.out = Path(config.out)
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed + (config.run_seed << 32))
        torch.set_flush_denormal(True)  # vanishing gradients would cost a fifth of the time on CPUs
        state = checkpoint.read(self.checkpoint) if self.checkpoint.is_file() else {}
        if state:
            self._check_same_run(state)
        self.training, self.validation = self._split(pretrained.parts_of(state) or parts)
        if not self.training or not self.validation:
            raise DataError(f"{config.data}: too few samples to learn from and to hold for validation")
        layers = config.layers()
        self.device = torch.device(_best_device() if config.device == "auto" else config.device)
        self.network = _placed(Network(layers, config.full_precision, config.ramp), self.device)
        self.step = 0
        self.teacher: Network | None = None
        if config.init and not state:
            self._begin(pretrained.load_any(config.init))
        if config.teacher:
            found = pretrained.load(config.teacher)
            self.teacher = _placed(pretrained.teacher(found, config), self.device)
            self._warn_if_seen(found)
        self.optimizer = torch.optim.Adam(self.network.parameters(), config.learning_rate)
        self.best = 0.0
        self._settled, self._stale = False, 0  # whether the best is of the final network; validations since
        self.scored = False  # at the end, batch norm being re-estimated
        self.last = 0.0  # what the last validation gave
        self._never_found: tuple[str, ...] = ()  # classes, in it
        self._step_seconds = 0.0  # of late
        self._stepped = False
        self._looked = -1.0  # pace's seconds at the last validation
        self._look_seconds = 0.0  # that it took
        self._saved = 0.0  # pace's seconds at the last save
        self._losses: list[float] = []  # since the last row of the log
        self._asked_to_stop = False
        if state:
            self._resume(state)
        for path in (self.log, self.class_log):
            log.forget(path, self.step)

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    @property
    def best_checkpoint(self) -> Path:
        """That of the best validation so far, once zeros and bits are those of the end."""
        return self.out / "best.pt"

    @property
    def log(self) -> Path:
        return self.out / "log.csv"

    @property
    def class_log(self) -> Path:
        return self.out / "classes.csv"

    def run(self) -> metrics.Metrics:
        """Train what is left of the budget, re-estimate batch norm, save; returns the validation metrics."""
        self.fit()
        self.scored = True
        return self._validate_and_save()

    def stop(self) -> None:
        """Ask a run to save and raise Interrupted where its masking thresholds are due: within REFRESH_EVERY steps.

        There a resumed run gives the same bits as one that was never interrupted.
        """
        self._asked_to_stop = True

    @property
    def progress(self) -> float:
        """How far the run is, from 0 to 1."""
        return self.pace.progress(self.step)

    @property
    def finished(self) -> bool:
        """Whether nothing of the budget is left, or it stops early."""
        return self.progress >= 1 or 0 < self.config.early_stopping <= self._stale

    def fit(self) -> None:
        """Train what is left of the budget and re-estimate batch norm; the end of it is neither scored nor saved."""
        self._set_zeros()
        with self._bar() as bar:
            reported, since = time.monotonic(), self.step
            for pixels, labels in self._training_batches():
                self._losses.append(self._train_step(pixels, labels))
                self.step += 1
                self._count_time()
                self._show(bar)
                if self.step % LOG_EVERY == 0:
                    speed = (self.step - since) * self.config.batch / (time.monotonic() - reported)
                    self._log(loss=float(np.mean(self._losses)), samples_per_second=speed)
                    bar.set_postfix(self._shown(speed))
                    self._losses = []
                    reported, since = time.monotonic(), self.step
                if not self.finished:
                    self._save_when_due()
                if self.finished:
                    break
                self._stop_when_asked()
        self._set_zeros()
        self.network.set_bits(0)
        if "batch-norm-re-estimation" in self.config.ablate:
            self.network.set_annealed(1.0)
        else:
            self._reestimate_batch_norm()

    def speed(self, steps: int) -> float:
        """Samples a second that this machine trains at, by `steps` steps after a first one. They change the weights."""
        batches = self._batches(range(steps + 1), self._crop, self.config.foreground)
        self._train_step(*next(batches))
        started = time.perf_counter()
        for pixels, labels in batches:
            self._train_step(pixels, labels)
        return steps * self.config.batch / (time.perf_counter() - started)

    def _training_batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        """What is left of them: up to the last step, or by the clock without an end."""
        if self.finished:
            return ()
        seen = itertools.count(self.step) if self.config.minutes else range(self.step, self.config.steps)
        return prefetch(self._batches(seen, self._crop, self.config.foreground))

    def _bar(self) -> Any:
        """A progress bar over the steps, or the seconds, of the run."""
        if self.config.minutes:
            form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}"
            seconds = {"total": 60 * self.config.minutes, "initial": self.pace.spent, "bar_format": form}
            return tqdm(**seconds, dynamic_ncols=True, disable=self._quiet)
        steps = {"total": self.config.steps, "initial": self.step, "unit": "step"}
        return tqdm(**steps, dynamic_ncols=True, disable=self._quiet)

    def _show(self, bar: Any) -> None:
        done = self.pace.spent if self.config.minutes else self.step
        bar.update(min(done, bar.total) - bar.n)

    def _shown(self, speed: float) -> dict[str, str]:
        shown = {"loss": f"{np.mean(self._losses):.4f}", "samples_s": f"{speed:.1f}"}
        if self._looked >= 0:
            shown |= {"validation": f"{self.last:.4f}", "best": f"{self.best:.4f}"}
        if self._never_found:
            shown["never found"] = " ".join(self._never_found)
        return shown

    def _count_time(self) -> None:
        """By the clock, keep what the end will take: batch norm over its samples, and one more validation."""
        took = self.pace.advance()
        if self._stepped:  # a first step waits for the images to be read
            self._step_seconds = 0.9 * self._step_seconds + 0.1 * took if self._step_seconds else took
        self._stepped = True
        again = FORWARD * self._step_seconds * -(-BATCH_NORM_SAMPLES // self.config.batch)
        self.pace.tail = self._look_seconds + min(again, self._batch_norm_seconds)

    @property
    def _batch_norm_seconds(self) -> float:
        """By the clock, the most that batch norm may take at the end."""
        return 60 * self.config.minutes * BATCH_NORM_SHARE

    def _train_step(self, pixels: Tensor, labels: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.progress)
        if self.step % REFRESH_EVERY == 0:
            self._set_zeros()
        self.network.set_annealed(self.config.annealed_at(self.progress))
        self.network.set_bits(self.config.bits_at(self.progress))
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.network(pixels)
            target = None
            if self.teacher is not None:
                with torch.no_grad():
                    target = probabilities(self.teacher(pixels).float())
        loss = self._loss(logits.float(), labels, target)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        return float(loss.detach())

    def _set_zeros(self) -> None:
        self.network.set_zeros(self.config.zeros_at(self.progress), self.config.zeros_by)

    @cached_property
    def _loaded(self) -> list[samples.Loaded]:
        """The training samples as crops are taken from them."""
        return [self._load(sample, len(self.config.classes), self.config.preprocessing) for sample in self.training]

    @cached_property
    def _loss(self) -> Loss:
        config, weights = self.config, None
        if config.class_weights == BALANCED:
            found = balanced(samples.pixels_of_classes(self._loaded, max(len(config.classes), 2)))
            self._say("weights of the classes: " + ", ".join(f"{weight:.2f}" for weight in found))
            weights = torch.tensor(found, dtype=torch.float32, device=self.device)
        elif config.class_weights:
            weights = torch.tensor([float(text) for text in config.class_weights], device=self.device)
        return Loss("none" if "dice" in config.ablate else config.overlap, config.missed, weights)

    def _crop(
        self, image: Pixels, mask: Pixels, size: int, rng: np.random.Generator, around: augment.Place | None = None
    ) -> samples.Loaded:
        return augment.crop(image, mask, size, rng, around, self.config.augmented)

    def _batches(
        self, steps: Iterable[int], cut: samples.Cut, foreground: float = 0.0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of `steps`; each depends on seed and step alone, so a resumed run is the same."""
        config = self.config
        seeds = ((config.seed, step, config.run_seed)[: 3 if config.run_seed else 2] for step in steps)
        for pixels, labels in samples.batches(self._loaded, seeds, config.batch, config.crop, cut, foreground):
            yield torch.from_numpy(pixels).to(self.device), torch.from_numpy(labels).to(self.device)

    @torch.no_grad()
    def _reestimate_batch_norm(self) -> None:
        """Batch norm statistics of the final weights, averaged over crops as they are, without weight updates."""
        self.network.set_annealed(1.0)
        self.network.train()
        for module in self.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        started = self.pace.now()
        for pixels, _ in self.as_they_are():
            with torch.autocast(self.device.type, torch.bfloat16):
                self.network(pixels)
            if self.config.minutes and self.pace.now() - started > self._batch_norm_seconds:
                break

    def as_they_are(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of BATCH_NORM_SAMPLES training crops that nothing has been done to."""
        start, count = self.step, -(-BATCH_NORM_SAMPLES // self.config.batch)
        return prefetch(self._batches(range(start, start + count), augment.window))

    def _save_when_due(self) -> None:
        if self._look_due():
            self._validate_and_save()
        elif self._save_due():
            self.save()

    def _look_due(self) -> bool:
        early = self._looked < 0 and self.progress >= EARLY and self.step % REFRESH_EVERY == 0
        if not self.config.minutes:
            return early or self.step % self.config.validate_every == 0
        since = self.pace.spent - self._looked
        return early or (self._looked >= 0 and since > max(10 * self._look_seconds, 60 * self.config.minutes / LOOKS))

    def _save_due(self) -> bool:
        if not self.config.minutes:
            return self.step % self.config.save_every == 0
        return self.pace.spent - self._saved > SAVED_EVERY

    def _stop_when_asked(self) -> None:
        if self._asked_to_stop and self.step % REFRESH_EVERY == 0:
            self.save()
            raise Interrupted(
                f"stopped at step {self.step}{self._of_all()}, saved in {self.checkpoint}; "
                "the same command goes on from there"
            )

    def _of_all(self) -> str:
        return f", {self.progress:.0%} of the time" if self.config.minutes else f" of {self.config.steps}"

    def _validate_and_save(self) -> metrics.Metrics:
        self.pace.advance()
        self._set_zeros()
        result = validate(self.network, self._looked_at(), self.config)
        self.last, self._never_found = result.headline, result.never_found
        better = self._compare()
        self._log(dice=result.dice, iou=result.iou, f1=result.f1)
        for name, own in (result.by_class or {metrics.FOREGROUND: result}).items():
            log.append_class(self.class_log, self.step, name, own)
        self._draw()
        self._look_seconds = self.pace.advance()
        self._looked = self.pace.spent
        self.save()
        if better:
            shutil.copyfile(self.checkpoint, self.best_checkpoint)
        if self.config.minutes and self.device.type == "cpu":
            threads.choose()
        return result

    def _compare(self) -> bool:
        """Whether the last validation is the best of the network as it will be; before it is, the best of any."""
        settled = self.config.settled_at(self.progress)
        better = self.last > self.best or (settled and not self._settled)
        self._stale = 0 if better or not settled else self._stale + 1
        self._settled = settled
        self.best = self.last if better else self.best
        return better and settled

    def _looked_at(self) -> list[dataset.Sample]:
        """The validation images, or as many of them as `validate_on` says, evenly chosen."""
        return evenly(self.validation, self.config.validate_on)

    def save(self) -> None:
        """Write the checkpoint."""
        self._set_zeros()
        state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        parts = dataset.Parts.of(self.training, self.validation)
        state |= {"config": asdict(self.config), "best": self.best, "losses": self._losses}
        state |= {"last": self.last, "looked": self._looked, "look_seconds": self._look_seconds}
        state |= {"settled": self._settled, "stale": self._stale, "scored": self.scored}
        state |= {"progress": self.progress, "spent": self.pace.spent}
        state["parts"] = {"training": sorted(parts.training), "validation": sorted(parts.validation)}
        checkpoint.write(self.checkpoint, state)
        self._saved = self.pace.spent

    def _split(self, kept: dataset.Parts | None) -> tuple[list[dataset.Sample], list[dataset.Sample]]:
        """(training, validation): as the run has it, what came to the folder since joining training; else anew."""
        config = self.config
        everything = split.samples(config)
        if kept is None:
            return dataset.split(everything, config.share, config.seed)
        if missing := kept.missing(everything):
            raise ResumeError(
                f"{self.checkpoint} is of another split: {len(missing)} of its samples are not in {config.data} "
                f"({missing[0]}{', …' if len(missing) > 1 else ''}); put them back, or choose another output folder"
            )
        training, validation, new = kept.divide(everything)
        if new:
            self._say(f"{config.data} has grown: {len(new)} new samples join training, none is held for validation")
        joined = {sample.name for sample in (*training, *new)}
        return [sample for sample in everything if sample.name in joined], validation

    def _begin(self, found: pretrained.Pretrained | pretrained.Shipped) -> None:
        few = itertools.islice(self.as_they_are(), -(-UNFOLD_SAMPLES // self.config.batch))
        for remark in pretrained.begin(self.network, found, self.config, (pixels for pixels, _ in few)):
            self._say(remark)
        self._warn_if_seen(found)

    def _warn_if_seen(self, found: pretrained.Pretrained | pretrained.Shipped) -> None:
        held = [sample.name for sample in self.validation]
        everything = sorted([*self.training, *self.validation], key=lambda sample: sample.name)
        if warning := pretrained.flattered(found, held, everything, self.config.data):
            self._say(f"warning: {warning}")

    def _say(self, remark: str) -> None:
        if not self._quiet:
            print(remark)

    def _check_same_run(self, state: Mapping[str, Any]) -> None:
        here, there = asdict(self.config), asdict(Config(**current(state["config"])))
        free = {*FREE_FIELDS, *(["samples"] if here["samples"] > there["samples"] else [])}
        differing = [name for name in here if name not in free and here[name] != there[name]]
        if differing:
            fields = ", ".join(f"{name} ({there[name]!r} there, {here[name]!r} here)" for name in differing)
            raise ResumeError(f"{self.checkpoint} is of another run: {fields}; choose another output folder")

    def _resume(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best = state["step"], state["best"]
        self._losses = state.get("losses", [])
        self.last, self._look_seconds = state.get("last", self.best), state.get("look_seconds", 0.0)
        self._settled, self._stale = state.get("settled", False), state.get("stale", 0)
        self._looked = state.get("looked", -1.0)
        self._saved = state.get("spent", 0.0)
        self.pace.resume(self._by_clock(state), self._saved)
        ended = state.get("scored", False)
        self.scored = ended and self.finished
        if ended and not self.finished:
            self._say(f"{self.checkpoint} has ended; there is more to see now, so it goes on from step {self.step}")

    def _by_clock(self, state: Mapping[str, Any]) -> float:
        """The progress in a checkpoint; of a run that has ended and gets more minutes, the share of them it has had."""
        kept: float = state.get("progress", 0.0)
        more = self.config.minutes > state["config"].get("minutes", 0.0)
        return self._saved / (60 * self.config.minutes) if kept >= 1 and more else kept

    def _log(self, **values: float) -> None:
        zeros = [stage.zeros for stage in self.network.bit_convolutions().values() if stage.kind in kinds.MASKED]
        rate = self.optimizer.param_groups[0]["lr"]
        seen = self.step * self.config.batch
        log.append(self.log, step=self.step, samples=seen, learning_rate=rate, zeros=max(zeros, default=0), **values)

    def _draw(self) -> None:
        """The run in pictures: its curves so far, and examples spread over the validation images."""
        figures.curves(self.log, self.out / "curves.png", self.class_log if self.config.classes else None)
        chosen = evenly(self.validation, EXAMPLES)
        images, masks = zip(*(sample.load(len(self.config.classes)) for sample in chosen), strict=True)
        predictions = [predict(self.network, image, self.config) for image in images]
        shown = [preprocess.in_8_bits(image, self.config.preprocessing) for image in images]
        figures.examples(shown, masks, predictions, self.out / "examples.png")


@torch.no_grad()
def logits_of(network: Network, image: Image, config: Config) -> Tensor:
    """Real logits [classes, h, w] of one image [h, w, 3] by the network's evaluation mode."""
    prepared = preprocess.preprocess(image, config.preprocessing)
    height, width = prepared.shape[:2]
    pixels = torch.from_numpy(preprocess.pad(prepared, network.padded(height, width)).transpose(2, 0, 1).copy())
    logits = network(pixels[None].to(network.device))[0, :, :height, :width]
    whole = preprocess.postprocess(logits.permute(1, 2, 0).cpu().numpy(), image.shape, config.preprocessing)
    return torch.from_numpy(whole).permute(2, 0, 1)


@torch.no_grad()
def predict(network: Network, image: Image, config: Config, threshold: float = 0.5) -> NDArray[Any]:
    """Mask [h, w] of one image [h, w, 3] by the network's evaluation mode: bool, or class indices uint8."""
    logits = logits_of(network, image, config)
    if len(logits) > 1:  # numpy's argmax, unlike torch's, promises the lowest class on ties
        classes: NDArray[np.uint8] = logits.numpy().argmax(0).astype(np.uint8)
        return classes
    mask: NDArray[np.bool_] = (torch.sigmoid(logits[0]) >= threshold).numpy()
    return mask


def validate(network: Network, items: Sequence[dataset.Sample], config: Config) -> metrics.Metrics:
    """Metrics of `network` in evaluation mode over whole images."""
    network.eval()
    counts: list[tuple[str, metrics.Counts]] = []
    for sample in items:
        image, mask = sample.load(len(config.classes))
        counts += metrics.by_class(predict(network, image, config), mask, config.classes)
    return metrics.summarize_classes(counts)


def evenly(items: Sequence[dataset.Sample], count: int) -> list[dataset.Sample]:
    """At most `count` of `items`, spread over them; all of them where `count` is 0."""
    return list(items[:: -(-len(items) // count)] if count else items)


def balanced(pixels: NDArray[np.int64]) -> list[float]:
    """Weights of classes of so many pixels: by the root of their rarity, 1 for the mean pixel; 0 for those absent."""
    roots = np.sqrt(pixels / max(int(pixels.sum()), 1))
    return [float(1 / (root * roots.sum())) if root else 0.0 for root in roots]


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _placed(network: Network, device: torch.device) -> Network:
    """`network` on `device`, channels last: the faster order of convolutions."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
