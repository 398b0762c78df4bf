"""The parts of the benchmark: which contenders are run beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.runtime import available_kernels
from tests.bench.contenders import Contender

ZEROS = (0.8, 0.9, 0.95)
ALL_ZEROS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
SIZES = (256, 512, 1024, 1536, 2048)
FULL, SMALL = 64, 32  # widths: the paper's network and the shipped one
WITHOUT_AMX = "OpenVINO INT8, AVX-512 VNNI"


@dataclass(frozen=True)
class Part:
    """What is measured together, and in how many rounds."""

    meaning: str
    contenders: Callable[[int, int], Sequence[Contender]]  # of size and threads
    rounds: int
    memory: bool = False


def parts() -> dict[str, Part]:
    """All parts by name, in the order in which they are run."""
    return {
        "width64": Part("the paper's network", lambda size, threads: everyone(FULL, size, threads), 5),
        "width32": Part("half the channels", lambda size, threads: everyone(SMALL, size, threads), 7),
        "bfcn": Part("BFCN, levels of two bits, width 32", bfcn, 7),
        "multi-branch": Part("upsampling in three branches, two gates, width 32", multi_branch, 7),
        "zeros": Part("latency against zeros", zeros, 7),
        "sizes": Part("latency against image size", sizes, 3),
        "threads": Part("latency against threads", thread_counts, 7),
        "memory": Part("what one 2048 x 2048 image adds to an idle process", memory, 1, memory=True),
    }


def everyone(width: int, size: int, threads: int) -> list[Contender]:
    """The table of the README."""
    return [
        Contender("PyTorch FP32", "torch", width, size, threads),
        Contender("PyTorch BF16", "torch", width, size, threads, precision="bf16"),
        Contender("ONNX Runtime FP32", "onnxruntime", width, size, threads),
        Contender("ONNX Runtime INT8", "onnxruntime", width, size, threads, precision="int8"),
        *openvino(width, size, threads),
        *ours(width, size, threads),
        *(shipped(size, threads) if width == SMALL else ()),
    ]


def openvino(width: int, size: int, threads: int) -> list[Contender]:
    """All of OpenVINO. On a machine with AMX its INT8 uses it; one contender does without."""
    float32 = Contender("OpenVINO FP32", "openvino", width, size, threads)
    int8 = replace(float32, name="OpenVINO INT8", precision="int8")
    return [
        float32,
        replace(float32, name="OpenVINO BF16", precision="bf16"),
        int8,
        replace(int8, name="OpenVINO INT8, 90 % zeros, sparse weights", zeros=0.9),
        replace(int8, name=WITHOUT_AMX, highest="AVX512_CORE_VNNI"),
    ]


def our(what: str, width: int, size: int, threads: int, **options: object) -> Contender:
    contender = Contender("", "ours", width, size, threads)
    contender = replace(contender, **options)  # type: ignore[arg-type]
    kernel = available_kernels()[0] if contender.kernel == "auto" else contender.kernel
    return replace(contender, name=f"mbunet {kernel}, {what}", kernel=kernel)


def percent(share: float) -> str:
    return f"{100 * share:.0f} % zeros"


def ours(width: int, size: int, threads: int) -> list[Contender]:
    """Every kind of our network on this machine's best kernel, then 90 % zeros on its others."""
    return [
        our("every block binary", width, size, threads, blocks="binary", zeros=0.9),
        our("cost-aware: cheapest half masked, 90 % zeros", width, size, threads, blocks="cost-aware", zeros=0.9),
        *(our(percent(share), width, size, threads, zeros=share) for share in ZEROS),
        *(our("90 % zeros", width, size, threads, zeros=0.9, kernel=name) for name in available_kernels()[1:]),
    ]


def shipped(size: int, threads: int) -> list[Contender]:
    """The shipped model, whose zeros are not random, and a random one with as many zeros in every layer."""
    return [
        our("shipped model", SMALL, size, threads, blocks="shipped"),
        our("as many zeros at random", SMALL, size, threads, blocks="random as shipped"),
    ]


def bfcn(size: int, threads: int) -> list[Contender]:
    """BFCN's full-precision network in the peers, ours with weights of two bits, of one, and with zeros."""
    kinds: dict[str, dict[str, object]] = {"W2A2": {"weight_bits": 2}, "W1A2": {}, "W1A2, 90 % zeros": {"zeros": 0.9}}
    return of_family("bfcn", kinds, size, threads)


def multi_branch(size: int, threads: int) -> list[Contender]:
    """The same of the multi-branch network, ours with all the weights that its branches have, and with zeros."""
    return of_family(
        "multi-branch", {"no zeros": {}} | {percent(share): {"zeros": share} for share in ZEROS}, size, threads
    )


def of_family(family: str, kinds: Mapping[str, Mapping[str, object]], size: int, threads: int) -> list[Contender]:
    """Its full-precision network in the peers, and our kinds of it."""
    peers = [Contender("PyTorch FP32", "torch", SMALL, size, threads), *openvino(SMALL, size, threads)]
    return [
        *(replace(peer, family=family) for peer in peers if not peer.zeros),
        *(our(what, SMALL, size, threads, family=family, **options) for what, options in kinds.items()),
    ]


def zeros(size: int, threads: int) -> list[Contender]:
    return [
        our(f"width {width}, {percent(share)}", width, size, threads, zeros=share)
        for width in (FULL, SMALL)
        for share in ALL_ZEROS
    ]


def sizes(_: int, threads: int) -> list[Contender]:
    int8 = [replace(openvino(FULL, size, threads)[2], name=f"OpenVINO INT8, width 64, {size}") for size in SIZES]
    return [
        *(
            our(f"width {width}, 90 % zeros, {size}", width, size, threads, zeros=0.9)
            for width in (FULL, SMALL)
            for size in SIZES
        ),
        *int8,
    ]


def thread_counts(size: int, threads: int) -> list[Contender]:
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < threads] + [threads]
    return [
        *(
            our(f"width {width}, 90 % zeros, {n} threads", width, size, n, zeros=0.9)
            for width in (FULL, SMALL)
            for n in counts
        ),
        *(replace(openvino(FULL, size, n)[2], name=f"OpenVINO INT8, width 64, {n} threads") for n in counts),
    ]


def memory(_: int, threads: int) -> list[Contender]:
    return [
        our("width 64, 90 % zeros", FULL, 2048, threads, zeros=0.9),
        our("width 32, 90 % zeros", SMALL, 2048, threads, zeros=0.9),
        our("width 64, 90 % zeros, 8192 x 8192 in tiles", FULL, 8192, threads, zeros=0.9),
        openvino(FULL, 2048, threads)[2],
    ]
