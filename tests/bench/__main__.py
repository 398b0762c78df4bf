"""`python -m tests.bench`: our networks beside PyTorch, ONNX Runtime and OpenVINO, in turns and processes of their own.

Prints tables of medians, minima and ratios, and writes every part's figures to OUT/PART.csv, from which
`python -m tests.bench.plot OUT` draws. One image at a time, from decoded pixels to the mask.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

from tests.bench import cuda, turns
from tests.bench.contenders import Contender
from tests.bench.parts import WITHOUT_AMX, Part, parts

BASES = {
    "PyTorch FP32": "x PyTorch",
    "OpenVINO FP32": "x FP32",
    "OpenVINO INT8": "x INT8",
    WITHOUT_AMX: "x VNNI",
}  # what ratios are to
COLUMNS = ("name", "kind", "blocks", "zeros", "width", "size", "threads", "kernel", "precision")


def main() -> None:
    """Measure the chosen parts."""
    args = arguments()
    if args.device != "cpu":
        batches = cuda.QUICK_BATCHES if args.quick else cuda.BATCHES
        formats = () if args.without_torch else cuda.QUICK_TORCH if args.quick else tuple(cuda.TORCH)
        cuda.main(args.device, args.width, args.size, batches, formats, args.json)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for name, part in parts().items():
        if name in (args.only or parts()):
            contenders = present(part.contenders(args.size, args.threads))
            if args.prepare:
                turns.prepare(contenders)
            else:
                measure(name, part, contenders, args)


def measure(name: str, part: Part, contenders: Sequence[Contender], args: argparse.Namespace) -> None:
    """One part: its table, and its file."""
    today = datetime.date.today().isoformat()
    print(f"\n{name}: {part.meaning}; {cpu()}, {args.threads} threads, {args.size} x {args.size} unless said; {today}")
    turns.prepare(contenders)
    if part.memory:
        rows = [{"idle_mb": idle / 1e6, "added_mb": added / 1e6} for idle, added in turns.measure_memory(contenders)]
    else:
        times = turns.measure(contenders, args.rounds or part.rounds)
        rows = [{"median_ms": 1e3 * statistics.median(s), "min_ms": 1e3 * min(s), "runs": len(s)} for s in times]
        medians = {c.name: row["median_ms"] for c, row in zip(contenders, rows, strict=True)}
        for base, column in BASES.items():
            if base in medians:
                rows = [row | {column: medians[base] / row["median_ms"]} for row in rows]
    show(contenders, rows)
    write(args.out / f"{name}.csv", contenders, rows)


def show(contenders: Sequence[Contender], rows: Sequence[dict[str, float]]) -> None:
    """The figures as a table."""
    widest = max(len(contender.name) for contender in contenders)
    print(" " * widest + "".join(f"{column:>12}" for column in rows[0]))
    for contender, row in zip(contenders, rows, strict=True):
        print(f"{contender.name:<{widest}}" + "".join(f"{value:>12.4g}" for value in row.values()), flush=True)


def write(path: Path, contenders: Sequence[Contender], rows: Sequence[dict[str, float]]) -> None:
    """What was run, and the figures."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *rows[0]])
        for contender, row in zip(contenders, rows, strict=True):
            known = [getattr(contender, column) for column in COLUMNS]
            writer.writerow([*known, *(f"{value:.6g}" for value in row.values())])


def present(contenders: Sequence[Contender]) -> list[Contender]:
    """Those that can run here; the others are named."""
    for contender in contenders:
        if missing := contender.missing():
            print(f"left out: {contender.name}, without {', '.join(missing)} (pip install -e '.[peers]')")
    return [contender for contender in contenders if not contender.missing()]


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=list(parts()), metavar="PART", help=", ".join(parts()))
    parser.add_argument("--size", type=int, default=512, help="sides of the image (default: 512)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1 and so on (the default is cpu)")
    parser.add_argument("--width", type=int, default=64, help="of a GPU: channels of the first layer (default: 64)")
    parser.add_argument("--json", type=Path, help="of a GPU: write all that was measured to this file")
    parser.add_argument("--quick", action="store_true", help="of a GPU: batches of 1 and 8, of PyTorch's formats FP16")
    parser.add_argument("--without-torch", action="store_true", help="of a GPU: our own networks alone")
    parser.add_argument("--rounds", type=int, help="by default every part's own")
    parser.add_argument("--prepare", action="store_true", help="only make the peers' model files, which takes minutes")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of the CSV files (runs/bench)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
