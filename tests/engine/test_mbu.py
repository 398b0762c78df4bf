"""The paper's idea against its definitions, exhaustively where the cases can be counted."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from engine import mbu
from engine.networks import unet

TABLE_A4 = {  # cost scores as the paper prints them
    "CT4": 0.011,
    "CT3": 0.016,
    "CT2": 0.037,
    "CT1": 0.120,
    "Up3": 0.228,
    "Down1": 0.273,
    "Up2": 0.286,
    "Down2": 0.406,
    "Up4": 0.512,
    "Up1": 0.521,
    "Down4": 0.583,
    "Down3": 0.625,
}


# -- masking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [0.0, 0.25, 0.8, 0.9, 0.999])
def test_the_asked_share_of_weights_becomes_zero(zeros: float) -> None:
    weights = np.random.default_rng(0).normal(size=(10, 3, 3, 20))
    masked = mbu.mask(weights, mbu.zero_threshold(weights, zeros))
    assert np.count_nonzero(masked == 0) == round(zeros * weights.size)
    assert np.all((masked == 0) | (masked == np.sign(weights)))


def test_without_zeros_even_a_weight_of_zero_keeps_a_sign() -> None:
    weights = np.array([0.0, -0.5, 0.5])
    assert mbu.mask(weights, mbu.zero_threshold(weights, 0.0)).tolist() == [1, -1, 1]
    assert mbu.binarize(weights).tolist() == [1, -1, 1]


def test_equal_magnitudes_are_masked_together() -> None:
    weights = np.array([1.0, -1.0, 1.0, 2.0])
    assert mbu.mask(weights, mbu.zero_threshold(weights, 0.25)).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("zeros", [-0.1, 1.0])
def test_impossible_shares_of_zeros_are_refused(zeros: float) -> None:
    with pytest.raises(ValueError, match="share of zeros"):
        mbu.zero_threshold(np.ones(4), zeros)


# -- weights of two bits, factors of segments -------------------------------------------------------------------------


def test_two_bits_are_dorefas_with_ties_up() -> None:
    weights = np.arctanh(np.array([-0.9, -0.61, -0.59, -1e-9, 0.0, 0.59, 0.61, 0.9]))  # cut at 0 and at 2/3 of .9
    assert mbu.two_bits(weights).tolist() == [-3, -3, -1, -1, 1, 1, 3, 3]
    assert mbu.two_bits(np.zeros((2, 2))).tolist() == [[1, 1], [1, 1]]


def test_two_signs_make_every_value_of_two_bits() -> None:
    values = np.array([-3, -1, 0, 1, 3], np.int8)
    high, low = mbu.split(values)
    assert (2 * high + low).tolist() == values.tolist()
    assert np.abs(high).tolist() == np.abs(low).tolist() == [1, 1, 0, 1, 1]


def test_exponents_are_nearest_in_the_logarithm_with_ties_up() -> None:
    factors = np.array([1e-9, 2**-2.6, 2**-2.5, 0.25, 2**-1.4, 0.5, 2**-0.5, 1 - 1e-9])
    assert mbu.exponents(factors, 3).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


# -- cost score -------------------------------------------------------------------------------------------------------


def test_cost_scores_reproduce_table_a4() -> None:
    costs = unet.block_costs(unet.layers(64), 512, 512)
    scores = mbu.cost_scores([c.operations for c in costs], [c.parameters for c in costs])
    computed = dict(zip([c.block for c in costs], scores, strict=True))
    printed = TABLE_A4 | {"Down2": 0.344}  # the one entry that does not compute
    assert computed == pytest.approx(printed, abs=6e-4)
    assert sorted(computed, key=computed.__getitem__) == list(TABLE_A4)


def test_block_costs_hold_the_weights_of_the_network() -> None:
    costs = unet.block_costs(unet.layers(64), 512, 512)
    assert [c.block for c in costs if c.block.startswith("Down")] == ["Down1", "Down2", "Down3", "Down4"]
    assert {c.block for c in costs} == set(unet.BLOCKS)
    outside = 3 * 9 * 64 + 9 * 64 * 64 + 64  # input block and head
    assert sum(c.parameters for c in costs) + outside == pytest.approx(14.79e6, rel=1e-3)


# -- subtractive bit-encoding ------------------------------------------------------------------------------------------


def test_dot_equals_its_definition_for_every_weight_and_activation() -> None:
    for weights in product((-1, 0, 1), repeat=4):
        pos, neg = mbu.encode(np.array(weights, np.int8))
        assert not np.any(pos & neg)
        for bits in product((False, True), repeat=4):
            expected = sum(w * (1 if bit else -1) for w, bit in zip(weights, bits, strict=True))
            assert mbu.dot(np.array(bits), pos, neg) == expected


# -- threshold folding ------------------------------------------------------------------------------------------------


def assert_fold_is_exact(norm: mbu.BatchNorm, bound: int) -> None:
    """For signs and for levels of two bits: as many thresholds are reached as targets by the batch norm."""
    for targets in (mbu.SIGN, mbu.level_targets(2)):
        theta, flip = mbu.fold(norm, np.full(len(norm.gamma), bound), targets)
        assert np.all((theta >= -bound) & (theta <= bound + 1))
        assert np.all(np.diff(theta, axis=1) >= 0)
        for acc in range(-bound, bound + 1):
            sums = np.full(len(norm.gamma), acc)
            reached = norm(sums)[:, None] >= np.array(targets)
            np.testing.assert_array_equal(np.where(flip, -sums, sums)[:, None] >= theta, reached)


def batch_norm(gamma: float, beta: float, mean: float, var: float, scale: float, bias: float) -> mbu.BatchNorm:
    gammas, betas, means, variances, scales, biases = np.array([[gamma], [beta], [mean], [var], [scale], [bias]])
    return mbu.BatchNorm(gammas, betas, means, variances, scales, biases)


@pytest.mark.parametrize("bound", [0, 1, 7, 200])
def test_fold_equals_batch_norm_and_sign_for_every_sum(bound: int) -> None:
    rng = np.random.default_rng(bound)
    gamma = rng.normal(size=300) * (rng.random(300) > 0.1)
    beta, mean, bias = rng.normal(size=300), rng.normal(size=300) * bound, rng.normal(size=300)
    assert_fold_is_exact(mbu.BatchNorm(gamma, beta, mean, rng.random(300), rng.random(300) + 0.01, bias), bound)


@pytest.mark.parametrize("gamma", [2.0, -2.0])
@pytest.mark.parametrize("mean", [-3.0, 0.0, 3.0])
def test_a_batch_norm_of_exactly_zero_is_a_one(gamma: float, mean: float) -> None:
    norm = batch_norm(gamma, 0.0, mean, 1.0, 1.0, 0.0)
    assert norm(np.array([int(mean)])) == 0
    assert_fold_is_exact(norm, 5)


@pytest.mark.parametrize("gamma", [0.0, -0.0])
@pytest.mark.parametrize(("beta", "theta"), [(1.0, -9), (0.0, -9), (-1.0, 10)])
def test_gamma_zero_gives_a_constant_bit(gamma: float, beta: float, theta: int) -> None:
    norm = batch_norm(gamma, beta, 2.5, 1.0, 1.0, 0.0)
    assert mbu.fold(norm, np.array([9]))[0].tolist() == [[theta]]
    assert_fold_is_exact(norm, 9)


@pytest.mark.parametrize("gamma", [1e300, 1e-300, -1e300, -1e-300, 5e-324])
@pytest.mark.parametrize("beta", [1e200, -1e200, 1e-300, -1e-300])
@pytest.mark.parametrize("var", [0.0, 1e-300, 1e300])
def test_fold_stays_exact_at_extreme_values(gamma: float, beta: float, var: float) -> None:
    with np.errstate(over="ignore"):
        assert_fold_is_exact(batch_norm(gamma, beta, 0.5, var, 1e-4, 1e-9), 20)


def test_fold_reaches_the_largest_bounds() -> None:
    bound = 255 * 27 * mbu.FIXED_POINT_MAX
    norm = batch_norm(-1.0, 0.0, float(bound), 1.0, 1.0, 0.0)
    theta, flip = mbu.fold(norm, np.array([bound]))
    assert (theta.tolist(), flip.tolist()) == ([[-bound]], [True])


def test_levels_are_rounded_as_dorefa_does_with_ties_up() -> None:
    """round((2^p - 1) x) / (2^p - 1) of x clipped to [0, 1]; a sum halfway between two levels takes the upper one."""
    assert mbu.level_targets(1) == (0.5,)
    assert mbu.level_targets(2) == (1 / 6, 3 / 6, 5 / 6)
    norm = batch_norm(1.0, 0.0, 0.0, 1 - 1e-5, 1 / 4, 0.0)  # a quarter for every unit
    theta, _ = mbu.fold(norm, np.array([20]), mbu.level_targets(2))
    levels = (np.arange(-2, 7)[:, None] >= theta[0]).sum(axis=1)
    assert levels.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3]


def test_fold_refuses_a_scale_that_would_turn_the_comparison_round() -> None:
    with pytest.raises(ValueError, match="scale"):
        mbu.fold(batch_norm(1.0, 0.0, 0.0, 1.0, -1.0, 0.0), np.array([3]))


# -- fixed point ------------------------------------------------------------------------------------------------------


def test_fixed_point_uses_the_whole_range_and_rounds_to_nearest() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3))
    weights[2] = 0
    integers, step = mbu.fixed_point(weights, (1, 2, 3))
    assert np.abs(integers).max((1, 2, 3)).tolist() == [32767, 32767, 0, 32767]
    assert np.all(np.abs(integers * step - weights) <= step * 0.5000001)
    assert step[2] == 1


@pytest.mark.parametrize("largest", [1 << 12, 1 << 19, 2**31 - 2])
@pytest.mark.parametrize("inputs", [1, 3])
def test_weights_use_as_much_of_int16_as_their_logits_may_reach(inputs: int, largest: int) -> None:
    rng = np.random.default_rng(largest)
    weights, bias = rng.normal(size=(3, 40)), rng.normal(size=3)
    limit = mbu.fixed_point_limit(weights, bias, inputs, largest)
    integers, step = mbu.fixed_point(weights, None, limit)
    added = np.rint(bias * inputs / step.item()).astype(np.int64)
    reached = int((inputs * np.abs(integers.astype(np.int64)).sum(1) + np.abs(added)).max())
    assert reached <= largest
    assert limit == mbu.FIXED_POINT_MAX or reached > largest - 2 * (inputs * 40 + 1) - largest / limit


@pytest.mark.parametrize("scale", [1e-6, 0.003, 0.7])
@pytest.mark.parametrize("probability", [0.001, 0.3, 0.5, 0.9])
def test_integer_threshold_is_the_smallest_logit_that_reaches_the_probability(scale: float, probability: float) -> None:
    threshold = mbu.integer_threshold(probability, scale)
    assert 1 / (1 + np.exp(-scale * threshold)) >= probability - 1e-12
    assert 1 / (1 + np.exp(-scale * (threshold - 1))) < probability


def test_integer_thresholds_at_the_ends_take_all_or_nothing() -> None:
    assert mbu.integer_threshold(0.5, 0.01) == 0
    assert mbu.integer_threshold(0.0, 0.01) == -(2**31)
    assert mbu.integer_threshold(1.0, 0.01) == 2**31 - 1
    assert mbu.integer_threshold(1e-9, 1e-12) == -(2**31)
    with pytest.raises(ValueError, match="probability"):
        mbu.integer_threshold(1.5, 0.01)
