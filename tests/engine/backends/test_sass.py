"""The CUDA kernels' machine code on every architecture: native products of bits, no called helper, no spills.

What each instruction reads and adds is tested under emulation (test_cuda_kernels.py); here is what the compiler made.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest

from tests.native import cuda
from tests.native.sources import ROOT

BINARY = {  # architecture: the instruction that multiplies bits there
    75: "BMMA.88128.XOR.POPC",
    **dict.fromkeys((80, 86, 87, 89), "BMMA.168256.XOR.POPC"),
    90: "BMMA.168256.AND.POPC",
}
EMULATED = (120,)  # no product of bits in hardware: the compiler makes it of IMMA
REGISTERS = 128  # so that a multiprocessor holds two blocks of 256 threads, or four of 128


@dataclass(frozen=True)
class Code:
    """Of one kernel: its instructions without operands, registers, and bytes of stack and spills."""

    name: str
    instructions: list[str]
    registers: int
    stack: int

    def count(self, *beginnings: str) -> int:
        """How many instructions begin so."""
        return sum(instruction.startswith(beginnings) for instruction in self.instructions)


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> dict[int, list[Code]]:
    """The kernels of every architecture that this nvcc knows."""
    cuda.require("the machine code of the CUDA kernels")
    folder = request.config.cache.mkdir("cubins")
    known = {int(number) for number in re.findall(r"\d+", _output("nvcc", "--list-gpu-code"))}
    architectures = [number for number in (*BINARY, *EMULATED) if number in known]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(architectures, pool.map(lambda number: _compile(number, folder), architectures), strict=True))


def test_every_architecture_compiles(compiled: dict[int, list[Code]]) -> None:
    assert set(BINARY) <= set(compiled)
    names = [[code.name for code in codes] for codes in compiled.values()]
    assert all(sorted(some) == sorted(names[0]) for some in names)
    assert {"Pixels", "Conv", "Pool", "Head"} <= {re.sub("<.*", "", name) for name in names[0]}


@pytest.mark.parametrize("architecture", BINARY)
def test_products_of_bits_are_native(compiled: dict[int, list[Code]], architecture: int) -> None:
    for code in _convolutions(compiled[architecture]):
        assert code.count(BINARY[architecture]) > 0, code.name
        assert code.count("BMMA") == code.count(BINARY[architecture]), code.name
        assert code.count("IMMA") == 0, code.name


@pytest.mark.parametrize("architecture", BINARY)
def test_nothing_is_called_and_nothing_spills(compiled: dict[int, list[Code]], architecture: int) -> None:
    for code in compiled[architecture]:
        assert code.count("CALL", "JCAL") == 0, code.name
        assert code.count("LDL", "STL") == 0, code.name
        assert code.stack == 0, code.name
        assert 0 < code.registers <= REGISTERS, code.name


@pytest.mark.parametrize("architecture", BINARY)
def test_the_first_layer_multiplies_bytes(compiled: dict[int, list[Code]], architecture: int) -> None:
    """Its weights' high bytes have a sign, their low bytes have none."""
    (code,) = (code for code in compiled[architecture] if code.name == "Pixels")
    shape = "8816" if architecture == 75 else "16832"
    high, low = code.count(f"IMMA.{shape}.U8.S8"), code.count(f"IMMA.{shape}.U8.U8")
    assert high == low > 0
    assert code.count("IMMA") == high + low


@pytest.mark.parametrize("architecture", BINARY)
def test_results_need_no_atomics(compiled: dict[int, list[Code]], architecture: int) -> None:
    assert all(code.count("ATOM", "RED.") == 0 for code in compiled[architecture])


@pytest.mark.parametrize("architecture", [80, 86, 87, 89, 90])
def test_inputs_arrive_asynchronously_and_as_matrices(compiled: dict[int, list[Code]], architecture: int) -> None:
    for code in _convolutions(compiled[architecture]):
        assert code.count("LDGSTS") > 0, code.name
        assert code.count("LDSM") > 0, code.name


@pytest.mark.parametrize("architecture", EMULATED)
def test_where_products_of_bits_are_emulated(compiled: dict[int, list[Code]], architecture: int) -> None:
    """If this fails, a compiler has learnt them: the README's table and `BINARY` want a new row."""
    if architecture not in compiled:
        pytest.skip(f"this nvcc does not know sm_{architecture}")
    for code in _convolutions(compiled[architecture]):
        assert code.count("BMMA") == 0, code.name
        assert code.count("IMMA") > 0, code.name


def test_an_emulated_product_would_be_noticed(compiled: dict[int, list[Code]], tmp_path: Path) -> None:
    """XOR on sm_90, where only AND is native, has the call that the tests above look for."""
    (tmp_path / "xor.cu").write_text(XOR)
    (code,) = _disassemble(tmp_path / "xor.cu", 90, tmp_path)
    assert code.count("CALL") > 0
    assert code.count("BMMA.168256.XOR") == 0


XOR = """__global__ void kernel(int* c, const unsigned* a) {
    asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.xor.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};" : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]));
}"""


NUMBER = r"L[bi](\d+)E"  # a template's argument in a symbol


def _convolutions(codes: list[Code]) -> list[Code]:
    found = [code for code in codes if code.name.startswith("Conv")]
    assert len(found) > 3
    return found


def _compile(architecture: int, folder: Path) -> list[Code]:
    """The kernels' code; compiled anew only where sources or compiler have changed."""
    sources = [*sorted(cuda.KERNELS.parent.glob("*.[ch]*")), ROOT / "csrc/network.hpp"]
    state = hashlib.sha256(_output("nvcc", "--version").encode())
    for source in sources:
        state.update(source.read_bytes())
    own = folder / f"{architecture}-{state.hexdigest()[:16]}"
    for old in folder.glob(f"{architecture}-*"):
        if old != own:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
    own.mkdir(exist_ok=True)
    return _disassemble(cuda.KERNELS, architecture, own)


def _disassemble(source: Path, architecture: int, folder: Path) -> list[Code]:
    """Every kernel of a source. `folder` keeps machine code, what the assembler said of it, and the listing."""
    cubin, said, listing = folder / "code.cubin", folder / "said.txt", folder / "listing.txt"
    if not listing.exists():
        command = ["nvcc", "-std=c++20", f"-arch=sm_{architecture}", "-cubin", "-Xptxas=-v", "-o", str(cubin)]
        done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.write_text(done.stderr)
        listing.write_text(_output(_disassembler(), str(cubin)))
    used = _resources(said.read_text())
    bodies = re.split(r"^\s*\.section\s+\.text\.", listing.read_text(), flags=re.MULTILINE)[1:]
    found = []
    for body in bodies:
        symbol = body.split(",", 1)[0].strip().strip('"')
        instructions = re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", body, re.MULTILINE)
        found.append(Code(_short(symbol), instructions, *used[symbol]))
    assert found
    return found


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


def _disassembler() -> str:
    """nvdisasm of the Python package nvidia-cuda-nvdisasm: an installed CUDA may lack it."""
    try:
        paths = [file.locate() for file in files("nvidia-cuda-nvdisasm") or [] if file.name == "nvdisasm"]
    except PackageNotFoundError:
        pytest.fail("the package nvidia-cuda-nvdisasm is missing: pip install -e '.[dev]'")
    return str(paths[0])


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
