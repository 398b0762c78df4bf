"""What a folder says of how to train on it."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.train.config import GROUPS
from engine.train.data import facts
from engine.train.recipe import plan

SIDE = 320


def disc(radius: int, side: int = SIDE) -> NDArray[np.uint8]:
    y, x = np.ogrid[:side, :side]
    return ((y - side / 2) ** 2 + (x - side / 2) ** 2 < radius**2).astype(np.uint8)


def grid(width: int, every: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Lines of `width` pixels, one for every so many."""
    mask = np.zeros((side, side), np.uint8)
    for k in range(width):
        mask[k + every // 2 :: every] = 1
    return mask


def seen(mask: NDArray[np.uint8], low: int = 0, high: int = 255, deep: bool = False) -> facts.Facts:
    image = np.repeat(np.where(mask, high, low)[..., None], 3, axis=2)
    fitted = image.astype(np.uint16) if deep else image.astype(np.uint8)
    return facts.of_samples([facts.of_sample(fitted, mask)])


@pytest.mark.parametrize(
    ("found", "settings"),
    [
        (seen(disc(30)), {}),
        (seen(disc(30), 10, 60), {"contrast": "stretch"}),
        (seen(disc(30), 0, 65535, deep=True), {"contrast": "stretch"}),
        (seen(disc(60)), {"resize": 192}),
        (seen(disc(20)), {"foreground": 0.33}),
        (seen(grid(3, 40)), {"activation_bits": 2, "zeros": 0.8}),
        (seen(grid(20, 60)), {}),
    ],
    ids=["blob", "dull", "deep", "filling", "scarce", "thin", "stripes"],
)
def test_settings_follow_from_the_samples(found: facts.Facts, settings: dict[str, object]) -> None:
    assert {choice.setting: choice.value for choice in plan.of_folder(found)} == settings


def test_help_and_docs_name_every_setting_that_is_chosen() -> None:
    source = ast.parse(Path(plan.__file__).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(source) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Choice"]
    chosen = {"--" + ast.literal_eval(call.args[0]).replace("_", "-") for call in calls}
    assert {"--crop", "--zeros", "--class-weights"} < chosen
    documented = (Path(__file__).parents[4] / "docs" / "training.md").read_text(encoding="utf-8")
    first = documented.partition("## Data")[0]
    for flag in chosen:
        assert flag in GROUPS["recipe"]
        assert flag in first


def test_facts_of_several_classes_say_which_is_thin() -> None:
    mask = np.where(grid(2, 40), 2, disc(40)).astype(np.uint8)
    image = np.repeat(mask[..., None] * np.uint8(120), 3, axis=2)
    found = facts.of_samples([facts.of_sample(image, mask, 3)], ("road", "hole", "crack"))
    hole, crack = found.classes
    assert (hole.name, crack.name) == ("hole", "crack")
    assert crack.rim > 0.9 > 0.3 > hole.rim
    assert hole.share == pytest.approx((mask == 1).mean())
    for choice in plan.of_folder(found):
        assert "crack" in choice.reason
        assert "hole" not in choice.reason


def test_a_scarce_class_beside_others_weighs_more_and_a_thin_one_is_given_width_and_surroundings() -> None:
    mask = disc(120)
    mask[SIDE // 2 - 1 : SIDE // 2 + 1, 60:260] = 2
    image = np.repeat(np.where(mask, 240, 0).astype(np.uint8)[..., None], 3, axis=2)
    found = facts.of_samples([facts.of_sample(image, mask, 3)], ("outside", "road", "crack"))
    chosen = {choice.setting: choice.value for choice in plan.of_folder(found)}
    assert chosen == {"activation_bits": 2, "zeros": 0.8, "foreground": 0.33, "class_weights": ("balanced",)}
    assert "--class-weights balanced: " in "\n".join(str(choice) for choice in plan.of_folder(found))
    assert plan.sizes(found, {}) == [(32, 192), (16, 192)]
    assert plan.sizes(found, {"crop": 96}) == [(32, 96), (16, 96)]


def test_empty_and_full_masks_are_counted() -> None:
    masks = (np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8), disc(2, 8))
    found = facts.of_samples([facts.of_sample(np.zeros((8, 8, 3), np.uint8), mask) for mask in masks])
    assert (found.empty, found.full) == (1, 1)
    assert found.lines[-1] == "masks: 1 empty, 1 all foreground"


def test_the_largest_size_that_sees_enough_is_taken() -> None:
    rates = {(32, 192): 1.0, (16, 192): 5.0, (16, 128): 10.0, (8, 96): 40.0}

    def speed(width: int, crop: int) -> float:
        return rates[width, crop]

    able = list(rates)
    for seconds, best in ((plan.ENOUGH, (32, 192)), (plan.ENOUGH / 5, (16, 192)), (1, (8, 96))):
        choices, rate = plan.of_speed(able, seconds, speed)
        assert tuple(choice.value for choice in choices) == best
        assert rate == rates[best]


def test_a_crop_is_no_larger_than_the_images_and_what_was_given_stands() -> None:
    small = seen(disc(15, 80))
    assert plan.sizes(small, {}) == [(32, 96), (16, 96), (8, 96)]
    assert plan.sizes(small, {"width": 8, "crop": 64}) == [(8, 64)]
    choices, _ = plan.of_speed([(8, 64)], 1, lambda *_: 1.0, {"width", "crop"})
    assert choices == []
