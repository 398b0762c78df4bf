"""The cost-aware strategy: what a configuration costs, and which blocks are masked first."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import strategy
from engine.networks import unet
from engine.strategy import CostModel

PAPER_ORDER = ["CT4", "CT3", "CT2", "CT1", "Up3", "Down1", "Up2", "Down2", "Up4", "Up1", "Down4", "Down3"]


def test_bmma_masks_in_the_order_of_the_papers_table() -> None:
    assert CostModel().ranking(unet.layers(64)) == PAPER_ORDER
    assert CostModel().ranking(unet.layers(8)) == PAPER_ORDER


def test_cpu_masks_first_what_saves_most() -> None:
    assert CostModel("cpu").ranking(unet.layers(64)) == PAPER_ORDER[::-1]
    assert all(score < 0 for score in CostModel("cpu").scores(unet.layers(8)).values())


def test_both_weights_of_the_score_are_free() -> None:
    costs = unet.block_costs(unet.layers(64), 512, 512)
    by_operations = sorted(costs, key=lambda cost: cost.operations)
    by_parameters = sorted(costs, key=lambda cost: cost.parameters)
    assert CostModel(w_op=1, w_param=0).ranking(unet.layers(64)) == [cost.block for cost in by_operations]
    assert CostModel(w_op=0, w_param=1).ranking(unet.layers(64)) == [cost.block for cost in by_parameters]


@pytest.mark.parametrize("wrong", [{"backend": "tpu"}, {"w_op": -1.0}, {"w_op": 0.0, "w_param": 0.0}])
def test_impossible_cost_models_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="cost"):
        CostModel(**wrong)  # type: ignore[arg-type]


def test_products_of_the_papers_network() -> None:
    masked, binary = unet.layers(64), unet.layers(64, masked=())
    input_block = 64 * 64 * 9 * 512 * 512
    dense = strategy.products(binary, "bmma") - input_block  # its second convolution is always masked
    assert dense == pytest.approx(127.5e9, rel=0.01)  # the multiply-accumulates of the bit layers
    assert strategy.products(masked, "bmma") == 2 * dense
    assert strategy.products(masked, "cpu", zeros=0.9) == pytest.approx(0.1 * dense)
    assert strategy.products(binary, "cpu", zeros=0.75) == pytest.approx(dense - 0.75 * input_block)


def test_every_weight_sees_the_pixels_of_its_resolution() -> None:
    flat = unet.layers(2)
    visits = dict(zip([layer.name for layer in flat], strategy.weight_visits(flat), strict=True))
    assert visits["in.conv1"] == visits["head"] == visits["down1.pool"] == 0
    assert visits["down1.conv1"] == 2 * 4 * 9 * 256 * 256
    assert visits["ct4"] == 2 * 2 * 4 * 256 * 256  # every output pixel is seen by one of four taps
    assert visits["up4.conv1"] == 4 * 2 * 9 * 512 * 512


@pytest.mark.parametrize(
    ("wanted", "blocks"),
    [
        (["all"], unet.BLOCKS),
        (["none"], ()),
        (["0"], ()),
        (["5"], ("CT1", "CT2", "CT3", "CT4", "Up3")),
        (["12"], unet.BLOCKS),
        (["Up1", "Down3"], ("Down3", "Up1")),
        ([], ()),
    ],
)
def test_blocks_are_chosen_by_number_and_name(wanted: list[str], blocks: tuple[str, ...]) -> None:
    assert strategy.choose(wanted, CostModel(), 64) == blocks


@pytest.mark.parametrize(("wanted", "fault"), [(["13"], "12 blocks"), (["Up5"], "Up5"), (["auto"], "sweep")])
def test_what_is_no_choice_is_refused(wanted: list[str], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        strategy.choose(wanted, CostModel(), 64)


def sweep_csv(path: Path, *rows: tuple[object, ...]) -> Path:
    lines = ["masked,dice,bmma_products,cpu_products", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_auto_takes_the_cheapest_configuration_near_the_fully_masked_one(tmp_path: Path) -> None:
    everything = " ".join(unet.BLOCKS)
    rows = [(everything, "0.80", 24, 2.4), ("Up1 Up2", "0.795", 14, 10), ("Up1", "0.78", 13, 11), ("", "", 12, 12)]
    file = sweep_csv(tmp_path / "sweep.csv", *rows)
    assert strategy.choose(["auto"], CostModel("bmma"), 64, file) == ("Up1", "Up2")
    assert strategy.choose(["auto"], CostModel("bmma"), 64, file, within=0.03) == ("Up1",)
    assert strategy.choose(["auto"], CostModel("bmma"), 64, file, within=0.001) == unet.BLOCKS
    assert strategy.choose(["auto"], CostModel("cpu"), 64, file, within=0.03) == unet.BLOCKS


def test_auto_needs_the_fully_masked_configuration(tmp_path: Path) -> None:
    file = sweep_csv(tmp_path / "sweep.csv", ("Up1", "0.8", 1.0, 1.0))
    with pytest.raises(ValueError, match="no fully masked"):
        strategy.choose(["auto"], CostModel(), 64, file)
