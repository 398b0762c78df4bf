"""The trainer: random crops in, checkpoints, a CSV log and pictures out. Resumes where it was interrupted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine import whole
from engine.train import allocator, checkpoint, export, kinds, log, metrics, pretrained, resume, step, threads
from engine.train.batches import Batch, Batches, Load
from engine.train.config import BALANCED, Config
from engine.train.data import dataset, samples
from engine.train.data.files import DataError
from engine.train.estimate import reestimate
from engine.train.looks import Looks
from engine.train.loss import Loss
from engine.train.network import Network
from engine.train.pace import Clock, Pace
from engine.train.validation import evenly, validate
from engine.train.view import View

REFRESH_EVERY = 16  # steps between two looks at the masking thresholds
LOG_EVERY = 25  # steps
BATCH_NORM_SAMPLES = 256  # over which batch norm is estimated anew at the end
UNFOLD_SAMPLES = 64  # over which it is estimated at first, where a run begins from a model file
BATCH_NORM_SHARE = 0.1  # of the minutes of a run by the clock, at most
FIRST_STEPS, MORE_STEPS = 16, 40  # on a GPU, where a speed is measured: until a step is captured; times as many
FORWARD = 0.4  # of a training step's time, or less, is what a forward pass takes


class Interrupted(Exception):  # noqa: N818
    """A run that was asked to stop and has saved its state; the message says where."""


class DivergedError(ValueError):
    """A run whose loss is no number any more; its last checkpoint is from before."""


class Trainer:
    """`Trainer(config).run()` leaves checkpoint.pt, best.pt, log.csv, curves.png and examples.png in `config.out`.

    A checkpoint holds no masking thresholds: they follow from its weights and from the share of zeros at its step.
    They are taken anew before every save, so a resumed run gives the same bits as one that was never interrupted.
    Weights are the same for the same seed and number of threads (`threads.choose`), on which sums of floats depend.
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
        self.looks = Looks(config, self.pace)
        self.device = device_named(config.device)
        self.out = Path(config.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self._hold = whole.hold(self.out)
        self._view = View(config, quiet)
        torch.manual_seed(config.seed + (config.run_seed << 32))
        allocator.keep()
        torch.set_flush_denormal(True)  # vanishing gradients would cost a fifth of the time on CPUs
        state = checkpoint.read(self.checkpoint) if self.checkpoint.is_file() else {}
        if state:
            resume.check(self.checkpoint, state, config)
        self.training, self.validation, grown = resume.divide(
            self.checkpoint, config, pretrained.parts_of(state) or parts
        )
        if grown:
            self._view.say(f"{config.data} has grown: {grown}")
        if said := dataset.too_few(self.training, self.validation):
            raise DataError(f"{config.data}: {said}")
        if not state:
            export.check_ahead(config, dataset.Parts.of(self.training, self.validation))
        layers = config.layers()
        self.network = _placed(Network(layers, config.full_precision, config.ramp), self.device)
        self.batches = Batches(config, self.training, load, self.device)
        self.step = 0
        self.warnings: list[str] = []  # of scores that say little, or are flattered
        self._warn(dataset.lopsided(self.training, self.validation, config.share))
        if config.init and not state:
            self._begin(pretrained.load_any(config.init))
        self._train = step.Step(config, self.network, self._teacher(), lambda: self._loss, self._view.say)
        self.scored = False  # at the end, batch norm being re-estimated
        self._step_seconds = 0.0  # of late
        self._stepped = False
        self._losses: list[Tensor] = []  # since the last row of the log, where they were computed
        self._asked_to_stop = False
        if state:
            self._resume(state)
        self._view.forget(self.step)

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    @property
    def best_checkpoint(self) -> Path:
        """That of the best validation so far, once zeros and bits are those of the end."""
        return self.out / "best.pt"

    @property
    def log(self) -> Path:
        return self._view.log

    @property
    def class_log(self) -> Path:
        return self._view.class_log

    def run(self) -> metrics.Metrics:
        """Train what is left of the budget, re-estimate batch norm, save; returns the validation metrics.

        Where nothing was left before, it only scores.
        """
        if self.scored:
            self._set_zeros()
            return self._found()
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
        return self.progress >= 1 or self.looks.stops_early

    def fit(self) -> None:
        """Train what is left of the budget and re-estimate batch norm; the end of it is neither scored nor saved."""
        self._set_zeros()
        with self._view.bar(self.step, self.pace.spent) as bar:
            reported, since = time.monotonic(), self.step
            for pixels, labels in self._training_batches():
                self._losses.append(self._train_step(pixels, labels))
                self.step += 1
                self._count_time()
                self._view.move(bar, self.step, self.pace.spent)
                if self.step % LOG_EVERY == 0:
                    loss = float(np.mean(self._read_losses()))
                    speed = (self.step - since) * self.config.batch / (time.monotonic() - reported)
                    self._log(loss=loss, samples_per_second=speed)
                    bar.set_postfix(self._shown(loss, speed), refresh=False)
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
        """Samples a second that this machine trains at, by `steps` steps after first ones. They change the weights.

        On a GPU, where a step takes milliseconds, by MORE_STEPS times as many.
        """
        self._set_zeros()
        on_gpu = self.device.type == "cuda"
        first, steps = (FIRST_STEPS, steps * MORE_STEPS) if on_gpu else (1, steps)
        batches = (self.batches.augmented if on_gpu else self.batches.now)(range(first + steps))
        self._train_all(itertools.islice(batches, first))
        started = time.perf_counter()
        self._train_all(batches)
        return steps * self.config.batch / (time.perf_counter() - started)

    def _train_all(self, batches: Iterable[Batch]) -> None:
        """Learn from `batches`, all of them here, and wait for the end of it."""
        for pixels, labels in batches:
            loss = self._train(pixels, labels, self.progress)
        float(loss)

    def as_they_are(self) -> Iterator[Batch]:
        """Batches of BATCH_NORM_SAMPLES training crops that nothing has been done to."""
        return self.batches.as_they_are(range(self.step, self.step + -(-BATCH_NORM_SAMPLES // self.config.batch)))

    def _training_batches(self) -> Iterable[Batch]:
        """What is left of them: up to the last step, or by the clock without an end."""
        if self.finished:
            return ()
        seen = itertools.count(self.step) if self.config.minutes else range(self.step, self.config.steps)
        return self.batches.augmented(seen)

    def _train_step(self, pixels: Tensor, labels: Tensor) -> Tensor:
        if self.step % REFRESH_EVERY == 0:
            self._set_zeros()
        return self._train(pixels, labels, self.progress)

    def _read_losses(self) -> list[float]:
        """Those since the last row of the log. A GPU has then done all steps so far: that is waited for.

        Raises DivergedError where one is no number, before weights like that are saved.
        """
        found: list[float] = torch.stack(self._losses).tolist() if self._losses else []
        if not np.isfinite(found).all():
            raise DivergedError(
                f"the loss is no number any more at step {self.step}, so nothing is learned: choose a smaller "
                f"--learning-rate than {self.config.learning_rate:g} and another output folder"
            )
        return found

    def _set_zeros(self) -> None:
        self.network.set_zeros(self.config.zeros_at(self.progress), self.config.zeros_by)

    @cached_property
    def _loss(self) -> Loss:
        weights = step.class_weights(self.config, self.batches.loaded if self.config.class_weights else ())
        if self.config.class_weights == BALANCED:
            self._view.say("weights of the classes: " + ", ".join(f"{weight:.2f}" for weight in weights))
        return step.loss_of(self.config, weights, self.device)

    def _shown(self, loss: float, speed: float) -> dict[str, str]:
        shown = {"loss": f"{loss:.4f}", "samples_s": f"{speed:.1f}"}
        if self.looks.any:
            shown |= {"validation": f"{self.looks.last:.4f}", "best": f"{self.looks.best:.4f}"}
        if self.looks.never_found:
            shown["never found"] = " ".join(self.looks.never_found)
        return shown

    def _count_time(self) -> None:
        """By the clock, keep what the end will take: batch norm over its samples, and one more validation."""
        took = self.pace.advance()
        if self._stepped:  # a first step waits for the images to be read
            self._step_seconds = 0.9 * self._step_seconds + 0.1 * took if self._step_seconds else took
        self._stepped = True
        again = FORWARD * self._step_seconds * -(-BATCH_NORM_SAMPLES // self.config.batch)
        self.pace.tail = self.looks.seconds + min(again, self._batch_norm_seconds)

    @property
    def _batch_norm_seconds(self) -> float:
        """By the clock, the most that batch norm may take at the end."""
        return 60 * self.config.minutes * BATCH_NORM_SHARE

    def _reestimate_batch_norm(self) -> None:
        """Batch norm of the final weights, over crops as they are."""
        until = self.pace.now() + self._batch_norm_seconds
        batches = (pixels for pixels, _ in self.as_they_are())
        reestimate(self.network, batches, lambda: self.config.minutes > 0 and self.pace.now() > until)

    def _save_when_due(self) -> None:
        if self.looks.due(self.step, self.progress, self.step % REFRESH_EVERY == 0):
            self._validate_and_save()
        elif self.looks.save_due(self.step):
            self.save()

    def _stop_when_asked(self) -> None:
        if self._asked_to_stop and self.step % REFRESH_EVERY == 0:
            self.save()
            of_all = f", {self.progress:.0%} of the time" if self.config.minutes else f" of {self.config.steps}"
            raise Interrupted(
                f"stopped at step {self.step}{of_all}, saved in {self.checkpoint}; the same command goes on from there"
            )

    def _found(self) -> metrics.Metrics:
        return validate(self.network, evenly(self.validation, self.config.validate_on), self.config)

    def _validate_and_save(self) -> metrics.Metrics:
        self.pace.advance()
        self._set_zeros()
        found = self._found()
        better = self.looks.note(found, self.progress)
        self._log(dice=found.dice, iou=found.iou, f1=found.f1)
        self._view.scores(self.step, found)
        self._view.draw(self.network, self.validation)
        self.looks.looked()
        self.save(better)
        if self.config.minutes and self.device.type == "cpu":
            threads.choose()
        return found

    def _log(self, **values: float) -> None:
        zeros = [stage.zeros for stage in self.network.bit_convolutions().values() if stage.kind in kinds.MASKED]
        own = {"step": self.step, "samples": self.step * self.config.batch, "learning_rate": self._train.learning_rate}
        log.append(self.log, **own, zeros=max(zeros, default=0), **values)

    def save(self, best: bool = False) -> None:
        """Write the checkpoint, where it is the `best` that one first: a run that dies between goes on to it again."""
        self._set_zeros()
        parts = dataset.Parts.of(self.training, self.validation)
        state: dict[str, Any] = {"network": self.network.state_dict()}
        state |= {"optimizer": self._train.optimizer.state_dict()}
        state |= {"config": asdict(self.config), "step": self.step, "progress": self.progress}
        state |= {"losses": self._read_losses(), "scored": self.scored, **self.looks.state()}
        state["parts"] = {"training": sorted(parts.training), "validation": sorted(parts.validation)}
        for path in (self.best_checkpoint, self.checkpoint) if best else (self.checkpoint,):
            checkpoint.write(path, state)
        self.looks.saved()

    def _resume(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._train.resume(state["optimizer"])
        self.step = state["step"]
        self._losses = list(torch.tensor(state.get("losses", []), device=self.device))
        self.looks.resume(state, resume.more(state, self.config))
        self.pace.resume(resume.by_clock(state, self.config), state.get("spent", 0.0))
        ended = state.get("scored", False)
        self.scored = ended and self.finished
        if ended and not self.finished:
            anew = f", annealing anew; {self.best_checkpoint.name} stays until it is beaten"
            self._view.say(
                f"{self.checkpoint} has ended; there is more to see now, so it goes on from step {self.step}"
                + ("" if self.config.settled_at(self.progress) else anew)
            )

    def _begin(self, found: pretrained.Pretrained | pretrained.Shipped) -> None:
        few = itertools.islice(self.as_they_are(), -(-UNFOLD_SAMPLES // self.config.batch))
        for remark in pretrained.begin(self.network, found, self.config, (pixels for pixels, _ in few)):
            self._view.say(remark)
        self._warn_if_seen(found)

    def _teacher(self) -> Network | None:
        if not self.config.teacher:
            return None
        found = pretrained.load(self.config.teacher)
        teacher = _placed(pretrained.teacher(found, self.config), self.device)
        self._warn_if_seen(found)
        return teacher

    def _warn_if_seen(self, found: pretrained.Pretrained | pretrained.Shipped) -> None:
        held = [sample.name for sample in self.validation]
        everything = sorted([*self.training, *self.validation], key=lambda sample: sample.name)
        self._warn(pretrained.flattered(found, held, everything, self.config.data))

    def _warn(self, warning: str) -> None:
        if warning:
            self.warnings.append(warning)
            self._view.say(f"warning: {warning}")


def device_named(name: str) -> torch.device:
    """That of a setting: cpu, cuda, cuda:1 and so on, or auto, a GPU where there is one.

    Raises ValueError for what this machine has not.
    """
    gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or (device.index or 0) >= {"cpu": 1, "cuda": gpus}.get(device.type, 0):
        raise ValueError(f"no device {name!r} to train on; there are auto, cpu{_listed(gpus)}")
    return device


def _listed(gpus: int) -> str:
    return "".join(f", cuda:{index}" for index in range(gpus))


def _placed(network: Network, device: torch.device) -> Network:
    """`network` on `device`, channels last: the faster order of convolutions."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
