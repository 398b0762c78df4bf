"""Every setting of a training run, once: its default and its meaning; and the schedules that follow from them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from engine import ops
from engine.check import MAX_SIDE
from engine.images import Selection, read_selection
from engine.layer import Layer
from engine.model import CONTRASTS, Preprocessing
from engine.networks import multibranch, unet
from engine.networks.families import FAMILIES
from engine.train import families, kinds, metrics
from engine.train.data import augment

ZEROS_BY = ("layer", "cost")
PLACE = ("out", "device", "launch", "workers")
"""Where a run happens: it may go on elsewhere, with the same result but for how a device rounds."""

LAUNCHES = ("auto", "plain", "captured", "compiled")
PARTS = ("geometry", "color", "dice", "batch-norm-re-estimation")
"""Parts of the recipe: random scales, turns and flips; random colours; the loss's Dice term; the end of the run."""

BALANCED = ("balanced",)
OVERLAPS = ("dice", "tversky", "focal-tversky", "none")
"""What the loss adds to cross-entropy."""

AT_LEAST = {"width": 1, "minutes": 0, "early_stopping": 0, "validate_every": 1, "validate_on": 0,
            "save_every": 1, "workers": -1, "seed": 0, "run_seed": 0}  # fmt: skip
"""The least that a setting may be."""

DECAY = (32, 8, 4, 2)
"""Bits of weights and activations, one after another, before they are a network's own."""


GROUPS = {
    "data": "what is learned from, and how images are prepared",
    "recipe": "what is trained, from what, how long; without --full-precision or --bits-only the whole recipe, "
    "which takes what is not given of --width, --crop, --contrast, --resize, --activation-bits, --zeros, --foreground "
    "and --class-weights from the folder and the machine, and prints each with its reason",
    "network": "what is trained",
    "bits": "how weights and activations become bits, and weights zeros; nothing of it is of full precision",
    "sampling": "what a step sees",
    "optimization": "what a step does",
    "run": "repeating, looking, saving",
}
"""Every group of settings, and what it is about."""

MINUTES = 30.0
"""Of a whole recipe, where no budget is given."""


def _setting(default: float | str | tuple[str, ...], group: str, meaning: str, told: str = "{}") -> Any:
    """A setting of one of GROUPS; `told` is what help says of its default: nothing of a switch, which is off."""
    shown = " ".join(default) if isinstance(default, tuple) else str(default)
    about = "" if default is False else told.format(shown or "none")
    return field(default=default, metadata={"meaning": meaning, "group": group, "default": about})


