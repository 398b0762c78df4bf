"""Everything that defines one training run, and the schedules that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch

from engine import ops
from engine.check import MAX_SIDE
from engine.layer import Layer
from engine.model import Preprocessing
from engine.networks import unet
from engine.train import quantize

ZEROS_BY = ("layer", "cost")
PARTS = ("geometry", "color", "dice", "batch-norm-re-estimation")


@dataclass(frozen=True)
class Config:
    """One training run. `samples`, crops of images, are the budget; the learning rate falls to zero over it along
    a cosine.

    `data` holds images/ and masks/, `out` receives checkpoint, log and pictures. `init` and `teacher` are checkpoints:
    weights to start from, and a full-precision network of the same width to learn from. `validation` is the share of
    samples that no training step sees, `zeros` the final share of zero weights in masked layers: the same in each of
    them (`zeros_by` "layer"), or of all their products, most where an output pixel's products are many ("cost").
    `annealing` is the share of the run in which activations go from a line to bits; `*_every` count steps.

    `ablate` names parts of the recipe (of `PARTS`) to leave out, to see what each is worth: random scales, turns and
    flips; random colours; the Dice term of the loss; batch norm estimated anew at the end.

    `seed` decides on the split, the weights and the crops; another `run_seed` changes the latter two alone.

    With `resize` the network sees every image at that many pixels a side (0: at its own size), in training and after;
    masks are scored at the image's own size all the same.

    `weights` says how masked layers are quantised in place of our masking: one KIND (of `quantize.TERNARY` or
    `quantize.MULTIBIT`) for all, or BLOCK=KIND for some. `classes` names the classes of index masks, the background
    first; without any, masks are binary.
    """

    data: str
    out: str
    width: int = 32
    masked: tuple[str, ...] = unet.BLOCKS
    weights: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    full_precision: bool = False
    samples: int = 24000
    batch: int = 4
    crop: int = 192
    learning_rate: float = 1e-3
    zeros: float = 0.9
    zeros_from: float = 0.5
    zeros_by: str = "layer"
    annealing: float = 0.4
    contrast: str = "none"
    resize: int = 0
    validation: float = 0.2
    seed: int = 0
    run_seed: int = 0
    ablate: tuple[str, ...] = ()
    init: str = ""
    teacher: str = ""
    validate_every: int = 2000
    save_every: int = 500
    device: str = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")

    def __post_init__(self) -> None:
        stride = ops.stride(self.layers())
        if self.crop % stride or self.crop <= 0:
            raise ValueError(f"the side of a crop must be a multiple of {stride}, not {self.crop}")
        if self.resize % stride or not 0 <= self.resize <= MAX_SIDE:
            raise ValueError(f"images are resized to a multiple of {stride} up to {MAX_SIDE} pixels, not {self.resize}")
        if not 0 < self.batch <= self.samples:
            raise ValueError(f"a budget of {self.samples} samples gives no batch of {self.batch}")
        if not (0 <= self.zeros < 1 and 0 <= self.zeros_from < 1):
            raise ValueError(f"shares of zeros lie in [0, 1), not {self.zeros_from} to {self.zeros}")
        if not 0 <= self.annealing < 1:
            raise ValueError(f"the share of the run that anneals activations lies in [0, 1), not {self.annealing}")
        if not 0 < self.validation < 1:
            raise ValueError(f"the share held for validation lies between 0 and 1, not {self.validation}")
        if self.zeros_by not in ZEROS_BY:
            raise ValueError(f"zeros are shared out by {' or '.join(ZEROS_BY)}, not by {self.zeros_by!r}")
        if unknown := [part for part in self.ablate if part not in PARTS]:
            raise ValueError(f"the recipe has no part {unknown[0]!r}; there are {', '.join(PARTS)}")
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes are two or more different names, not {', '.join(self.classes)}")
        self.layers()

    def layers(self) -> list[Layer]:
        """The network's layers; `weights` of a masked layer names the quantiser that it is trained with."""
        flat = unet.layers(self.width, max(len(self.classes), 1), self.masked)
        parts = [entry.rpartition("=") for entry in self.weights]
        kinds = {block: kind for block, _, kind in parts}
        for block, kind in kinds.items():
            if kind not in (*quantize.TERNARY, *quantize.MULTIBIT):
                known = ", ".join((*quantize.TERNARY, *quantize.MULTIBIT))
                raise ValueError(f"no quantiser {kind!r} for weights; there are {known}")
            if block and block not in self.masked:
                raise ValueError(f"{block!r} is no masked block, so its weights cannot be {kind!r}")
        return [
            replace(layer, weights=kinds.get(layer.block, kinds.get("", "masked")))
            if layer.weights == "masked"
            else layer
            for layer in flat
        ]

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are fitted to the network, in training and in the model file."""
        if self.resize:
            return Preprocessing("resize", height=self.resize, width=self.resize, contrast=self.contrast)
        return Preprocessing(contrast=self.contrast)

    @property
    def steps(self) -> int:
        """Weight updates in the whole run."""
        return self.samples // self.batch

    def learning_rate_at(self, step: int) -> float:
        """Learning rate: a linear warm-up over 3 % of the run, then half a cosine down to zero."""
        progress = step / self.steps
        return self.learning_rate * (min(progress / 0.03, 1.0) * 0.5 * (1 + math.cos(math.pi * progress)))

    def annealed_at(self, step: int) -> float:
        """How far activations are bits: from 0 to 1 along a line over the share `annealing` of the run."""
        return min(1.0, step / (self.annealing * self.steps)) if self.annealing else 1.0

    def zeros_at(self, step: int) -> float:
        """Share of zeros: climbs from `zeros_from` to `zeros` along a cubic over the first half of the run."""
        left = max(0.0, 1 - 2 * step / self.steps) ** 3
        return self.zeros + (self.zeros_from - self.zeros) * left
