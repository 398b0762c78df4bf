"""The count of NEON instructions counts what is there."""

from __future__ import annotations

import pytest

from tests.bench import neon
from tests.native.neon import COMPILER, DISASSEMBLER, require

LISTING = "\n".join(
    [
        "0000000000000010 <count(int)>:",
        "  10:\taa0103e2 \tmov\tx2, x1",
        *(f"  {0x14 + 4 * i:x}:\t3dc00000 \tldr\tq{i}, [x{i % 8}, x9]" for i in range(14)),
        "  4c:\tad400000 \tldp\tq1, q2, [x3]",
        "  50:\t3dc003e0 \tldr\tq0, [sp, #16]",
        *(f"  {0x54 + 4 * i:x}:\t6e211c00 \teor\tv0.16b, v0.16b, v1.16b" for i in range(16)),
        "  94:\t54ffff61 \tb.ne\t14 <count(int)+0x4>  // b.any",
        "  98:\t17fffff0 \tcbnz\tw0, 10 <count(int)>",
        "  9c:\td65f03c0 \tret",
    ]
)


def test_a_loop_is_counted() -> None:
    """14 + 1 loads of 16 vectors, one of a spilled register, 16 exclusive ors, a branch; the outer loop is left out."""
    (loop,) = neon.counting_loops(LISTING)
    assert (loop.instructions, loop.inputs) == (33, 16)
    assert loop.per_thousand == pytest.approx(33 / 16 / 128 * 1000)


def test_the_kernels_inner_loops_stay_short() -> None:
    """A load and three logic instructions to an input are the least; taps and spills may cost twice as much again."""
    require("NEON instructions", COMPILER, DISASSEMBLER)
    loops = neon.counting_loops(neon.disassemble())
    assert loops
    best = min(loop.per_thousand for loop in loops)
    assert 4 / 128 * 1000 < best < 3 * 4 / 128 * 1000
