"""`python -m tests.native.coverage`: what the random networks run of csrc/cpu, by file, with the portable kernels.

Prints gcov's shares of lines run and of branches taken, and the lines that no case runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cases import CASES, RANDOM, Case
from tests.native.replay import build, replay
from tests.native.sources import ROOT

REPLAYED = [*RANDOM, *(case for case in CASES if case.name != "batch of mixed shapes")]


def measured(folder: Path, cases: list[Case]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(path, gcov's lines) of every source and header of csrc that `cases` came by."""
    build("g++", "", folder / "replay", ["-O0", "--coverage", "-fno-inline"])
    replay([str(folder / "replay")], "portable", 2, cases)
    command = ["gcov", "--json-format", "--stdout", "--branch-probabilities", *map(str, folder.glob("*.gcda"))]
    said = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout
    files: dict[str, dict[int, dict[str, Any]]] = {}
    for report in filter(None, said.splitlines()):
        for file in json.loads(report)["files"]:
            path = Path(file["file"]).resolve()
            if path.is_relative_to(ROOT / "csrc"):
                merge(files.setdefault(str(path.relative_to(ROOT)), {}), file["lines"])
    for name, lines in sorted(files.items()):
        yield name, [lines[number] for number in sorted(lines)]


def merge(known: dict[int, dict[str, Any]], lines: list[dict[str, Any]]) -> None:
    """Add up a file's lines: headers are compiled several times, templates for several types."""
    for line in lines:
        branches = [branch["count"] for branch in line["branches"] if not branch["throw"]]
        same = known.setdefault(line["line_number"], {"number": line["line_number"], "count": 0, "branches": []})
        same["count"] += line["count"]
        if len(same["branches"]) < len(branches):
            same["branches"] += [0] * (len(branches) - len(same["branches"]))
        for i, count in enumerate(branches):
            same["branches"][i] += count


def main() -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        for name, lines in measured(Path(folder), REPLAYED):
            branches = [count for line in lines for count in line["branches"]]
            missed = [str(line["number"]) for line in lines if not line["count"]]
            run, taken = len(lines) - len(missed), sum(count > 0 for count in branches)
            print(
                f"{name:<40} lines {run:>4} of {len(lines):<4} branches {taken:>4} of {len(branches):<4} "
                f"{'not run: ' + ', '.join(missed) if missed else ''}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
