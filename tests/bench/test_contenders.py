"""The benchmark runs what it says it runs; how fast is never tested."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.__main__ import contenders_of
from tests.bench.contenders import Contender, image
from tests.bench.turns import measure

CONTENDERS = contenders_of(width=4, size=32, threads=1)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_every_contender_gives_a_mask(contender: Contender) -> None:
    result = contender.prepare()()
    mask = np.asarray(result if contender.kind == "torch" else result[0][0])
    assert mask.shape == (32, 32)


def test_folding_batch_norm_away_changes_nothing() -> None:
    import torch

    from engine import unet
    from engine.train.network import Network
    from tests.bench import contenders

    torch.manual_seed(0)
    network = Network(unet.layers(4), floating=True)
    pixels = torch.from_numpy(image(32)).permute(2, 0, 1)[None]
    for _ in range(3):
        network(pixels)  # batch norm gets statistics worth folding
    network.eval()
    with torch.no_grad():
        expected = network(pixels)
        for stage in network.stages.values():
            if hasattr(stage, "norm"):
                contenders.fold_norm(stage)
        assert torch.allclose(network(pixels), expected, atol=1e-4)


def test_contenders_take_turns() -> None:
    ours = [contender for contender in CONTENDERS if contender.kind == "ours"][:2]
    times = measure(ours, rounds=2)
    assert [len(seconds) for seconds in times] == [2, 2]
    assert all(second > 0 for seconds in times for second in seconds)
