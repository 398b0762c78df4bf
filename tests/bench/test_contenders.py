"""The benchmark runs what it says it runs; how fast is never tested."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.networks import unet
from engine.networks.families import FAMILIES
from tests.bench import __main__ as bench
from tests.bench import contenders, parts, peers, plot, turns
from tests.bench.contenders import Contender, image

TINY, SIZE = 4, 32


def tiny() -> list[Contender]:
    """Every kind of contender, as small as it can be."""
    found = [
        *parts.everyone(TINY, SIZE, 1),
        *parts.shipped(SIZE, 1),
        *(replace(c, width=TINY) for c in (*parts.bfcn(SIZE, 1), *parts.multi_branch(SIZE, 1))),
    ]
    return [replace(contender, highest="") for contender in found]  # that would bind this whole process


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "CACHE", tmp_path)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("contender", tiny(), ids=lambda contender: f"{contender.family}, {contender.name}")
def test_every_contender_gives_a_mask(contender: Contender) -> None:
    if missing := contender.missing():
        pytest.skip(f"{contender.name} is not tried without {', '.join(missing)}: pip install -e '.[peers]'")
    assert np.asarray(contender.prepare()()).shape == (SIZE, SIZE)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("kind", ["openvino", "onnxruntime"])
def test_peers_run_the_same_network(kind: str, family: str) -> None:
    """Pixel by pixel what PyTorch decides, but for those whose logit rounding may turn."""
    peer = Contender("", kind, TINY, SIZE, 1, family=family)
    if missing := peer.missing():
        pytest.skip(f"{kind} is not compared with PyTorch without {', '.join(missing)}: pip install -e '.[peers]'")
    expected = Contender("", "torch", TINY, SIZE, 1, family=family).prepare()()
    assert 0.05 < expected.mean() < 0.95
    assert np.mean(np.asarray(peer.prepare()()) == expected) > 0.99


def test_zeros_of_peers_are_ours() -> None:
    model = contenders.our_model(Contender("", "ours", TINY, zeros=0.9))
    kept = peers._kept(TINY, 0.9)
    for layer in model.layers:
        if layer.weights == "masked":
            assert kept[layer.name].sum() == np.count_nonzero(model.ternary(layer))


def test_branches_have_as_many_weights_as_they_may() -> None:
    """Nine, four and one of the nine that each of the three is stored with, and a tenth of those."""
    model = contenders.our_model(Contender("", "ours", 16, zeros=0.9, family="multi-branch"))
    layers = [layer for layer in model.layers if layer.segments > 1]
    assert {layer.name for layer in layers} == {f"up{i}.branches" for i in (1, 2, 3, 4)}
    for layer in layers:
        assert np.mean(model.ternary(layer) != 0) == pytest.approx(0.1 * 14 / 27, rel=0.1)


def test_half_the_blocks_are_masked_by_cost() -> None:
    """The cheapest six of the paper's Table A.4."""
    assert set(contenders.cheapest_half(64)) == {"CT1", "CT2", "CT3", "CT4", "Up3", "Down1"}
    assert set(unet.BLOCKS) > set(contenders.cheapest_half(64))


def test_a_random_model_has_the_shipped_models_zeros() -> None:
    shipped, random = (contenders.our_model(c) for c in parts.shipped(SIZE, 1))
    for layer in shipped.layers:
        if layer.weights == "masked":
            shares = [np.mean(model.ternary(layer) == 0) for model in (shipped, random)]
            assert shares[0] == pytest.approx(shares[1], abs=0.02)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_folding_batch_norm_away_changes_nothing(family: str) -> None:
    import torch

    from engine.train.network import Network

    torch.manual_seed(0)
    network = Network(FAMILIES[family](TINY), full_precision=True)
    pixels = torch.from_numpy(image(SIZE)).permute(2, 0, 1)[None]
    for _ in range(3):
        network(pixels)  # batch norm gets statistics worth folding
    network.eval()
    with torch.no_grad():
        expected = network(pixels)
        for stage in network.stages.values():
            if hasattr(stage, "norm"):
                contenders.fold_norm(stage)
        assert torch.allclose(network(pixels), expected, atol=1e-4)


def small(size: int, threads: int) -> Sequence[Contender]:
    """Two of ours in the place of a whole part."""
    return [parts.our(f"{share}", TINY, size, threads, zeros=share) for share in (0.5, 0.9)]


def test_parts_are_measured_written_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(turns, "TURN", 0)
    monkeypatch.setattr(sys, "argv", ["bench", "--size", str(SIZE), "--threads", "1", "--out", str(tmp_path)])
    names = ("width64", "zeros", "sizes", "threads")
    some = {name: parts.Part(name, small, 1) for name in names} | {"memory": parts.Part("", small, 1, memory=True)}
    monkeypatch.setattr(bench, "parts", lambda: some)
    bench.main()
    assert "median_ms" in capsys.readouterr().out
    for name in names:
        rows = plot.read(tmp_path / f"{name}.csv")
        assert [float(row["zeros"]) for row in rows] == [0.5, 0.9]
        assert all(float(row["median_ms"]) >= float(row["min_ms"]) > 0 for row in rows)
    assert all(float(row["idle_mb"]) > 1 for row in plot.read(tmp_path / "memory.csv"))
    plot.draw(tmp_path, tmp_path / "images")
    assert {file.name for file in (tmp_path / "images").iterdir()} == {"bench.png", "zeros.png", "scaling.png"}


def test_who_is_missing_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contenders.NEEDS, "openvino", ("no_such_package",))
    left = bench.present(parts.openvino(TINY, SIZE, 1))
    assert left == []
    assert "left out: OpenVINO BF16, without no_such_package" in capsys.readouterr().out
