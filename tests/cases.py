"""The cases on which every backend must give the reference's bits: networks, image sizes, batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from engine import ops, preprocess
from engine.backends import reference
from engine.model import Model
from engine.networks import unet
from tests.models import random_model
from tests.random_networks import random_layers

Pixels = NDArray[np.uint8]
Logits = NDArray[np.int32]


@dataclass(frozen=True)
class Case:
    """A random network and the sizes (height, width) of the images that go through it as one batch.

    The network is MBU-Net, or where there is a `seed` what `random_layers` draws by it, of up to `channels` channels.
    """

    name: str
    sizes: tuple[tuple[int, int], ...]
    width: int = 3
    outputs: int = 1
    masked: tuple[str, ...] = unet.BLOCKS
    zeros: float = 0.5
    seed: int | None = None
    channels: int = 9

    @property
    def model(self) -> Model:
        """The random network; equal for equal cases."""
        return _model(self.width, self.outputs, self.masked, self.zeros, self.seed, self.channels)

    @property
    def classes(self) -> int:
        """Logits of a pixel."""
        return self.model.layers[-1].channels

    @property
    def images(self) -> list[Pixels]:
        """Random images, smooth enough that deep layers see more than noise."""
        rng = np.random.default_rng(7)
        return [_image(rng, height, width) for height, width in self.sizes]

    def expected(self) -> list[Logits]:
        """Logits int32 [h, w, classes] of every image by the reference, each by itself."""
        return [_expected(self, i) for i in range(len(self.sizes))]


MIXED = ("Down2", "Down4", "CT1", "CT3", "Up1", "Up4")

CASES = [
    Case("binary", ((48, 32),), masked=()),
    Case("masked", ((48, 32),)),
    Case("mixed", ((48, 32),), masked=MIXED),
    Case("five channels", ((48, 32),), width=5, masked=MIXED),
    Case("sixteen channels, dense", ((32, 32),), width=16, masked=()),
    Case("sixteen channels, 90 % zeros", ((32, 32),), width=16, zeros=0.9),
    Case("nineteen channels, 98 % zeros", ((32, 16),), width=19, zeros=0.98),
    Case("three classes", ((48, 32),), outputs=3, masked=MIXED),
    Case("one pixel", ((1, 1),), masked=MIXED),
    Case("odd size", ((61, 83),), masked=MIXED),
    Case("one row", ((1, 70),)),
    Case("one column", ((150, 1),)),
    Case("wide", ((130, 300),), masked=MIXED),
    Case("512 x 512", ((512, 512),), width=2, masked=MIXED),
    Case("batch of three", ((40, 40), (33, 48), (48, 40)), masked=MIXED),
    Case("batch of mixed shapes", ((40, 40), (16, 100), (33, 48)), masked=MIXED),
    Case("batch over eight lanes", ((16, 16),) * 11, masked=MIXED, outputs=2),
    Case("two groups, one not full", ((500, 470),), width=2, masked=MIXED),  # 960 tiles
    Case("tiles half as wide", ((384, 397),), width=2, masked=MIXED),  # 2400 of them instead of 600: less is idle
    Case("batch of tiles half as wide", ((100, 90),) * 9, width=2, masked=MIXED),  # 1512 of them instead of 378
    Case("more than 32 tiles a row", ((20, 1100),), masked=MIXED),
    Case("batch of tall images", ((270, 20),) * 3, masked=MIXED),
]


def same(got: Sequence[Logits], expected: Sequence[Logits]) -> bool:
    """Whether both hold the same integers in the same shapes."""
    return len(got) == len(expected) and all(
        a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all()) for a, b in zip(got, expected, strict=True)
    )


def random_case(seed: int) -> Case:
    """Any layer list on a batch of one to three images of one padded shape, mostly small and of odd sizes."""
    rng = np.random.default_rng(seed)
    zeros = float(rng.choice([0.2, 0.5, 0.9]))
    height, width = (int(side) for side in rng.integers(1, 60, 2))
    stride = ops.stride(random_layers(seed))
    sizes = [(height, width)]
    for _ in range(rng.integers(3)):
        sizes.append((_same_padding(rng, height, stride), _same_padding(rng, width, stride)))
    return Case(f"random {seed}", tuple(sizes), zeros=zeros, seed=seed)


def _same_padding(rng: np.random.Generator, side: int, stride: int) -> int:
    """Any length that is padded to what `side` is padded to."""
    padded = -(-side // stride) * stride
    return int(rng.integers(padded - stride + 1, padded + 1))


@cache
def _model(width: int, classes: int, masked: tuple[str, ...], zeros: float, seed: int | None, channels: int) -> Model:
    if seed is None:
        return random_model(width, classes, masked, zeros, seed=width)
    return random_model(layers=random_layers(seed, channels=channels), zeros=zeros, seed=seed)


@cache
def _expected(case: Case, index: int) -> Logits:
    image = case.images[index]
    height, width = image.shape[:2]
    return reference.run(case.model, preprocess.pad(image, case.model.padded(height, width))).logits[:height, :width]


def _image(rng: np.random.Generator, height: int, width: int) -> Pixels:
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3))
    smooth = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    noisy: Pixels = np.clip(smooth + rng.integers(-40, 41, smooth.shape), 0, 255).astype(np.uint8)
    return noisy


def covering(cases: Sequence[Case]) -> list[Case]:
    """Some of `cases` in which every form of an operation occurs that any of them has, chosen for little work."""
    forms = {case: _forms(case.model) for case in cases}
    missing, chosen = set[Form]().union(*forms.values()), list[Case]()
    while missing:
        chosen.append(max(cases, key=lambda case: len(forms[case] & missing) / _work(case)))
        missing -= forms[chosen[-1]]
    return chosen


Form = tuple[object, ...]


def _forms(model: Model) -> set[Form]:
    """In which forms the model has its operations."""
    forms: set[Form] = set()
    for before, layer in zip(model.layers[:-1], model.layers[1:], strict=True):
        read = model.inputs(layer)
        shape = (layer.kernel, layer.up, layer.weights, layer.segments > 1, bool(layer.residual))
        forms.add((layer.op, *shape, read[0].planes, read[0].encoding))
        forms.add((layer.op, layer.planes, layer.encoding, layer.weights, len(layer.inputs), layer.segments))
        if layer.op == "pool":
            forms.add(("pool", layer.planes, layer.inputs == (before.name,), before.op, before.up))
        if layer.op == "gate":
            forms.add(("gate", layer.planes, read[1].channels > 1))
        if layer.op == "head":
            forms.add(("head", layer.doublings, layer.channels > 1, read[0].planes))
    return forms


def _work(case: Case) -> int:
    """About how long a case takes: tiles of 8 x 16 positions times sums over 256 inputs."""
    height, width = case.model.padded(*case.sizes[0])
    work = 0
    for layer in case.model.layers:
        finest = case.model.inputs(layer)[0]
        tiles = -(-height // finest.stride // 8) * -(-width // finest.stride // 16) * len(case.sizes)
        sums = layer.segments * finest.planes * layer.up**2 * (2 if layer.weights == "masked" else 1)
        work += tiles * (4 + sums * layer.kernel**2)
    return work


RANDOM = [random_case(seed) for seed in range(400)]
"""Networks in which every operation and option occurs, see tests/engine/backends/test_random.py."""
