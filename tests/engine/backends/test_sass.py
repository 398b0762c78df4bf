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
    "75": "BMMA.88128.XOR.POPC",
    **dict.fromkeys(("80", "86", "87", "89"), "BMMA.168256.XOR.POPC"),
    "90a": "BMMA.168256.AND.POPC",
}
EMULATED = ("120",)  # no product of bits in hardware: the compiler makes it of IMMA
# Instructions of the kernels that MBU-Net runs on, as nvcc 13.0 makes them: what may only become less. A thread of
# Conv<masked, words>, and of ResidentConv likewise, makes 32 outputs a word, one of UpConv 64: counted are
# what a K step takes (of Stem, which has one, what a tile takes; of WarpgroupConv<masked, 2, joined, warpgroups>, whose
# K steps are no loop, what all of a tile takes, and copying the next one, inside the image or not), and what there is
# behind the last product.
COUNTED_BY = "release 13.0"
COUNTED_FOR = ("75", "80", "90a")
COUNTED = {
    "ResidentConv<0,1>": ((62, 75), (38, 75), (32, 142)),
    "ResidentConv<0,2>": ((96, 117), (48, 117), (42, 255)),
    "ResidentConv<1,1>": ((78, 75), (30, 75), (38, 77)),
    "ResidentConv<1,2>": ((146, 117), (50, 117), (58, 119)),
    "Conv<0,1>": ((83, 104), (62, 104), (56, 175)),
    "Conv<0,2>": ((112, 153), (67, 154), (63, 281)),
    "Conv<1,1>": ((94, 103), (54, 120), (58, 119)),
    "Conv<1,2>": ((166, 152), (73, 151), (81, 152)),
    "WarpgroupConv<0,2,0,1>": ((0, 3), (0, 3), (383, 88)),
    "WarpgroupConv<0,2,1,1>": ((0, 3), (0, 3), (420, 91)),
    "WarpgroupConv<0,4,0,1>": ((0, 3), (0, 3), (18, 113)),
    "WarpgroupConv<0,16,0,2>": ((0, 3), (0, 3), (18, 221)),
    "WarpgroupConv<1,2,0,1>": ((0, 3), (0, 3), (374, 86)),
    "WarpgroupConv<1,2,1,1>": ((0, 3), (0, 3), (414, 90)),
    "WarpgroupConv<1,4,0,1>": ((0, 3), (0, 3), (18, 112)),
    "WarpgroupConv<1,16,0,2>": ((0, 3), (0, 3), (18, 219)),
    "StreamedWarpgroupConv<0>": ((0, 3), (0, 3), (60, 295)),
    "StreamedWarpgroupConv<1>": ((0, 3), (0, 3), (60, 223)),
    "UpConv<2>": ((83, 130), (36, 115), (40, 116)),
    "UpConv<4>": ((83, 134), (35, 115), (40, 116)),
    "Head": ((0, 554), (0, 554), (0, 548)),
    "Stem<1,1>": ((192, 70), (144, 80), (128, 81)),
    "Stem<1,2>": ((335, 78), (239, 84), (227, 84)),
}
MOST_BEHIND_WAIT = 44  # instructions between the wait for the kernel before and the first copy
REGISTERS = 128  # so that a multiprocessor holds two blocks of 256 threads, or four of 128
OTHER_REGISTERS = {  # of WarpgroupConv<masked, words, joined, warpgroups>
    "StreamedWarpgroupConv<.*>": 168,  # three blocks of 128 threads
    "WarpgroupConv<0,.*,1>": 96,  # five
}


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> dict[str, list[Code]]:
    """The kernels of every architecture that this nvcc knows."""
    cuda.require("the machine code of the CUDA kernels")
    folder = request.config.cache.mkdir("cubins")
    known = set(re.findall(r"sm_(\w+)", sass.output("nvcc", "--list-gpu-code")))
    architectures = [name for name in (*BINARY, *EMULATED) if name.rstrip("a") in known]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(architectures, pool.map(lambda name: sass.compiled(name, folder), architectures), strict=True))


def test_every_architecture_compiles(compiled: dict[str, list[Code]]) -> None:
    assert set(BINARY) <= set(compiled)
    names = [[code.name for code in codes] for codes in compiled.values()]
    assert all(sorted(some) == sorted(names[0]) for some in names)
    assert {
        "Stem",
        "Conv",
        "ResidentConv",
        "UpConv",
        "StreamedWarpgroupConv",
        "WarpgroupConv",
        "GeneralConv",
        "Pool",
        "Gate",
        "Head",
        "CoarseHead",
        "Doubling",
    } <= {re.sub("<.*", "", name) for name in names[0]}


@pytest.mark.parametrize("architecture", BINARY)
def test_products_of_bits_are_native(compiled: dict[str, list[Code]], architecture: str) -> None:
    for code in _convolutions(compiled[architecture]):
        assert code.count(BINARY[architecture]) > 0, code.name
        assert code.count("BMMA") == code.count(BINARY[architecture]), code.name
        assert code.count("IMMA") == 0, code.name


