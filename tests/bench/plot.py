"""`python -m tests.bench.plot FOLDER`: draws what `python -m tests.bench` has written there, for the README."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

Row = dict[str, str]

OURS, PEER = "#1f6feb", "#9aa4b2"


def main() -> None:
    """bench.png from width64.csv, zeros.png from zeros.csv, scaling.png from sizes.csv and threads.csv."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plot", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/bench"))
    parser.add_argument("-o", "--out", type=Path, default=Path(".github/images"))
    args = parser.parse_args()
    draw(args.folder, args.out)


def draw(folder: Path, out: Path) -> None:
    mpl.use("Agg")
    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "0"}
    bars(read(folder / "width64.csv"), out / "bench.png")
    zeros(read(folder / "zeros.csv"), out / "zeros.png")
    scaling(read(folder / "sizes.csv"), read(folder / "threads.csv"), out / "scaling.png")


def bars(rows: Sequence[Row], path: Path) -> None:
    """Median milliseconds of every contender."""
    figure, axes = plt.subplots(figsize=(8, 0.28 * len(rows) + 0.8))
    times = [float(row["median_ms"]) for row in rows]
    colours = [OURS if row["kind"] == "ours" else PEER for row in rows]
    found = axes.barh([row["name"] for row in rows], times, color=colours)
    axes.bar_label(found, [f"{time:.0f}" if time >= 100 else f"{time:.3g}" for time in times], padding=3)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds for one 512 x 512 image (median, logarithmic)")
    save(figure, path)


def zeros(rows: Sequence[Row], path: Path) -> None:
    """Milliseconds against the share of zeros, by width."""
    figure, axes = plt.subplots(figsize=(5, 3.2))
    for width, some in by(rows, "width").items():
        line(axes, [100 * float(row["zeros"]) for row in some], some, f"width {width}")
    axes.set_xlabel("zero weights, %")
    axes.set_ylabel("milliseconds")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    save(figure, path)


def scaling(sizes: Sequence[Row], threads: Sequence[Row], path: Path) -> None:
    """Milliseconds against pixels, and against threads."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    for name, some in by(sizes, "kind", "width").items():
        line(left, [float(row["size"]) ** 2 / 1e6 for row in some], some, called(name))
    for name, some in by(threads, "kind", "width").items():
        line(right, [float(row["threads"]) for row in some], some, called(name))
    left.set(xscale="log", yscale="log", xlabel="megapixels", ylabel="milliseconds")
    right.set(yscale="log", xlabel="threads", ylabel="milliseconds")
    right.set_xticks(sorted({int(row["threads"]) for row in threads}))
    left.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.25))
    save(figure, path)


def called(name: str) -> str:
    kind, width = name.split()
    return f"{'mbunet, 90 % zeros' if kind == 'ours' else 'OpenVINO INT8'}, width {width}"


def line(axes: Any, x: Sequence[float], rows: Sequence[Row], label: str) -> None:
    axes.plot(x, [float(row["median_ms"]) for row in rows], "o-", label=label)


def by(rows: Sequence[Row], *columns: str) -> dict[str, list[Row]]:
    """Rows by their values in `columns`, in order of appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(" ".join(row[column] for column in columns), []).append(row)
    return groups


def read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=144, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
