"""The rows of every table: what differs between them; everything else is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.networks import unet

FULL = "Full precision"
OURS = "Masked (ours)"

Changes = Mapping[str, Any]
"""Settings of `Config` in which a row differs, and of how it is trained: `start`, what it begins with ("start", full
precision over a third of the budget, unless it says "eighth" or "", nothing); `teacher`, whether that is its teacher
too; `int8`, whether it is scored once more in post-training INT8; `nonzeros_of`, the row whose number of non-zero
weights it is to have."""

METHODS: dict[str, Changes] = {
    FULL: {"full_precision": True, "int8": True},
    "INT8 weights (W8A1)": {"weights": ("int8",)},
    "INT4 weights (W4A1)": {"weights": ("int4",)},
    OURS: {},
    "Ternary, TWN": {"weights": ("twn",)},
    "Ternary, max-abs": {"weights": ("max-abs",)},
    "Ternary, SEQ": {"weights": ("seq",)},
    "Binary": {"masked": ()},
}
"""The paper's Table 1."""

RECIPE: dict[str, Changes] = {
    OURS: {},
    "with the start as teacher": {"teacher": True},
    "with a third of the budget on 8-bit weights": {"start": "eighth"},
    "no start in full precision": {"start": ""},
    "bits from the first step": {"annealing": 0.0},
    "all zeros from the first step": {"zeros_from": 1.0},
    "no random scales, turns and flips": {"ablate": ("geometry",)},
    "no random colours": {"ablate": ("color",)},
    "no Dice term in the loss": {"ablate": ("dice",)},
    "batch norm as training left it": {"ablate": ("batch-norm-re-estimation",)},
}
"""Our training taken apart: one part is added or left out in each row."""

_BFCN: Changes = {"family": "bfcn", "masked": ()}
BFCN: dict[str, Changes] = {
    FULL: {**_BFCN, "full_precision": True},
    "W2A2": {**_BFCN, "weight_bits": 2},
    "W1A2": _BFCN,
    "W1A1": {**_BFCN, "activation_bits": 1},
    "W1A2, zeros": {**_BFCN, "masked": unet.BLOCKS},
    "W1A2, bits decay": {**_BFCN, "bit_decay": 0.5},
    "W1A2, bits at once": {**_BFCN, "annealing": 0.0},
}
"""BFCN's claims. Activations are annealed from a line to bits, unless the bits decay, as published, or are there at
once."""

_BRANCHED: Changes = {"family": "multi-branch"}
_THREE = "3 branches, both gates"
MULTI_BRANCH: dict[str, Changes] = {
    FULL: {**_BRANCHED, "full_precision": True},
    _THREE: _BRANCHED,
    "3 branches, gate by position": {**_BRANCHED, "gates": "position"},
    "3 branches, gate by channel": {**_BRANCHED, "gates": "channel"},
    "3 branches, no gate": {**_BRANCHED, "gates": "none"},
    "1 branch, both gates, as many non-zeros": {**_BRANCHED, "branches": 1, "nonzeros_of": _THREE},
    "MBU-Net": {},
    "MBU-Net, as many non-zeros": {"nonzeros_of": _THREE},
}
"""The multi-branch network taken apart, beside MBU-Net."""


@dataclass(frozen=True)
class Table:
    """The stem of its files, its rows by name, and its columns, of COLUMNS."""

    name: str
    rows: Mapping[str, Changes]
    columns: tuple[str, ...] = ("dice", "iou", "f1", "zero_weights")


TABLES = {
    "methods": Table("table", METHODS),
    "recipe": Table("recipe", RECIPE),
    "bfcn": Table("bfcn", BFCN, ("pooled_iou", "f1", "zero_weights", "bytes", "ms")),
    "multi-branch": Table(
        "multi-branch", MULTI_BRANCH, ("dice", "pooled_iou", "mae", "max_f", "nonzeros", "bytes", "ms")
    ),
}

COLUMNS = {
    "dice": ("Dice", "{:.3f}"),
    "iou": ("IoU", "{:.3f}"),
    "f1": ("F1", "{:.3f}"),
    "pooled_iou": ("mIoU", "{:.3f}"),
    "mae": ("MAE", "{:.3f}"),
    "max_f": ("max F-beta", "{:.3f}"),
    "zero_weights": ("zeros", "{:.0%}"),
    "nonzeros": ("non-zero weights", "{:,.0f}"),
    "bytes": ("bytes", "{:,.0f}"),
    "ms": ("ms", "{:.2f}"),
}
"""Of a row's columns, the head in a table and how a value is written there."""

PAPER: dict[str, dict[str, tuple[float, ...]]] = {
    "Carvana": {FULL: (0.997, 0.994, 0.997), "INT8 weights (W8A1)": (0.994,), "INT4 weights (W4A1)": (0.989,),
                "Masked (ours)": (0.981, 0.963, 0.981), "Binary": (0.662,)},
    "ISIC": {FULL: (0.771, 0.644, 0.783), "INT8 weights (W8A1)": (0.763,), "INT4 weights (W4A1)": (0.753,),
             "Masked (ours)": (0.750, 0.617, 0.763), "Binary": (0.560,)},
    "Nuclei": {FULL: (0.867, 0.776, 0.874), "INT8 weights (W8A1)": (0.823,), "INT4 weights (W4A1)": (0.819,),
               "Masked (ours)": (0.817, 0.722, 0.839), "Binary": (0.434,)},
    "VOC12": {FULL: (0.698,), "W2A2": (0.670,), "W1A2": (0.628,)},
    "Cityscapes": {FULL: (0.621,), "W2A2": (0.603,), "W1A2": (0.574,)},
}  # fmt: skip
"""What papers print of their tables, as far as it is known to us: Dice, IoU and F1 of MBU-Net's Table 1, mIoU of BFCN
on its own data sets."""
