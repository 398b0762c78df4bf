"""The CUDA kernels without a GPU: their index arithmetic, and their own source run by an emulated thread block."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cases import CASES, MIXED, Case, same
from tests.native.replay import NATIVE, encode, replay
from tests.native.sources import ROOT

# one batch of one padded shape each, and nothing that takes emulation long; the last has tensors of 64 to 512 channels
LARGE = (
    *("512 x 512", "wide", "batch over eight lanes", "batch of mixed shapes", "sixteen channels, dense"),
    *("two groups, one not full", "tiles half as wide", "batch of tiles half as wide", "more than 32 tiles a row"),
)
EMULATED = [
    *(case for case in CASES if case.name not in LARGE),
    Case("the paper's width", ((16, 16),), width=64, masked=MIXED, zeros=0.8),
]
FLAGS = ("-std=c++20", "-O2", "-march=native", "-Wall", "-Wextra", "-Werror", "-U_FORTIFY_SOURCE", f"-I{NATIVE}")


def compile_to(out: Path, *sources: str) -> Path:
    files = [str(ROOT / source) for source in sources]
    subprocess.run(["g++", *FLAGS, "-o", str(out), *files], check=True)
    return out


def says(program: Path) -> tuple[str, int]:
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    return result.stdout, result.returncode


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    native = ("tests/native/emulated_launch.cpp", "tests/native/cuda_replay.cpp")
    return compile_to(tmp_path_factory.mktemp("cuda") / "replay", "csrc/network.cpp", "csrc/cuda/layer.cpp", *native)


def test_index_arithmetic(tmp_path: Path) -> None:
    program = compile_to(tmp_path / "index", "csrc/cuda/layer.cpp", "tests/native/cuda_index.cpp")
    assert says(program) == ("holds\n", 0)


def test_instructions_are_the_documented_ones(tmp_path: Path) -> None:
    """The emulated products and ldmatrix have the fragments that the PTX ISA writes down, element by element."""
    assert says(compile_to(tmp_path / "fragments", "tests/native/cuda_fragments.cpp")) == ("holds\n", 0)


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90"])
def test_logits_equal_the_reference(program: Path, architecture: str) -> None:
    results = replay([str(program)], architecture, 1, EMULATED)
    for case, logits in zip(EMULATED, results, strict=True):
        assert same(logits, case.expected()), case.name


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90"])
def test_every_barrier_and_every_wait_is_needed(program: Path, architecture: str) -> None:
    """Left out of the kernels, each gives wrong bits or an error. Turing copies at once and has no waits."""
    case = Case("masked", ((32, 32),), width=8, masked=MIXED)
    command, data = [str(program), "mutate"], encode(architecture, 1, [case])
    answer = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True)
    caught: dict[str, int] = {}
    for line in answer.stdout.decode().splitlines():
        site, count, *_ = line.split()
        caught[site] = int(count)
    assert {site.partition(":")[0] for site in caught} == {"conv.hpp", "stem.hpp"}
    assert len(caught) == _written_sites(" barrier();", *([] if architecture == "sm_75" else [" cp_async_wait<"]))
    assert all(caught.values()), caught


def _written_sites(*kinds: str) -> int:
    """How many of these stand in the kernels' sources."""
    sources = [path.read_text() for path in (ROOT / "csrc/cuda").glob("*.hpp") if path.name != "ptx.hpp"]
    return sum(source.count(kind) for source in sources for kind in kinds)
