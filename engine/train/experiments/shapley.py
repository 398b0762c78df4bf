"""Shapley values of a game that only some coalitions have been played of: what each block adds to the score."""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

Members = NDArray[np.bool_]
Values = NDArray[np.float64]


def coalitions(players: int, count: int, seed: int = 0, stratified: bool = True) -> Members:
    """`count` different coalitions, bool [count, players], the empty and the full one first.

    Stratified: sizes come equally often, and every coalition is followed by its complement, which halves the variance
    of the estimate. Otherwise coalitions are drawn uniformly, so that their sizes are mostly near one half.
    """
    if not 2 <= count <= 1 << players:
        raise ValueError(f"{players} blocks have 2 to {1 << players} configurations, not {count}")
    rng = np.random.default_rng(seed)
    ends = [np.zeros(players, np.bool_), np.ones(players, np.bool_)]
    chosen = {end.tobytes(): end for end in ends}
    sizes = [1 + i % (players - 1) for i in rng.permutation(players - 1)]
    drawn = 0
    while len(chosen) < count:
        member = rng.random(players) < 0.5
        if stratified:
            size = sizes[drawn % len(sizes)]
            if all(_full(chosen, players, s) for s in (size, players - size)):
                drawn += 1
                continue
            member = np.zeros(players, np.bool_)
            member[rng.permutation(players)[:size]] = True
            if member.tobytes() in chosen:
                continue
        drawn += 1
        for one in (member, ~member) if stratified else (member,):
            if len(chosen) < count:
                chosen[one.tobytes()] = one
    return np.stack(list(chosen.values()))


def _full(chosen: dict[bytes, Members], players: int, size: int) -> bool:
    return sum(int(member.sum()) == size for member in chosen.values()) == comb(players, size)


def estimate(members: Members, values: Values) -> Values:
    """Shapley values [players] from coalitions `members` [n, players] and their `values` [n].

    Weighted least squares (Lundberg and Lee 2017, Kernel SHAP): the linear game nearest to the one observed, the sum of
    all values being what the full coalition has over the empty one. Both must be among `members`; where they or others
    are there more than once, their mean counts. With all coalitions present the values are exact.
    """
    players = members.shape[1]
    sizes = members.sum(1)
    if not (np.any(sizes == 0) and np.any(sizes == players)):
        raise ValueError("Shapley values need the empty and the full coalition")
    nothing, everything = float(values[sizes == 0].mean()), float(values[sizes == players].mean())
    inner = (sizes > 0) & (sizes < players)
    x, y, inner_sizes = members[inner].astype(np.float64), values[inner] - nothing, sizes[inner]
    # all coalitions of a size weigh (players - 1) / (size * (players - size)) together, however many were played
    weight = (players - 1) / (inner_sizes * (players - inner_sizes)) / np.bincount(inner_sizes)[inner_sizes]
    # the constraint sum(phi) = everything - nothing takes the last player out of the equations
    total = everything - nothing
    root = np.sqrt(weight)
    left = (x[:, :-1] - x[:, -1:]) * root[:, None]
    right = (y - x[:, -1] * total) * root
    phi, *_ = np.linalg.lstsq(left, right, rcond=None)
    return np.append(phi, total - phi.sum())


def interval(
    members: Members, values: Values, level: float = 0.95, rounds: int = 1000, seed: int = 0
) -> tuple[Values, Values]:
    """Bootstrap interval (low, high), each [players], of `estimate`: coalitions drawn again, size by size."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(members.sum(1) == size) for size in range(members.shape[1] + 1)]
    draws = []
    for _ in range(rounds):
        again = np.concatenate([rng.choice(group, group.size) for group in groups if group.size])
        draws.append(estimate(members[again], values[again]))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
