"""torch in evaluation mode == the reference on the exported model: every bit of every layer, and the logits."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine import strategy
from engine.backends import reference
from engine.model import ClassInfo, Model
from engine.networks import unet
from engine.train import kinds
from engine.train.config import Config
from engine.train.convolution import BitConv
from engine.train.export import ExportError, prove, to_model
from engine.train.network import Network

MIXED = ("Down2", "CT1", "Up1", "Up4")


def random_network(
    width: int, masked: Collection[str], classes: int = 1, seed: int = 0, weights: tuple[str, ...] = ()
) -> Network:
    """A network with gamma of every sign, zero included, and norms that fit its activations, so that bits vary."""
    torch.manual_seed(seed)
    names = tuple(f"class {k}" for k in range(classes)) if classes > 1 else ()
    network = Network(Config("", "", width=width, masked=tuple(masked), classes=names, weights=weights).layers())
    network.set_zeros(0.6)
    for norm in (stage.norm for stage in network.stages.values() if isinstance(stage, BitConv)):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias, std=0.3)
        norm.weight.data[::4] = 0
        norm.momentum = None
    with torch.no_grad():
        network(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8))
    torch.nn.init.normal_(network.stages["head"].bias)  # type: ignore[arg-type]
    return network.eval()


def exported(network: Network, classes: int = 1) -> Model:
    infos = [ClassInfo(f"class {k}", (k, 0, 0)) for k in range(classes)]
    return to_model(network, Config(data="data", out="out"), name="random", classes=infos, provenance={})


def random_image(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(16, 16), (48, 32)])
@pytest.mark.parametrize("masked", [unet.BLOCKS, (), MIXED], ids=["masked", "binary", "mixed"])
@pytest.mark.parametrize("width", [3, 5, 8])
def test_torch_equals_the_reference(width: int, masked: Collection[str], size: tuple[int, int]) -> None:
    network = random_network(width, masked)
    image, model = random_image(*size), exported(network)
    with torch.no_grad():
        traced = network.trace(torch.from_numpy(image.transpose(2, 0, 1).copy())[None], keep=True)
    result = reference.run(model, image)
    for layer in model.layers[:-1]:
        np.testing.assert_array_equal(result.trace[layer.name], traced[layer.name][0].permute(1, 2, 0), layer.name)
    logits = traced["head"][0].permute(1, 2, 0).numpy() / model.layers[-1].scale
    np.testing.assert_array_equal(result.logits, np.rint(logits))
    assert np.abs(logits - np.rint(logits)).max() < 1e-6
    assert 0.1 < result.trace["up4.conv2"].mean() < 0.9  # else the test says nothing


def same_bits(network: Network, image: NDArray[np.uint8]) -> float:
    """Share of a late layer's bits that training's forward pass, on running statistics, has in common with eval's."""
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        exact = network.trace(pixels, keep=True)["down1.conv1"]
        for stage in network.stages.values():
            if isinstance(stage, BitConv):
                stage.training = True  # but batch norm stays in evaluation mode
        faked = network.trace(pixels, keep=True)["down1.conv1"]
    assert 0.1 < float(exact.mean()) < 0.9
    return float((exact == faked).float().mean())


@pytest.mark.parametrize("kind", [*kinds.TERNARY, *kinds.MULTIBIT])
def test_every_quantiser_evaluates_what_it_trains(kind: str) -> None:
    assert same_bits(random_network(6, MIXED, weights=(kind,)), random_image(48, 32)) > 0.99


@pytest.mark.parametrize("kind", kinds.TERNARY)
def test_every_ternary_quantiser_is_exported_to_the_bit(kind: str) -> None:
    network = random_network(5, MIXED, weights=(kind,))
    model = exported(network)
    prove(network, model, [random_image(48, 32)])
    assert {layer.weights for layer in model.layers} == {"int16", "masked", "binary", ""}
    zeros = np.mean(model.ternary(model.layers[1]) == 0)
    least, most = {"masked": (0.59, 0.61), "twn": (0.3, 0.6), "max-abs": (0.7, 0.99), "seq": (0.3, 0.9)}[kind]
    assert least < zeros < most


@pytest.mark.parametrize("kind", kinds.MULTIBIT)
def test_baselines_of_several_bits_are_not_exported(kind: str) -> None:
    with pytest.raises(ExportError, match=f"weights of {kind} are a baseline"):
        exported(random_network(4, MIXED, weights=(f"Down2={kind}",)))


