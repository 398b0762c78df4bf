"""The NEON kernels under emulation: the session cross-compiled for aarch64 gives the reference's bits."""

from __future__ import annotations

import pytest

from tests.cases import CASES, RANDOM, same
from tests.native import neon
from tests.native.replay import replay

# one batch of one padded shape each, and nothing that takes emulation minutes
LARGE = ("512 x 512", "two groups, one not full", "batch of mixed shapes")
EMULATED = [*(case for case in CASES if case.name not in LARGE), *RANDOM[::8]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    neon.require("the NEON kernels", neon.COMPILER, neon.EMULATOR)
    return neon.build_replay(tmp_path_factory.mktemp("neon") / "replay")


@pytest.mark.parametrize("kernel", ["neon", "portable"])
def test_logits_equal_the_reference(program: list[str], kernel: str) -> None:
    results = replay(program, kernel, 2, EMULATED)
    for case, logits in zip(EMULATED, results, strict=True):
        assert same(logits, case.expected()), case.name
