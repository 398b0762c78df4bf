"""The CUDA kernels' machine code on every architecture: native products of bits, no called helper, no spills.

What each instruction reads and adds is tested under emulation (test_cuda_kernels.py); here is what the compiler made.
"""

from __future__ import annotations

import operator
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.native import cuda, sass
from tests.native.sass import Code

BINARY = {  # architecture: the instruction that multiplies bits there
    75: "BMMA.88128.XOR.POPC",
    **dict.fromkeys((80, 86, 87, 89), "BMMA.168256.XOR.POPC"),
    90: "BMMA.168256.AND.POPC",
}
EMULATED = (120,)  # no product of bits in hardware: the compiler makes it of IMMA
# Instructions of the kernels that MBU-Net runs on, as nvcc 13.0 makes them: what may only become less. A thread of
# Conv<masked, words, upsamples>, and of ResidentConv likewise, makes 32 outputs a word: counted are what a K step takes
# (of Stem, which has one, what an output word takes), and what there is behind the last product.
COUNTED_BY = "release 13.0"
COUNTED_FOR = (75, 80, 90)
COUNTED = {
    "ResidentConv<0,1,0>": ((62, 79), (38, 79), (33, 164)),
    "ResidentConv<0,1,1>": ((62, 101), (38, 102), (33, 182)),
    "ResidentConv<0,2,0>": ((96, 121), (48, 121), (43, 272)),
    "ResidentConv<0,2,1>": ((96, 138), (48, 140), (43, 285)),
    "ResidentConv<1,1,0>": ((78, 79), (30, 79), (38, 85)),
    "ResidentConv<1,1,1>": ((78, 102), (30, 101), (38, 103)),
    "ResidentConv<1,2,0>": ((146, 121), (50, 121), (58, 127)),
    "ResidentConv<1,2,1>": ((146, 138), (50, 139), (58, 140)),
    "Conv<0,1,0>": ((84, 105), (75, 107), (60, 181)),
    "Conv<0,1,1>": ((84, 103), (62, 105), (56, 185)),
    "Conv<0,2,0>": ((124, 153), (80, 155), (74, 290)),
    "Conv<0,2,1>": ((112, 150), (68, 151), (64, 289)),
    "Conv<1,1,0>": ((94, 105), (50, 111), (58, 110)),
    "Conv<1,1,1>": ((94, 105), (50, 113), (58, 113)),
    "Conv<1,2,0>": ((165, 153), (74, 154), (81, 154)),
    "Conv<1,2,1>": ((164, 150), (73, 150), (81, 152)),
    "Stem<1>": ((166, 31), (119, 49), (109, 46)),
}
REGISTERS = 128  # so that a multiprocessor holds two blocks of 256 threads, or four of 128


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> dict[int, list[Code]]:
    """The kernels of every architecture that this nvcc knows."""
    cuda.require("the machine code of the CUDA kernels")
    folder = request.config.cache.mkdir("cubins")
    known = {int(number) for number in re.findall(r"\d+", sass.output("nvcc", "--list-gpu-code"))}
    architectures = [number for number in (*BINARY, *EMULATED) if number in known]
    with ThreadPoolExecutor(2) as pool:
        return dict(
            zip(architectures, pool.map(lambda number: sass.compiled(number, folder), architectures), strict=True)
        )


def test_every_architecture_compiles(compiled: dict[int, list[Code]]) -> None:
    assert set(BINARY) <= set(compiled)
    names = [[code.name for code in codes] for codes in compiled.values()]
    assert all(sorted(some) == sorted(names[0]) for some in names)
    assert {"Stem", "Conv", "ResidentConv", "GeneralConv", "Pool", "Gate", "Head", "CoarseHead", "Doubling"} <= {
        re.sub("<.*", "", name) for name in names[0]
    }


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


@pytest.mark.parametrize("architecture", COUNTED_FOR)
def test_no_output_takes_more_instructions(compiled: dict[int, list[Code]], architecture: int) -> None:
    if COUNTED_BY not in sass.output("nvcc", "--version"):
        pytest.skip(f"the instructions were counted with nvcc's {COUNTED_BY}")
    allowed = {name: counts[COUNTED_FOR.index(architecture)] for name, counts in COUNTED.items()}
    found = {code.name: (code.k_step, code.behind_products) for code in compiled[architecture] if code.name in allowed}
    assert found.keys() == allowed.keys()
    grown = {name: (found[name], most) for name, most in allowed.items() if any(map(operator.gt, found[name], most))}
    assert not grown, f"(found, allowed): {grown}"


@pytest.mark.parametrize("architecture", BINARY)
def test_the_first_layer_multiplies_bytes(compiled: dict[int, list[Code]], architecture: int) -> None:
    """Its weights' high bytes have a sign, their low bytes have none."""
    shape = "8816" if architecture == 75 else "16832"
    for code in (code for code in compiled[architecture] if code.name.startswith("Stem")):
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
    """If this fails, a compiler has learnt them: the table in docs/deployment.md and `BINARY` want a new row."""
    if architecture not in compiled:
        pytest.skip(f"this nvcc does not know sm_{architecture}")
    for code in _convolutions(compiled[architecture]):
        assert code.count("BMMA") == 0, code.name
        assert code.count("IMMA") > 0, code.name


def test_an_emulated_product_would_be_noticed(compiled: dict[int, list[Code]], tmp_path: Path) -> None:
    """XOR on sm_90, where only AND is native, has the call that the tests above look for."""
    (tmp_path / "xor.cu").write_text(XOR)
    (code,) = sass.disassemble(tmp_path / "xor.cu", 90, tmp_path)
    assert code.count("CALL") > 0
    assert code.count("BMMA.168256.XOR") == 0


XOR = """__global__ void kernel(int* c, const unsigned* a) {
    asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.xor.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};" : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]));
}"""


def _convolutions(codes: list[Code]) -> list[Code]:
    found = [code for code in codes if "Conv" in code.name]
    assert {code.name.partition("<")[0] for code in found} == {"Conv", "ResidentConv", "GeneralConv"}
    return found