def test_integers_fill_their_range() -> None:
    for kind, limit in kinds.MULTIBIT.items():
        network = random_network(4, ("Down2",), weights=(f"Down2={kind}",))
        weights = network.bit_convolutions()["down2.conv1"].quantized_params().weights
        assert np.abs(weights[0]).reshape(len(weights[0]), -1).max(1).tolist() == [limit] * len(weights[0])
        assert set(np.unique(network.bit_convolutions()["up1.conv1"].quantized_params().weights)) == {-1, 1}


def test_zeros_by_cost_are_a_share_of_the_products() -> None:
    network = random_network(8, unet.BLOCKS)
    network.set_zeros(0.8, "cost")
    model = exported(network)
    visits = strategy.weight_visits(model.layers)
    kept = [np.mean(model.ternary(layer) != 0) if v else 0 for layer, v in zip(model.layers, visits, strict=True)]
    assert np.dot(kept, visits) / sum(visits) == pytest.approx(0.2, abs=0.01)
    zeros = dict(zip([layer.name for layer in model.layers], 1 - np.array(kept), strict=True))
    assert zeros["ct4"] < zeros["down4.conv2"] < zeros["up4.conv1"]  # in the order of their products


def test_another_networks_weights_are_taken_whatever_its_quantiser() -> None:
    other = random_network(4, unet.BLOCKS, weights=("seq",))
    for weights in ((), ("seq",)):
        network = random_network(4, unet.BLOCKS, seed=1, weights=weights)
        network.warm_start(other.state_dict())
        for name, stage in network.bit_convolutions().items():
            assert torch.equal(stage.weight, other.bit_convolutions()[name].weight)
            if stage.scale is not None:
                assert torch.equal(stage.scale, stage.weight.detach().abs().amax(stage.summed))


def test_gamma_of_every_sign_occurs_and_turns_weights_round() -> None:
    network = random_network(4, unet.BLOCKS)
    stage = network.stages["down1_conv1"]
    assert isinstance(stage, BitConv)
    gamma, latent = stage.norm.weight.detach().numpy(), stage.weight.detach().numpy().transpose(0, 2, 3, 1)
    weights = stage.quantized_params().weights[0, :, 0, 0]
    assert {-1, 0, 1} == set(np.sign(gamma))
    for channel, sign in enumerate(np.where(gamma < 0, -1, 1)):
        kept = weights[channel] != 0
        assert np.array_equal(weights[channel][kept], sign * np.sign(latent[channel][kept]))


def test_several_classes_have_one_logit_each() -> None:
    network = random_network(4, unet.BLOCKS, classes=3)
    prove(network, exported(network, classes=3), [random_image(32, 16)])


def test_the_proof_names_the_first_layer_that_differs() -> None:
    network = random_network(4, unet.BLOCKS)
    model = exported(network)
    for name in ("down2.conv1", "up3.conv1"):
        model.tensors[f"{name}.theta"][:] += 3
    with pytest.raises(ExportError, match=r"^down2\.conv1: "):
        prove(network, model, [random_image(32, 32)])


def test_the_proof_looks_at_the_logits() -> None:
    network = random_network(4, unet.BLOCKS)
    model = exported(network)
    model.tensors["head.bias"][:] += 1
    with pytest.raises(ExportError, match=r"^head: 256 of 256"):
        prove(network, model, [random_image(16, 16)])


def test_training_and_evaluation_agree_up_to_the_rounding_of_ties() -> None:
    """The straight-through forward pass with running statistics computes the same bits, save for float32 rounding."""
    assert same_bits(random_network(8, MIXED), random_image(64, 32)) > 0.999


def test_a_network_in_full_precision_has_no_integers() -> None:
    network = Network(unet.layers(3), full_precision=True)
    with pytest.raises(ExportError, match="full precision"):
        exported(network)


def test_zero_weights_follow_the_asked_share() -> None:
    network = random_network(8, unet.BLOCKS)
    network.set_zeros(0.9)
    weights = [layer.quantized_params().weights for layer in network.bit_convolutions().values()]
    assert [np.mean(w == 0) for w in weights] == pytest.approx([0.9] * len(weights), abs=0.005)
    assert exported(network).provenance["zeros"] == pytest.approx(0.9, abs=0.001)
