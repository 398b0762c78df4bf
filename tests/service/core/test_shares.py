"""Whose turn it is."""

from __future__ import annotations

from collections import Counter

from service.core.shares import KINDS, Kind, Shares

SMALL, LARGE = Kind(False, False), Kind(False, True)


def served(shares: Shares, pixels: dict[Kind, int], turns: int) -> list[Kind]:
    """Who gets so many turns, where all of these always have something to do, of so many pixels."""
    order = []
    for _ in range(turns):
        order.append(kind := shares.next(pixels))
        shares.charge(kind, pixels[kind])
    return order


def test_kinds_share_by_pixels_and_weight() -> None:
    turns = Counter(served(Shares(), dict.fromkeys(KINDS, 100), 1000))
    assert turns == {kind: 400 if not kind.low_priority else 100 for kind in KINDS}
    turns = Counter(served(Shares(), {SMALL: 10, LARGE: 1000}, 1010))
    assert turns == {SMALL: 1000, LARGE: 10}


def test_who_comes_new_is_next_and_has_saved_nothing_up() -> None:
    shares = Shares()
    served(shares, {LARGE: 1000}, 50)
    shares.begin(SMALL)
    order = served(shares, {SMALL: 1000, LARGE: 1000}, 9)
    assert order[0] == SMALL
    assert Counter(order) == {SMALL: 5, LARGE: 4}


def test_who_was_served_alone_is_not_made_to_pay_for_it() -> None:
    shares = Shares()
    served(shares, {SMALL: 1000}, 50)
    shares.begin(LARGE)
    shares.begin(SMALL)  # had a pause
    assert Counter(served(shares, {SMALL: 1000, LARGE: 1000}, 10)) == {SMALL: 5, LARGE: 5}
