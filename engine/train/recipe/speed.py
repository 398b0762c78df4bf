"""How fast this machine is at a run: tried, not guessed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.train import export
from engine.train.config import Config
from engine.train.data import samples
from engine.train.data.dataset import Sample
from engine.train.network import Network
from engine.train.trainer import Trainer
from engine.train.validation import engine_of

STEPS = 3  # of training, after a first one that is not counted
EVALUATED = 256  # pixels a side


@dataclass(frozen=True)
class Speed:
    """Samples a second in training; pixels a second in evaluation, of full precision (`pixels`) and of bits, and in
    the proof of a model file."""

    samples: float
    pixels: float
    bits: float
    proven: float

    def evaluating(self, full_precision: bool) -> float:
        """Pixels a second in evaluation."""
        return self.pixels if full_precision else self.bits


def measure(config: Config) -> Speed:
    """Train some steps of `config` on noise, evaluate, and prove: what comes later, in small.

    On a CPU the steps are plain ones: those of fused kernels, which take minutes to build, come on top.
    """
    rng = np.random.default_rng(0)
    side = max(config.crop, config.resize)

    def noise(*_: object) -> samples.Loaded:
        return rng.integers(0, 256, (side, side, 3), np.uint8), rng.integers(0, 2, (side, side), np.uint8)

    with tempfile.TemporaryDirectory() as folder:
        run = Trainer(replace(config, out=folder, init="", launch="auto"), noise, quiet=True)
        return Speed(run.speed(STEPS), _evaluated(run, True), _evaluated(run, False), _proven(run))


def _evaluated(run: Trainer, full_precision: bool) -> float:
    config = replace(run.config, resize=0, keep_aspect=False, full_precision=full_precision)
    network = Network(run.network.layers, True, config.ramp).to(run.device) if full_precision else run.network
    image = np.zeros((EVALUATED, EVALUATED, 3), np.uint8)
    with engine_of(network, config) as engine:
        engine.run([image])  # the first one is slower than those that follow
        started = time.perf_counter()
        engine.run([image])
        return image.size / 3 / (time.perf_counter() - started)


def _proven(run: Trainer) -> float:
    network, classes = run.network.cpu().eval(), export.classes_of(run.config)
    model = export.to_model(network, run.config, name="speed", classes=classes, provenance={})
    images = export.proof_images(replace(run.config, data=""), None)
    started = time.perf_counter()
    export.prove(network, model, images)
    return sum(image.size / 3 for image in images) / (time.perf_counter() - started)


def evaluation_pixels(held: Sequence[Sample], config: Config) -> int:
    """Pixels that the network sees of the samples `held`, once."""
    if config.resize:
        return len(held) * config.resize**2
    return sum(width * height for width, height in (sample.size for sample in held))
