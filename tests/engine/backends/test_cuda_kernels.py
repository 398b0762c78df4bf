"""The CUDA kernels without a GPU: their index arithmetic, and their own source run by an emulated thread block."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.layer import IMAGE, Layer
from engine.model import Model
from tests.cases import CASES, MIXED, RANDOM, Case, covering, same
from tests.models import random_model
from tests.native import cuda
from tests.native.replay import Logits, encode, replay
from tests.native.sources import NATIVE, sources

ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
# one batch of one padded shape each, and nothing that takes emulation long; the last has tensors of 64 to 512 channels
LARGE = (
    *("512 x 512", "wide", "batch over eight lanes", "batch of mixed shapes", "sixteen channels, dense"),
    *("two groups, one not full", "tiles half as wide", "batch of tiles half as wide", "more than 32 tiles a row"),
)
EMULATED = [
    *(case for case in CASES if case.name not in LARGE),
    Case("the paper's width", ((16, 16),), width=64, masked=MIXED, zeros=0.8),
]
# any operation in any form, and with pixels of one to several words
WIDE = ((40, 3186), (70, 5689), (150, 3415))  # most channels of a tensor, seed; each has a gate of one channel
GENERAL = [
    *covering(RANDOM),
    *(Case(f"up to {most} channels", ((13, 21),), seed=seed, channels=most) for most, seed in WIDE),
]


class OneConvolution(Case):
    """Nothing but a convolution of `channels` to 64 channels between first layer and head."""

    @property
    def model(self) -> Model:
        """Its random network."""
        first = Layer("first", "stem", (IMAGE,), self.channels, "int16", 3)
        kind = "masked" if self.masked else "binary"
        return random_model(layers=[first, Layer("conv", "conv", ("first",), 64, kind, 3), HEAD])


HEAD = Layer("head", "head", ("conv",), 1, "int16", 1)
# of networks wide enough for products of warpgroups, which take 64 output channels
WARPGROUPS = [
    OneConvolution("128 channels", ((21, 37), (21, 37)), channels=128),
    OneConvolution("64 channels", ((40, 72),), channels=64),
    OneConvolution("64 channels, no zeros", ((40, 72),), channels=64, masked=()),
    OneConvolution("96 channels, no zeros", ((21, 37), (21, 37)), channels=96, masked=()),
    Case("40 channels", ((16, 32),), width=40, masked=MIXED),
    EMULATED[-1],
]


def says(program: Path) -> tuple[str, int]:
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    return result.stdout, result.returncode


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = (NATIVE / "emulated_launch.cpp", NATIVE / "cuda_replay.cpp")
    out = tmp_path_factory.mktemp("cuda") / "replay"
    return cuda.build_emulation(out, *sources("shared_sources"), *cuda.LAYER, *own)


def test_index_arithmetic(tmp_path: Path) -> None:
    program = cuda.build_emulation(tmp_path / "index", *cuda.LAYER, NATIVE / "cuda_index.cpp")
    assert says(program) == ("holds\n", 0)


def test_instructions_are_the_documented_ones(tmp_path: Path) -> None:
    """The emulated products and ldmatrix have the fragments that the PTX ISA writes down, element by element."""
    assert says(cuda.build_emulation(tmp_path / "fragments", NATIVE / "cuda_fragments.cpp")) == ("holds\n", 0)


@pytest.fixture(scope="module")
def replayed(program: Path) -> Iterator[dict[str, Future[list[list[Logits]]]]]:
    """Logits of every architecture, side by side, since an emulated block is one thread's work."""
    with ThreadPoolExecutor() as pool:
        yield {name: pool.submit(replay, [str(program)], name, 1, EMULATED + GENERAL) for name in ARCHITECTURES}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_the_reference(replayed: dict[str, Future[list[list[Logits]]]], architecture: str) -> None:
    for case, logits in zip(EMULATED + GENERAL, replayed[architecture].result(), strict=True):
        assert same(logits, case.expected()), case.name


def test_products_of_warpgroups_give_the_reference_s_logits(program: Path) -> None:
    for case, logits in zip(WARPGROUPS, replay([str(program)], "sm_90a", 1, WARPGROUPS), strict=True):
        assert same(logits, case.expected()), case.name


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_90a"])
def test_every_barrier_and_every_wait_is_needed(program: Path, architecture: str) -> None:
    """Left out of the kernels, each gives wrong bits or an error. Turing copies at once and has no waits."""
    case = Case("masked", ((32, 32),), width=8, masked=MIXED)
    files = {"bits.hpp", "main_loop.hpp", "resident_conv.hpp", "stem.hpp"}
    kinds = [" barrier();", " grid_dependency_wait("]
    if architecture == "sm_90a":
        case = OneConvolution("one convolution", ((16, 16),), channels=128)
        files |= {"warpgroup_conv.hpp", "warpgroup_sums.hpp"}
        kinds += WARPGROUP_SITES
    if architecture != "sm_75":
        kinds.append(" cp_async_wait<")
    command, data = [str(program), "mutate"], encode(architecture, 1, [case])
    answer = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True)
    caught: dict[str, int] = {}
    for line in answer.stdout.decode().splitlines():
        site, count, *_ = line.split()
        caught[site] = int(count)
    assert {site.partition(":")[0] for site in caught} == files
    assert len(caught) == _written_sites(files, *kinds)
    assert all(caught.values()), caught


WARPGROUP_SITES = [" wgmma_fence();", " wgmma_commit();", " wgmma_wait<", " fence_proxy_async();"]


def _written_sites(files: set[str], *kinds: str) -> int:
    """How many of these stand in these headers of the kernels."""
    headers = [(cuda.KERNELS.parent / name).read_text() for name in files]
    return sum(header.count(kind) for header in headers for kind in kinds)
