"""How fast this machine is at a run: tried, not guessed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from engine.train import export
from engine.train.config import Config
from engine.train.data import samples
from engine.train.data.dataset import Sample
from engine.train.evaluate import evaluate
from engine.train.network import Network
from engine.train.network_engine import logits_of
from engine.train.trainer import Trainer
from engine.train.validation import engine_of

STEPS = 3  # of training, after a first one that is not counted
EVALUATED = 256  # pixels a side


@dataclass(frozen=True)
class Speed:
    """How much is done in a second.

    Training sees `samples`. Of pixels as the network sees them full precision evaluates `pixels`, and `proven` are
    compared for the proof of a model file. Of images at their own size `bits` are read, segmented by bits and counted,
    `compared` with probabilities too.
    """

    samples: float
    pixels: float
    bits: float
    compared: float
    proven: float


def measure(config: Config, sample: Sample) -> Speed:
    """Train some steps of `config` on noise, evaluate, look at one `sample`, and prove: what comes later, in small.

    On a CPU the steps are plain ones: those of fused kernels, which take minutes to build, come on top.
    """
    rng = np.random.default_rng(0)
    side = max(config.crop, config.resize)

    def noise(*_: object) -> samples.Loaded:
        return rng.integers(0, 256, (side, side, 3), np.uint8), rng.integers(0, 2, (side, side), np.uint8)

    with tempfile.TemporaryDirectory() as folder:
        run = Trainer(replace(config, out=folder, init="", launch="auto"), noise, quiet=True)
        return Speed(run.speed(STEPS), _evaluated(run), *_looked_at(run, sample), _proven(run))


def _evaluated(run: Trainer) -> float:
    config = replace(run.config, resize=0, keep_aspect=False, full_precision=True)
    network = Network(run.network.layers, True, config.ramp).to(run.device).eval()
    image = np.zeros((EVALUATED, EVALUATED, 3), np.uint8)
    return EVALUATED**2 / _seconds(lambda: logits_of(network, image, config))


def _looked_at(run: Trainer, sample: Sample) -> tuple[float, float]:
    width, height = sample.size
    classes = run.config.classes
    with engine_of(run.network, run.config) as engine:
        look = partial(evaluate, engine, [sample], classes=classes)
        seconds = _seconds(look), _seconds(partial(look, otsu=not classes, closely=True))
    return width * height / seconds[0], width * height / seconds[1]


def _seconds(work: Callable[[], object]) -> float:
    """Of `work`, once it has been done before."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _proven(run: Trainer) -> float:
    network = run.network.cpu().eval()
    model = export.bare_model(network, run.config, "speed")
    images = export.proof_images(replace(run.config, data=""), None)
    started = time.perf_counter()
    export.prove(network, model, images)
    return sum(image.size / 3 for image in images) / (time.perf_counter() - started)


def own_pixels(held: Sequence[Sample]) -> int:
    """Pixels of the samples `held`."""
    return sum(width * height for width, height in (sample.size for sample in held))


def evaluation_pixels(held: Sequence[Sample], config: Config) -> int:
    """Pixels that the network sees of the samples `held`, once."""
    return len(held) * config.resize**2 if config.resize else own_pixels(held)
