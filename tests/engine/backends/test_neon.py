"""The NEON kernels under emulation: the session cross-compiled for aarch64 gives the reference's bits."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.cases import CASES, same
from tests.native.replay import build, replay

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
# one batch of one padded shape each, and nothing that takes emulation minutes
LARGE = ("512 x 512", "two groups, one not full", "batch of mixed shapes")
EMULATED = [case for case in CASES if case.name not in LARGE]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    if missing:
        why = f"NEON is not tested without {' and '.join(missing)} (Debian: qemu-user-static g++-aarch64-linux-gnu)"
        if os.environ.get("MBUNET_REQUIRE_NEON"):
            pytest.fail(why)
        pytest.skip(why)
    out = tmp_path_factory.mktemp("neon") / "replay"
    build(COMPILER, "aarch64", out, ["-static", "-Werror"])
    return out


@pytest.mark.parametrize("kernel", ["neon", "portable"])
def test_logits_equal_the_reference(program: Path, kernel: str) -> None:
    results = replay([EMULATOR, str(program)], kernel, 2, EMULATED)
    for case, logits in zip(EMULATED, results, strict=True):
        assert same(logits, case.expected()), case.name
