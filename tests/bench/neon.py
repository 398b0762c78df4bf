"""`python -m tests.bench.neon`: instructions per 1,000 non-zero products in the NEON kernel's inner loops.

Counted, not timed: csrc/cpu/kernels/neon.cpp is cross-compiled and disassembled. A loop is what lies between a branch
backwards and its target; an input is a vector loaded from anywhere but the stack, 128 positions of one non-zero weight.
Both ways of a branch (weights +1 and -1) are counted, instructions and inputs alike, so their ratio stands.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.native.neon import COMPILER, DISASSEMBLER
from tests.native.sources import LISTS

(SOURCE,) = LISTS["aarch64_sources"]
POSITIONS = 128  # of a vector
BLOCK = 16  # inputs that a counting loop adds at least in one go

LINE = re.compile(r"^\s*([0-9a-f]+):\t[0-9a-f]+\s*\t(\S+)(?:\s+(.*))?$")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where a branch within the function leads."""
        found = re.search(r"(?:^|\s)([0-9a-f]+) <", self.operands) if self.name[0] in "bct" else None
        return int(found[1], 16) if found and self.name not in ("bl", "blr") else None

    @property
    def inputs(self) -> int:
        """Vectors that it loads, the stack's excepted: those are spilled registers."""
        if not self.name.startswith("ld") or "[sp" in self.operands or "[x29" in self.operands:
            return 0
        registers, _, _ = self.operands.partition("[")
        return len(re.findall(r"\b(?:q\d+|v\d+\.16b)", registers))


@dataclass(frozen=True)
class Loop:
    function: str
    instructions: int
    inputs: int
    flips: int  # exclusive ors: a carry-save addition has two

    @property
    def counts(self) -> bool:
        """Whether it adds what it loads."""
        return self.inputs >= BLOCK and self.flips >= self.inputs

    @property
    def per_thousand(self) -> float:
        """Instructions per 1,000 non-zero products."""
        return 1000 * self.instructions / (self.inputs * POSITIONS)


def main() -> None:
    """Print every counting loop."""
    print(f"{'instructions':>12}{'inputs':>8}{'per 1,000 products':>20}  function")
    for loop in counting_loops(disassemble()):
        print(f"{loop.instructions:>12}{loop.inputs:>8}{loop.per_thousand:>20.1f}  {loop.function[:80]}")


def disassemble() -> str:
    """The NEON kernels as the build compiles them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "neon.o"
        command = [COMPILER, "-std=c++20", "-O3", "-DNDEBUG", "-fPIC", "-c", str(SOURCE), "-o", str(out)]
        subprocess.run(command, check=True)
        return subprocess.run(
            [DISASSEMBLER, "-d", "-C", str(out)], check=True, stdout=subprocess.PIPE, text=True
        ).stdout


def counting_loops(listing: str) -> list[Loop]:
    """Innermost loops that add BLOCK vectors or more, the roofline's own (Kernels::peak) left out."""
    kept = [(name, body) for name, body in functions(listing) if "::peak(" not in name]
    return [loop for name, body in kept for loop in innermost(name, body)]


def functions(listing: str) -> list[tuple[str, list[Instruction]]]:
    found: list[tuple[str, list[Instruction]]] = []
    for line in listing.splitlines():
        if head := FUNCTION.match(line):
            found.append((head[1], []))
        elif (match := LINE.match(line)) and found:
            found[-1][1].append(Instruction(int(match[1], 16), match[2], match[3] or ""))
    return found


def innermost(name: str, body: Sequence[Instruction]) -> list[Loop]:
    """Counting loops of a function that hold no other."""
    spans = {(b.target, b.address) for b in body if b.target is not None and b.target <= b.address}
    loops = {}
    for first, last in spans:
        inside = [instruction for instruction in body if first <= instruction.address <= last]
        flips = sum(instruction.name == "eor" and "v" in instruction.operands for instruction in inside)
        loops[first, last] = Loop(name, len(inside), sum(instruction.inputs for instruction in inside), flips)
    counting = {span for span, loop in loops.items() if loop.counts}
    return [
        loops[span]
        for span in sorted(counting)
        if not any(other != span and span[0] <= other[0] and other[1] <= span[1] for other in counting)
    ]


if __name__ == "__main__":
    main()
