"""What earlier versions called things: their checkpoints, logs, studies and model files stay readable by this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {
    "crops": "samples",
    "crops_per_second": "samples_per_second",
    "start_crops": "start_samples",
    "pairs": "images",
    "rate": "learning_rate",
    "repeat": "run_seed",
    "soften": "annealing",
    "floating": "full_precision",
    "without": "ablate",
    "norms": "batch-norm-re-estimation",
    "colour": "color",
    "scores": "metrics",
}


def current(record: Mapping[str, Any]) -> dict[str, Any]:
    """`record` (a configuration, a row of a log, a provenance) by the names of today."""
    found = {RENAMED.get(name, name): value for name, value in record.items()}
    if "ablate" in found:
        found["ablate"] = tuple(RENAMED.get(part, part) for part in found["ablate"])
    return found
