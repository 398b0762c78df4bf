"""The CSV log of a training run: one row per report, appended as it happens."""

from __future__ import annotations

import csv
from pathlib import Path

from engine.train.renamed import current

COLUMNS = ("step", "samples", "learning_rate", "zeros", "loss", "samples_per_second", "dice", "iou", "f1")


def append(path: Path, **values: float) -> None:
    """Append one row to the log at `path`; columns that `values` does not name stay empty."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(values)


def read(path: Path) -> list[dict[str, float]]:
    """The rows of the log at `path`, each with the columns that it fills."""
    with path.open(newline="") as file:
        return [current({name: float(text) for name, text in row.items() if text}) for row in csv.DictReader(file)]


def forget(path: Path, step: int) -> None:
    """Drop the rows after `step`: a run that resumes there writes them again."""
    if path.is_file():
        header, *rows = path.read_text().splitlines(keepends=True)
        path.write_text("".join([header, *(row for row in rows if int(row.split(",")[0]) <= step)]))
