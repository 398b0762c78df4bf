"""The CUDA kernels' machine code: compiled, disassembled, kernel by kernel."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest

from tests.native.cuda import KERNELS
from tests.native.sources import ROOT


@dataclass(frozen=True)
class Code:
    """Of one kernel: its instructions without operands, registers, and bytes of stack and spills."""

    name: str
    instructions: list[str]
    registers: int
    stack: int
    loops: list[tuple[int, int]]  # of every branch back: places of the first instruction and of the branch

    @property
    def k_step(self) -> int:
        """Instructions of the innermost loop that multiplies."""
        turns = [self.instructions[first : last + 1] for first, last in self.loops]
        return min((_work(turn) for turn in turns if any("MMA" in name for name in turn)), default=0)

    @property
    def behind_products(self) -> int:
        """Instructions behind the last product."""
        last = max((i for i, name in enumerate(self.instructions) if "MMA" in name), default=-1)
        return _work(self.instructions[last + 1 :])

    @property
    def behind_wait(self) -> int:
        """From a wait for the kernel before to the first asynchronous copy: the most instructions."""
        waits = [i for i, name in enumerate(self.instructions) if name == "ACQBULK"]
        copies = [i for i, name in enumerate(self.instructions) if name.startswith("LDGSTS")]
        return max(min(copy for copy in copies if copy > wait) - wait - 1 for wait in waits)

    def count(self, *beginnings: str) -> int:
        """How many instructions begin so."""
        return sum(instruction.startswith(beginnings) for instruction in self.instructions)


def _work(instructions: list[str]) -> int:
    return sum(name != "NOP" for name in instructions)


NUMBER = r"L[bi](\d+)E"  # a template's argument in a symbol


def compiled(architecture: str, folder: Path) -> list[Code]:
    """The kernels' code; compiled anew only where sources or compiler have changed."""
    sources = [*sorted(KERNELS.parent.glob("*.[ch]*")), ROOT / "csrc/network.hpp"]
    state = hashlib.sha256(output("nvcc", "--version").encode())
    for source in sources:
        state.update(source.read_bytes())
    own = folder / f"{architecture}-{state.hexdigest()[:16]}"
    for old in folder.glob(f"{architecture}-*"):
        if old != own:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
    own.mkdir(exist_ok=True)
    return disassemble(KERNELS, architecture, own)


def disassemble(source: Path, architecture: str, folder: Path) -> list[Code]:
    """Every kernel of a source. `folder` keeps machine code, what the assembler said of it, and the listing."""
    cubin, said, listing = folder / "code.cubin", folder / "said.txt", folder / "listing.txt"
    if not listing.exists():
        command = ["nvcc", "-std=c++20", f"-arch=sm_{architecture}", "-cubin", "-Xptxas=-v", "-o", str(cubin)]
        done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.write_text(done.stderr)
        listing.write_text(output(_tool("nvdisasm"), str(cubin)))
    used = _resources(said.read_text())
    bodies = re.split(r"^\s*\.section\s+\.text\.", listing.read_text(), flags=re.MULTILINE)[1:]
    found = []
    for body in bodies:
        body = body.replace("CALL.REL.NOINC `(.L_", "BRA `(.L_")  # to the kernel's own end: what is called has a name
        symbol = body.split(",", 1)[0].strip().strip('"')
        instructions, loops = _instructions(body)
        found.append(Code(_short(symbol), instructions, *used[symbol], loops))
    assert found
    return found


def _instructions(body: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Names of instructions in their order, and the places of every loop: its first instruction and its branch back."""
    names: list[str] = []
    labels: dict[str, int] = {}
    loops = []
    line = r"^(?:(\.L\w+):|\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Za-z0-9_.]*)([^;]*);)"
    for label, name, operands in re.findall(line, body, re.MULTILINE):
        if label:
            labels[label] = len(names)
            continue
        target = re.search(r"`\((\.L\w+)\)", operands)
        if name.startswith("BRA") and target and target[1] in labels and labels[target[1]] < len(names):
            loops.append((labels[target[1]], len(names)))
        names.append(name)
    return names, loops


def _resources(said: str) -> dict[str, tuple[int, int]]:
    """(registers, bytes of stack and spills) by symbol, from what `ptxas -v` said."""
    used = {}
    stack = r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    pattern = rf"Compiling entry function '(\w+)' for .*?{stack}.*?Used (\d+) registers"
    for symbol, *sizes, registers in re.findall(pattern, said, re.DOTALL):
        used[symbol] = (int(registers), sum(map(int, sizes)))
    return used


def _short(symbol: str) -> str:
    """The kernel's name without namespaces, as in Conv<1,2,0>."""
    found = re.search(r"entryINS0_\d+([A-Za-z]+?)(?:I((?:L[bi]\d+E)+)E)?EE", symbol)
    if not found:
        return symbol
    name, parameters = found.groups()
    return name if parameters is None else f"{name}<{','.join(re.findall(NUMBER, parameters))}>"


def dump(module: Path) -> str:
    """What cuobjdump says of the machine code for GPUs in a library, whichever CPU that is for."""
    disassembler = Path(_tool("nvdisasm"))
    environment = os.environ | {"PATH": f"{disassembler.parent}:{os.environ['PATH']}"}
    command = [_tool("cuobjdump"), "-sass", str(module)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def _tool(name: str) -> str:
    """The program of the Python package nvidia-cuda-NAME: an installed CUDA may lack it."""
    package = f"nvidia-cuda-{name}"
    try:
        paths = [file.locate() for file in files(package) or [] if file.name == name]
    except PackageNotFoundError:
        pytest.fail(f"the package {package} is missing: pip install -e '.[dev]'")
    return str(paths[0])


def output(*command: str) -> str:
    """What the command says."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