@dataclass(frozen=True)
class Config:
    """One training run on `data` (images/ and masks/, or another layout) that leaves its files in `out`.

    The learning rate falls to zero over the budget along a cosine. Schedules are functions of a run's progress from 0
    to 1 (`engine.train.pace`). `zeros` are the final share of zero weights in masked layers: the same in each of them
    (`zeros_by` "layer"), or of all their products, most where an output pixel's products are many ("cost"). `seed`
    decides on the split, the weights and the crops; `run_seed` changes the latter two alone. A `teacher` may have
    any width and family. Masks are scored at the image's own size, whatever `resize` is.
    """

    data: str
    out: str
    family: str = _setting("mbu-net", "network", "the network: " + ", ".join(FAMILIES))
    width: int = _setting(
        32,
        "network",
        "channels of the first layer; 64 is the paper's network, half of it takes a quarter of the products",
    )
    activation_bits: int = _setting(
        0, "bits", "bits of an activation, 1 or 2; 0: the family's own, bfcn's 2, the others' 1"
    )
    weight_bits: int = _setting(1, "bits", "bits of a weight of bfcn, 1 or 2")
    branches: int = _setting(multibranch.BRANCHES, "network", "of every upsampling of multi-branch, 1 to 3")
    gates: str = _setting("both", "network", "attention of multi-branch: " + ", ".join(multibranch.GATES))
    masked: tuple[str, ...] = _setting(
        unet.BLOCKS,
        "bits",
        "masked blocks of mbu-net: names; as a flag also all, none, the N cheapest to mask, or auto, by --sweep-csv; "
        "of the other families all or none",
        told="all",
    )
    weights: tuple[str, ...] = _setting(
        (), "bits", "quantizer of masked weights, or BLOCK=QUANTIZER: " + ", ".join(kinds.ALL), told="masked"
    )
    classes: tuple[str, ...] = _setting(
        (),
        "data",
        "names of the classes of index masks, the background first",
        told="the folder's own; else masks are of one foreground",
    )
    class_name: str = _setting("foreground", "data", "name of the foreground of masks that have no classes")
    full_precision: bool = _setting(False, "recipe", "full precision alone: a checkpoint, to be a teacher")
    samples: int = _setting(
        24000,
        "recipe",
        "the budget: samples seen in all, each a crop",
        told="{} of one part alone; the whole recipe goes by the clock",
    )
    minutes: float = _setting(
        0.0,
        "recipe",
        "the budget by the clock, in place of samples",
        told=f"{MINUTES:g} of the whole recipe; one part alone goes by samples",
    )
    batch: int = _setting(
        4, "sampling", "samples in one step; more need more memory, and give fewer steps for the same budget"
    )
    crop: int = _setting(
        192,
        "sampling",
        "side of a crop in pixels; what is larger than it is never seen whole",
    )
    learning_rate: float = _setting(1e-3, "optimization", "highest learning rate")
    foreground: float = _setting(
        0.0,
        "sampling",
        "share of crops made sure to show a class other than the background, rare ones as often as others",
    )
    empty: float = _setting(
        0.0,
        "sampling",
        "share of crops that show an empty part of an image, in its own contrast as an image of it alone would be",
    )
    augment: tuple[str, ...] = _setting(
        augment.PARTS, "sampling", "what may happen to a crop: " + ", ".join(augment.PARTS)
    )
    overlap: str = _setting("dice", "optimization", "what the loss adds to cross-entropy: " + ", ".join(OVERLAPS))
    missed: float = _setting(
        0.7, "optimization", "of Tversky's overlap: what a missed pixel counts, one too many counting the rest"
    )
    class_weights: tuple[str, ...] = _setting(
        (),
        "optimization",
        "weight of every class in cross-entropy, the background's first; or balanced, by the root of its rarity",
    )
    early_stopping: int = _setting(
        0, "optimization", "validations without a better one after which a run ends early; 0: it does not"
    )
    zeros: float = _setting(
        0.9, "bits", "share of zeros in masked layers at the end; a zero is a product that is not computed"
    )
    zeros_from: float = _setting(
        0.5,
        "bits",
        "share of zeros at the start, at most --zeros, to which it climbs over half of the run; that of the bits "
        "that a run begins from",
    )
    zeros_by: str = _setting(
        "layer", "bits", "layer: zero weights, alike in every layer; cost: zero products of all together"
    )
    annealing: float = _setting(
        0.4,
        "bits",
        "share of the run in which activations go from a line, which has gradients, to bits; 0 where they are bits",
    )
    bit_decay: float = _setting(
        0.0, "bits", "share of the run in which weights and activations fall from 32 bits over 8, 4 and 2 to their own"
    )
    contrast: str = _setting("none", "data", "none, or stretch every image to its own grey range")
    channel: str = _setting(
        "",
        "data",
        "channel of images that have several, from 0, or max; by default the model's own, or the first",
        told="",
    )
    page: str = _setting(
        "",
        "data",
        "page of images that have several, from 0, or max; by default the model's own, or the first",
        told="",
    )
    resize: int = _setting(0, "data", "side that every image is resized to first; 0: images keep their size")
    keep_aspect: bool = _setting(
        False, "data", "where images are resized: their longer side to that, the other in proportion"
    )
    validation: float | str = _setting(
        0.2, "data", "share of the samples that no training step sees, or a folder of them"
    )
    group: str = _setting(
        "",
        "data",
        "regular expression: samples in whose names it finds the same (its first parentheses, if any) stay together",
    )
    seed: int = _setting(0, "run", "of split, crops and weights")
    run_seed: int = _setting(0, "run", "of crops and weights alone: another run on the same split")
    ablate: tuple[str, ...] = _setting((), "recipe", "parts of the recipe to leave out: " + ", ".join(PARTS))
    init: str = _setting(
        "", "recipe", "checkpoint, model file or shipped model to start from; settings of its shape are then its own"
    )
    teacher: str = _setting("", "recipe", "full-precision checkpoint to learn from, of any width and family")
    validate_every: int = _setting(
        2000,
        "run",
        "steps between two looks at the validation images; the first comes early. By the clock the time decides",
    )
    validate_on: int = _setting(0, "run", "validation images that are looked at, evenly chosen; 0: all")
    save_every: int = _setting(500, "run", "steps between two checkpoints. By the clock the time decides")
    device: str = _setting("auto", "run", "torch device; auto: a GPU where there is one")
    launch: str = _setting(
        "auto",
        "run",
        "how steps are run: plain, one operation after another; compiled, of fused kernels; captured, on a GPU, each "
        "as a graph; auto: captured on a GPU, on a CPU compiled where the minutes are worth it",
    )
    workers: int = _setting(
        -1,
        "run",
        "processes that make batches, which are the same whatever their number; 0: the run itself does, in a thread",
        told="on a GPU the cores less two, at most 16; on a CPU 0",
    )

    def __post_init__(self) -> None:
        for name, least in AT_LEAST.items():
            if not getattr(self, name) >= least:  # not a number is not either
                raise ValueError(f"--{name.replace('_', '-')} is at least {least}, not {getattr(self, name)}")
        if self.minutes == math.inf:
            raise ValueError("--minutes is a number of minutes, not inf")
        stride = ops.stride(self.layers())
        if self.crop % stride or self.crop <= 0:
            raise ValueError(f"the side of a crop must be a multiple of {stride}, not {self.crop}")
        if self.resize % stride or not 0 <= self.resize <= MAX_SIDE:
            raise ValueError(f"images are resized to a multiple of {stride} up to {MAX_SIDE} pixels, not {self.resize}")
        if self.keep_aspect and not self.resize:
            raise ValueError("an aspect is kept where images are resized: give the side to which")
        if not 0 < self.batch <= self.samples:
            raise ValueError(f"a budget of {self.samples} samples gives no batch of {self.batch}")
        if self.contrast not in CONTRASTS:
            raise ValueError(f"contrast is {' or '.join(CONTRASTS)}, not {self.contrast!r}")
        if self.learning_rate <= 0 or not math.isfinite(self.learning_rate):
            raise ValueError(f"a learning rate is more than 0, not {self.learning_rate}")
        if self.launch not in LAUNCHES:
            raise ValueError(f"steps are launched {', '.join(LAUNCHES)}, not {self.launch}")
        if not (0 <= self.zeros < 1 and 0 <= self.zeros_from <= 1):
            raise ValueError(f"shares of zeros lie in [0, 1), not {self.zeros_from} to {self.zeros}")
        if not 0 <= self.annealing < 1:
            raise ValueError(f"the share of the run that anneals activations lies in [0, 1), not {self.annealing}")
        if not 0 <= self.bit_decay < 1:
            raise ValueError(f"the share of the run in which bits decay lies in [0, 1), not {self.bit_decay}")
        if not isinstance(self.validation, str) and not 0 < self.validation < 1:
            raise ValueError(f"the share held for validation lies between 0 and 1, not {self.validation}")
        read_selection(self.channel, self.page)
        try:
            re.compile(self.group)
        except re.error as error:
            raise ValueError(f"the group {self.group!r} is no regular expression: {error}") from None
        if self.zeros_by not in ZEROS_BY:
            raise ValueError(f"zeros are shared out by {' or '.join(ZEROS_BY)}, not by {self.zeros_by!r}")
        if unknown := [part for part in self.ablate if part not in PARTS]:
            raise ValueError(f"the recipe has no part {unknown[0]!r}; there are {', '.join(PARTS)}")
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes are two or more different names, not {', '.join(self.classes)}")

        self._check_loss()

    def _check_loss(self) -> None:
        if not 0 <= self.foreground <= 1:
            raise ValueError(f"the share of crops that show foreground lies in [0, 1], not {self.foreground}")
        if not 0 <= self.empty <= 1:
            raise ValueError(f"the share of crops that show an empty part lies in [0, 1], not {self.empty}")
        if self.empty and 0 in metrics.scored(self.classes):
            raise ValueError(f"an empty part shows the first class, and {self.classes[0]} is none that means nothing")
        if unknown := [part for part in self.augment if part not in augment.PARTS]:
            raise ValueError(f"a crop has no {unknown[0]!r}; there are {', '.join(augment.PARTS)}")
        if self.overlap not in OVERLAPS:
            raise ValueError(f"no overlap {self.overlap!r}; there are {', '.join(OVERLAPS)}")
        if not 0 < self.missed < 1:
            raise ValueError(f"what a missed pixel counts lies between 0 and 1, not {self.missed}")
        if self.class_weights and self.class_weights != BALANCED:
            count = max(len(self.classes), 2)
            numbers = [float(text) for text in self.class_weights if _is_weight(text)]
            if not len(numbers) == len(self.class_weights) == count:
                raise ValueError(f"weights are {count} numbers from 0 on, or balanced, not {self.class_weights}")

    def layers(self) -> list[Layer]:
        """The network's layers; `weights` of a layer of bits names the quantizer that it is trained with."""
        return families.layers(self)

    @property
    def share(self) -> float:
        """Of the samples held for validation; 0 where they have a folder of their own."""
        return 0.0 if isinstance(self.validation, str) else self.validation

    @property
    def augmented(self) -> tuple[str, ...]:
        """What may happen to a crop, less what the run ablates."""
        gone = (augment.GEOMETRY if "geometry" in self.ablate else set()) | (
            augment.COLOR if "color" in self.ablate else set()
        )
        return tuple(part for part in self.augment if part not in gone)

    def settled_at(self, progress: float) -> bool:
        """Whether the network is what it will be: its zeros and bits are those of the end."""
        final = self.zeros_at(progress) == self.zeros and self.annealed_at(progress) == 1 and not self.bits_at(progress)
        return self.full_precision or final

    @property
    def ramp(self) -> kinds.Ramp:
        """How levels are made of what batch norm gives."""
        return families.ramp(self)

    @property
    def selection(self) -> Selection:
        """Which channel and page of images that have several are learned from."""
        return read_selection(self.channel, self.page)

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are fitted to the network, and what is taken of them, in training and in the model file."""
        mode = "pad" if not self.resize else "aspect" if self.keep_aspect else "resize"
        return Preprocessing(mode, self.resize, self.resize, self.contrast, self.channel, self.page)

    @property
    def steps(self) -> int:
        """Weight updates in the whole run, where its budget is one of samples."""
        return self.samples // self.batch

    def learning_rate_at(self, progress: float) -> float:
        """Learning rate: a linear warm-up over 3 % of the run, then half a cosine down to zero."""
        return self.learning_rate * (min(progress / 0.03, 1.0) * 0.5 * (1 + math.cos(math.pi * progress)))

    def annealed_at(self, progress: float) -> float:
        """How far activations are bits: from 0 to 1 along a line over the share `annealing` of the run.

        Where bits decay, they are what they are from the start.
        """
        return min(1.0, progress / self.annealing) if self.annealing and not self.bit_decay else 1.0

    def bits_at(self, progress: float) -> int:
        """Bits of weights and activations: DECAY's, for equal shares of `bit_decay`; 0 once they have their own."""
        stage = int(len(DECAY) * progress / self.bit_decay) if self.bit_decay else len(DECAY)
        return DECAY[stage] if stage < len(DECAY) else 0

    def zeros_at(self, progress: float) -> float:
        """Share of zeros: climbs from `zeros_from` to `zeros` along a cubic over the first half of the run.

        Where it would fall, it is `zeros` from the start.
        """
        left = max(0.0, 1 - 2 * progress) ** 3
        return self.zeros - max(0.0, self.zeros - self.zeros_from) * left


def _is_weight(text: str) -> bool:
    try:
        return 0 <= float(text) < math.inf
    except ValueError:
        return False
