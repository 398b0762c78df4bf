"""`python -m tests.bench`: our networks and PyTorch in turn, in processes of their own; medians and ratios."""

from __future__ import annotations

import argparse
import platform
import statistics
from pathlib import Path

from engine.runtime import available_kernels
from tests.bench import cuda
from tests.bench.contenders import Contender
from tests.bench.turns import measure


def main() -> None:
    """Measure, print a table."""
    args = arguments()
    if args.device != "cpu":
        cuda.main(args.device, args.width, args.size, out=args.json)
        return
    contenders = contenders_of(args.width, args.size, args.threads)
    print(f"{cpu()}, {args.threads} threads, width {args.width}, {args.size} x {args.size}, one image,")
    print(f"medians of {args.rounds} alternating rounds")
    times = measure(contenders, args.rounds)
    base = statistics.median(times[0])
    print(f"\n{'':<46}{'median ms':>10}{'min ms':>9}{'x FP32':>9}")
    for contender, seconds in zip(contenders, times, strict=True):
        median = statistics.median(seconds)
        print(f"{contender.name:<46}{1e3 * median:>10.2f}{1e3 * min(seconds):>9.2f}{base / median:>8.1f}x")


def contenders_of(width: int, size: int, threads: int) -> list[Contender]:
    """PyTorch first, then our networks on this machine's best kernel, then the others of its kernels."""

    def ours(name: str, zeros: float, kernel: str) -> Contender:
        return Contender(f"mbunet {kernel}, {name}", "ours", width, size, threads, zeros, kernel)

    best, *others = available_kernels()
    return [
        Contender("PyTorch FP32", "torch", width, size, threads),
        Contender("PyTorch BF16", "torch", width, size, threads, dtype="bfloat16"),
        ours("every block binary", 0, best),
        *(ours(f"every block masked, {zeros:.0%} zeros", zeros, best) for zeros in (0.8, 0.9, 0.95)),
        *(ours("every block masked, 90% zeros", 0.9, kernel) for kernel in others),
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--width", type=int, default=64, help="channels of the first layer (64: the paper's network)")
    parser.add_argument("--size", type=int, default=512, help="sides of the image")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1 and so on (the default is cpu)")
    parser.add_argument("--json", type=Path, help="of a GPU: write all that was measured to this file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
