"""The NEON kernels on another machine: cross-compiled for aarch64, run by an emulator, disassembled."""

from __future__ import annotations

from pathlib import Path

from tests.native import tools
from tests.native.replay import build

COMPILER, DISASSEMBLER = "aarch64-linux-gnu-g++", "aarch64-linux-gnu-objdump"
EMULATOR = "qemu-aarch64-static"


def require(what: str, *needed: str) -> None:
    """Skip the test, or fail where MBUNET_REQUIRE_NEON is set, unless all tools are there."""
    tools.require(what, "MBUNET_REQUIRE_NEON", "Debian: qemu-user-static g++-aarch64-linux-gnu", *needed)


def build_replay(out: Path) -> list[str]:
    """Compile replay.cpp with the session to `out`; returns the command that runs it."""
    build(COMPILER, "aarch64", out, ["-static", "-Werror"])
    return [EMULATOR, str(out)]
