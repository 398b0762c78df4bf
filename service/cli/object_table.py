"""The objects of many images as one table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = (
    *("image", "object", "class", "area", "x", "y", "width", "height", "centroid_x", "centroid_y"),
    *("equivalent_diameter", "eccentricity", "score"),
)


def csv_of(documents: Mapping[Path, bytes]) -> bytes:
    """A row for every object in `documents`, which are in the format `objects`, by the image of each."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for source, data in documents.items():
        document = json.loads(data)
        names = {category["id"]: category["name"] for category in document["categories"]}
        writer.writerows(_row(source, names, entry) for entry in document["annotations"])
    return text.getvalue().encode(errors="surrogateescape")  # names of files are any bytes


def _row(source: Path, names: dict[int, str], entry: dict[str, Any]) -> list[Any]:
    shape = [entry[name] for name in ("equivalent_diameter", "eccentricity", "score")]
    name = names[entry["category_id"]]
    return [source, entry["id"], name, entry["area"], *entry["bbox"], *entry["centroid"], *shape]
