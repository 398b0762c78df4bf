"""The CSV log of a training run: one row per report, appended as it happens."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine import whole
from engine.train.metrics import EXACT, Metrics
from engine.train.renamed import current

COLUMNS = ("step", "samples", "learning_rate", "zeros", "loss", "samples_per_second", "dice", "iou", "f1")
CLASS_COLUMNS = ("step", "class", *EXACT, "near_f1")


def append(path: Path, **values: float) -> None:
    """Append one row to the log at `path`; columns that `values` does not name stay empty."""
    _append(path, COLUMNS, values)


def append_class(path: Path, step: int, name: str, found: Metrics) -> None:
    """Append what a validation found of one class to the log of classes at `path`."""
    values = {"step": step, "class": name, **{metric: getattr(found, metric) for metric in CLASS_COLUMNS[2:]}}
    _append(path, CLASS_COLUMNS, values)


def _append(path: Path, columns: Sequence[str], values: Mapping[str, object]) -> None:
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerow(values)


def read(path: Path) -> list[dict[str, float]]:
    """The rows of the log at `path`, each with the columns that it fills; a last row that was cut short is no row."""
    with path.open(newline="") as file:
        whole = (line for line in file if line.endswith("\n"))
        return [current({name: float(text) for name, text in row.items() if text}) for row in csv.DictReader(whole)]


def read_classes(path: Path) -> dict[str, list[dict[str, float]]]:
    """The rows of the log of classes at `path`, by class; nan where there was nothing to score."""
    found: dict[str, list[dict[str, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(line for line in file if line.endswith("\n")):
            found.setdefault(row.pop("class"), []).append({name: float(text) for name, text in row.items()})
    return found


def forget(path: Path, step: int) -> None:
    """Drop the rows after `step`, which a run that resumes there writes again, and a last row that was cut short."""
    if not path.is_file():
        return
    header, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
    if not header.endswith(b"\n"):
        path.unlink()
        return
    kept = [row for row in rows if row.endswith(b"\n") and int(row.split(b",")[0]) <= step]
    whole.write(path, b"".join([header, *kept]))
