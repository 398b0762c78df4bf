"""The model card says what the file and the scores say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.layer import Layer
from engine.model import Preprocessing
from engine.networks import bfcn, multibranch, unet
from engine.train import card, evaluate, metrics
from engine.train.evaluate import Row
from engine.train.metrics import Counts
from tests.models import random_model


def rows(count: int, group: str, own: Counts, otsu: Counts | None = None) -> list[Row]:
    return [Row(f"{group}{k}", group, own, otsu) for k in range(count)]


def test_the_card_holds_model_story_scores_and_limits() -> None:
    story = {"data": "nuclei", "split": {"validation": 0.2, "seed": 0}, "temperature": 2.5, "metrics": {"dice": 0.5}}
    model = replace(random_model(3, zeros=0.9), name="tiny", provenance=story)
    good, bad = Counts(8, 1, 1), Counts(1, 9, 0)
    text = card.write(model, rows(12, "bright", good, bad) + rows(3, "dark", bad, good), "validation")
    assert text.startswith("# tiny\n")
    assert "12 of 12 blocks are masked" in text
    assert "- data: nuclei" in text
    assert "- split: validation 0.2, seed 0" in text
    own = metrics.summarize([good])
    bright = next(line for line in text.splitlines() if line.startswith("| bright |"))
    assert bright.startswith(f"| bright | 12 | {own.dice:.3f} | {own.iou:.3f} | {own.f1:.3f} |")
    assert bright.endswith(f" | {metrics.summarize([bad]).dice:.3f} |")
    assert "dark: 3 images only" in text
    assert "dark: Otsu's threshold is better" in text
    assert "bright: Otsu" not in text
    assert "training has seen" not in text
    assert "The split is random" in text
    grouped = replace(model, provenance=story | {"split": {"validation": 0.2, "seed": 0, "groups": 14}})
    assert "The split is random" not in card.write(grouped, rows(12, "", good), "validation")


def test_the_card_says_how_images_are_fitted() -> None:
    model, scored = random_model(3), rows(1, "", Counts(8, 1, 1))
    assert "Images are padded to multiples of 16 pixels, contrast: none." in card.write(model, scored, "all")
    naming = replace(model, preprocessing=Preprocessing(channel="1", page="max"))
    assert "contrast: none, channel: 1, page: max." in card.write(naming, scored, "all")
    resized = replace(model, preprocessing=Preprocessing("resize", height=64, width=96, contrast="stretch"))
    assert "Images are resized to 64 x 96 pixels, contrast: stretch." in card.write(resized, scored, "all")


def test_what_comes_back_of_empty_parts_is_in_the_table_and_where_it_is_much_a_limit() -> None:
    seen = rows(3, "", Counts(8, 1, 1))
    scored = [replace(row, empty=share) for row, share in zip(seen, (0.01, 0.02, None), strict=True)]
    text = card.write(random_model(3), scored, "all")
    assert f" {evaluate.EMPTY} |" in text
    assert " 1.5% |" in text
    assert "come back as objects" not in text
    scored = [replace(row, stratum="stained", empty=0.5) for row in scored]
    text = card.write(random_model(3), scored, "all")
    assert "- stained: 50.0% of an empty part of an image, sent alone, come back as objects; " in text
    assert evaluate.EMPTY not in card.write(random_model(3), seen, "all")


def test_scores_over_training_images_are_called_that() -> None:
    text = card.write(random_model(3), rows(12, "", Counts(8, 1, 1)), "all")
    assert "training has seen some of them" in text
    assert "Otsu" not in text
    assert "training has seen" not in card.write(random_model(3), rows(12, "", Counts(8, 1, 1)), "test")


def test_images_of_several_classes_are_counted_once() -> None:
    scored = [replace(row, label=label) for row in rows(4, "rare", Counts(8, 1, 1)) for label in ("a", "b", "c")]
    text = card.write(random_model(3), scored, "test")
    assert "rare: 4 images only" in text
    assert "class a: 4 images only" in text


@pytest.mark.parametrize(
    ("flat", "family", "activations", "masked"),
    [
        (unet.layers(3, activation_bits=2), "mbu-net", "levels of 2 bits", "12 of 12 blocks"),
        (bfcn.layers(3), "bfcn", "levels of 2 bits", "0 of 20 layers of bits"),
        (multibranch.layers(3), "multi-branch", "single bits", "25 of 25 layers of bits"),
    ],
)
def test_the_card_says_what_kind_of_network_it_is(
    flat: list[Layer], family: str, activations: str, masked: str
) -> None:
    what = f"({family}) whose activations are {activations}; {masked} are masked"
    model = replace(random_model(layers=flat), family=family)
    assert what in card.write(model, rows(1, "", Counts(8, 1, 1)), "all")
