"""Shapley values against their definition, and sampling of coalitions."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from engine.train.experiments import shapley


def everyone(players: int) -> shapley.Members:
    return np.array(list(product((False, True), repeat=players)))


def by_definition(members: shapley.Members, values: shapley.Values) -> shapley.Values:
    """The mean, over all orders of joining, of what a player adds on joining."""
    players = members.shape[1]
    value = {member.tobytes(): v for member, v in zip(members, values, strict=True)}
    added = np.zeros(players)
    orders = list(permutations(range(players)))
    for order in orders:
        present = np.zeros(players, np.bool_)
        for player in order:
            before = value[present.tobytes()]
            present[player] = True
            added[player] += value[present.tobytes()] - before
    return added / len(orders)


def test_all_coalitions_give_the_values_of_the_definition() -> None:
    members = everyone(5)
    values = np.random.default_rng(0).normal(size=32)
    np.testing.assert_allclose(shapley.estimate(members, values), by_definition(members, values), atol=1e-12)


def test_an_additive_game_is_found_from_a_sample() -> None:
    members = shapley.coalitions(12, 40, seed=1)
    worth = np.arange(12) - 4.0
    values = 3.0 + members @ worth
    np.testing.assert_allclose(shapley.estimate(members, values), worth, atol=1e-9)
    low, high = shapley.interval(members, values, rounds=20)
    np.testing.assert_allclose([low, high], [worth, worth], atol=1e-6)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    worth, members = np.linspace(-0.02, 0.02, 12), shapley.coalitions(12, 90, seed=2)
    held = []
    for seed in range(20):
        noisy = members @ worth + np.random.default_rng(seed).normal(0, 0.01, len(members))
        noisy[:2] = (members @ worth)[:2]
        low, high = shapley.interval(members, noisy, rounds=100, seed=seed)
        held.append((low <= worth) & (worth <= high))
    assert 0.75 < np.mean(held) < 0.99


@pytest.mark.parametrize("stratified", [True, False])
def test_samples_are_different_and_hold_both_ends(stratified: bool) -> None:
    members = shapley.coalitions(12, 68, seed=3, stratified=stratified)
    assert len({member.tobytes() for member in members}) == 68
    assert (members[0].sum(), members[1].sum()) == (0, 12)
    np.testing.assert_array_equal(members, shapley.coalitions(12, 68, seed=3, stratified=stratified))
    counts = np.bincount(members.sum(1), minlength=13)[1:12]
    assert (counts.min() >= 4) == stratified


@pytest.mark.parametrize("stratified", [True, False])
def test_a_sample_of_all_is_all(stratified: bool) -> None:
    assert len(shapley.coalitions(4, 16, stratified=stratified)) == 16
    with pytest.raises(ValueError, match="not 17"):
        shapley.coalitions(4, 17)


def test_both_ends_are_needed() -> None:
    with pytest.raises(ValueError, match="empty and the full"):
        shapley.estimate(everyone(3)[1:], np.zeros(7))