@pytest.mark.parametrize("architecture", BINARY)
def test_nothing_is_called_and_nothing_spills(compiled: dict[str, list[Code]], architecture: str) -> None:
    for code in compiled[architecture]:
        assert code.count("CALL", "JCAL") == 0, code.name
        assert code.count("LDL", "STL") == 0, code.name
        assert code.stack == 0, code.name
        others = (most for name, most in OTHER_REGISTERS.items() if re.fullmatch(name, code.name))
        most = next(others, REGISTERS)
        assert 0 < code.registers <= most, code.name


def test_products_of_warpgroups_are_native_and_run_on(compiled: dict[str, list[Code]]) -> None:
    """A compiler that serialized them would wait behind each: it waits once for all products of a fragment."""
    found = {code.name: code for code in compiled["90a"] if "WarpgroupConv" in code.name}
    assert len(found) == 24
    for name, code in found.items():
        kernel, *arguments = re.split("[<,>]", name)[:-1]
        columns = 128 if int(arguments[0]) else 80
        assert code.count(f"BGMMA.64x{columns}x256.AND.POPC") == code.count("BGMMA") > 0, name
        waits = 3 if kernel.startswith("Streamed") else 2 // int(arguments[-1])
        assert code.count("WARPGROUP.DEPBAR") == waits, name
    for codes in (compiled[name] for name in BINARY if name != "90a"):
        assert all(code.count("BGMMA") == 0 for code in codes)


def test_addresses_are_known_before_the_wait(compiled: dict[str, list[Code]]) -> None:
    """While the kernel before ends there is time; behind it a convolution begins to copy pixels almost at once."""
    found = {code.name: code.behind_wait for code in compiled["90a"] if "Conv" in code.name}
    assert len(found) == 38
    assert max(found.values()) <= MOST_BEHIND_WAIT, found


@pytest.mark.parametrize("architecture", COUNTED_FOR)
def test_no_output_takes_more_instructions(compiled: dict[str, list[Code]], architecture: str) -> None:
    if COUNTED_BY not in sass.output("nvcc", "--version"):
        pytest.skip(f"the instructions were counted with nvcc's {COUNTED_BY}")
    allowed = {name: counts[COUNTED_FOR.index(architecture)] for name, counts in COUNTED.items()}
    found = {code.name: (code.k_step, code.behind_products) for code in compiled[architecture] if code.name in allowed}
    assert found.keys() == allowed.keys()
    grown = {name: (found[name], most) for name, most in allowed.items() if any(map(operator.gt, found[name], most))}
    assert not grown, f"(found, allowed): {grown}"


@pytest.mark.parametrize("architecture", BINARY)
def test_the_first_layer_multiplies_bytes(compiled: dict[str, list[Code]], architecture: str) -> None:
    """Its weights' high bytes have a sign, their low bytes have none."""
    shape = "8816" if architecture == "75" else "16832"
    for code in (code for code in compiled[architecture] if code.name.startswith("Stem")):
        high, low = code.count(f"IMMA.{shape}.U8.S8"), code.count(f"IMMA.{shape}.U8.U8")
        assert high == low > 0
        assert code.count("IMMA") == high + low


@pytest.mark.parametrize("architecture", BINARY)
def test_results_need_no_atomics(compiled: dict[str, list[Code]], architecture: str) -> None:
    assert all(code.count("ATOM", "RED.") == 0 for code in compiled[architecture])


@pytest.mark.parametrize("architecture", ["80", "86", "87", "89", "90a"])
def test_inputs_arrive_asynchronously_and_as_matrices(compiled: dict[str, list[Code]], architecture: str) -> None:
    for code in _convolutions(compiled[architecture]):
        assert code.count("LDGSTS") > 0, code.name
        assert code.count("LDSM") > 0, code.name


@pytest.mark.parametrize("architecture", EMULATED)
def test_where_products_of_bits_are_emulated(compiled: dict[str, list[Code]], architecture: str) -> None:
    """If this fails, a compiler has learnt them: the table in docs/deployment.md and `BINARY` want a new row."""
    if architecture not in compiled:
        pytest.skip(f"this nvcc does not know sm_{architecture}")
    for code in _convolutions(compiled[architecture]):
        assert code.count("BMMA") == 0, code.name
        assert code.count("IMMA") > 0, code.name


def test_an_emulated_product_would_be_noticed(compiled: dict[str, list[Code]], tmp_path: Path) -> None:
    """XOR on sm_90, where only AND is native, has the call that the tests above look for."""
    (tmp_path / "xor.cu").write_text(XOR)
    (code,) = sass.disassemble(tmp_path / "xor.cu", "90", tmp_path)
    assert code.count("CALL") > 0
    assert code.count("BMMA.168256.XOR") == 0


XOR = """__global__ void kernel(int* c, const unsigned* a) {
    asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.xor.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};" : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]));
}"""


def _convolutions(codes: list[Code]) -> list[Code]:
    found = [code for code in codes if "Conv" in code.name and "Warpgroup" not in code.name]
    assert {code.name.partition("<")[0] for code in found} == {"Conv", "ResidentConv", "UpConv", "GeneralConv"}
    return found
