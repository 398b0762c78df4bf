"""The objects of many images as one table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COLUMNS = (
    *("image", "object", "class", "area", "x", "y", "width", "height", "centroid_x", "centroid_y"),
    *("equivalent_diameter", "eccentricity", "score"),
)


def rows_of(source: Path, objects: bytes) -> list[list[Any]]:
    """A row for every object of the image `source`; `objects` is the document in the format of that name."""
    document = json.loads(objects)
    names = {category["id"]: category["name"] for category in document["categories"]}
    return [_row(source, names, entry) for entry in document["annotations"]]


def csv_of(rows: Iterable[list[Any]]) -> bytes:
    """The table of these rows."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")  # names of files are any bytes


def _row(source: Path, names: dict[int, str], entry: dict[str, Any]) -> list[Any]:
    shape = [entry[name] for name in ("equivalent_diameter", "eccentricity", "score")]
    name = names[entry["category_id"]]
    return [source, entry["id"], name, entry["area"], *entry["bbox"], *entry["centroid"], *shape]
