"""Bits packed into bytes and back."""

from __future__ import annotations

import numpy as np
import pytest

from engine.bits import pack, unpack


@pytest.mark.parametrize("inputs", [(1,), (8,), (3, 5), (8, 9, 17)])
def test_unpack_inverts_pack(inputs: tuple[int, ...]) -> None:
    bits = np.random.default_rng(0).random((2, 3, sum(inputs))) < 0.5
    assert np.array_equal(unpack(pack(bits, inputs), inputs), bits)


def test_pack_rounds_every_input_up_and_puts_channel_0_lowest() -> None:
    bits = np.zeros(12, np.bool_)
    bits[[0, 9, 10]] = True  # channel 0 of nine, channels 0 and 1 of three
    assert pack(bits, (9, 3)).tolist() == [1, 0, 3]
