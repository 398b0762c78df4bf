"""Every form of every operation: torch's evaluation == the reference on the exported model, and training's fakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from engine import check, mbu, ops
from engine.backends import reference
from engine.layer import IMAGE, Layer
from engine.model import ClassInfo, Model
from engine.networks import multibranch
from engine.train import kinds
from engine.train.config import Config
from engine.train.convolution import BitConv
from engine.train.export import ExportError, prove, to_model
from engine.train.head import Head, doubled
from engine.train.network import STAGES, Network
from tests.random_networks import WRITTEN, random_layers

SEEDS = range(76)  # so many that every form occurs
SIZE = 32
RAMPS = (kinds.CENTERED, kinds.DOREFA)


@cache
def trained(seed: int) -> list[Layer]:
    """A random layer list with the quantizer of every layer; with every other seed two segments are two-bit weights."""
    two = {kind: kinds.OF_TWO_BITS[kind] for kind in ("binary", "masked")} if seed % 2 else {}
    return [
        replace(layer, weights=two.get(layer.weights, layer.weights)) if layer.segments == 2 else layer
        for layer in random_layers(seed)
    ]


def randomized(network: Network, seed: int) -> Network:
    """Random parameters, gammas of every sign and zero, and norms that fit the activations, so that bits vary."""
    torch.manual_seed(seed)
    network.set_zeros(0.6)
    for conv in convolutions(network):
        nn.init.normal_(conv.norm.weight)
        nn.init.normal_(conv.norm.bias, mean=0.2, std=0.3)
        conv.norm.weight.data[2::4] = 0
        conv.norm.momentum = None
        if conv.factors is not None:
            nn.init.normal_(conv.factors, std=2)
    with torch.no_grad():
        network(torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8))
    for stage in network.stages.values():
        if isinstance(stage, Head):
            nn.init.normal_(stage.bias)
    return network.eval()


def convolutions(network: Network) -> list[BitConv]:
    return [stage for stage in network.stages.values() if isinstance(stage, BitConv)]


def exported(network: Network) -> Model:
    infos = [ClassInfo(f"class {k}", (k, 0, 0)) for k in range(network.layers[-1].channels)]
    return to_model(network, Config("data", "out"), name="random", classes=infos, provenance={})


def random_image(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, 2 * SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("seed", SEEDS)
def test_torch_equals_the_reference(seed: int) -> None:
    network = randomized(Network(trained(seed), ramp=RAMPS[seed // 2 % 2]), seed)
    model = exported(network)
    check.check(model)
    prove(network, model, [random_image(seed)])
    outputs = reference.run(model, random_image(seed)).trace
    varied = [name for name, levels in outputs.items() if len(np.unique(levels)) == 2 ** model.outputs[name].planes]
    assert len(varied) > 1  # else the proof says nothing


@cache
def proven() -> tuple[Network, Model]:
    """A network with branches, a gate and a residual, and its model."""
    written: dict[str, Any] = {"planes": 2, "encoding": "unsigned"}
    flat = [
        Layer("in", "stem", (IMAGE,), 6, "int16", 3, **written),
        Layer("pool", "pool", ("in",), 6, **written),
        Layer("res", "conv", ("pool",), 6, "two-bit", 3, segments=2, residual="pool", residual_exponent=3, **written),
        Layer("up", "conv", ("res",), 6, "masked", 3, 2, segments=3, **written),
        Layer("open", "conv", ("in",), 1, "binary", 3),
        Layer("gate", "gate", ("up", "open"), 6, **written),
        Layer("head", "head", ("gate",), 1, "int16", 1),
    ]
    network = randomized(Network(flat), 0)
    return network, exported(network)


@pytest.mark.parametrize("part", ["res.residual_signs", "up.exponents", "up.neg", "res.pos", "open.theta", "up.theta"])
def test_the_proof_misses_no_part(part: str) -> None:
    network, model = proven()
    prove(network, model, [random_image(0)])
    changed = {"theta": lambda x: x + 2, "residual_signs": lambda x: -x, "exponents": lambda x: 3 - x}
    broken = changed.get(part.split(".")[1], lambda x: x[..., ::-1, :, :])(model.tensors[part])
    with pytest.raises(ExportError, match=rf"^{part.split('.')[0]}: "):
        prove(network, replace(model, tensors={**model.tensors, part: broken}), [random_image(0)])


def forms(layer: Layer, inputs: ops.Inputs) -> Iterable[tuple[Any, ...]]:
    """What a layer is a case of."""
    read = (inputs[0].planes, inputs[0].encoding)
    if layer.op == "conv":
        yield layer.op, layer.kernel, layer.up, read
        yield layer.op, layer.weights, layer.segments, layer.up
        yield layer.op, "residual", bool(layer.residual), read
        yield layer.op, "inputs", len(layer.inputs)
        yield layer.op, "written", layer.planes, layer.encoding
    elif layer.op == "gate":
        yield layer.op, read, inputs[1].channels == 1
    elif layer.op != "stem":
        yield layer.op, read
    if layer.op == "head":
        yield layer.op, "doublings", layer.doublings


def test_the_seeds_hold_every_form() -> None:
    found = Counter[tuple[Any, ...]]()
    for seed in SEEDS:
        tensors = ops.tensors(trained(seed))
        for layer in trained(seed):
            found.update(forms(layer, tuple(tensors[name] for name in layer.reads)))
    for read in WRITTEN:
        assert all(found["conv", kernel, up, read] for kernel in (1, 3) for up in (1, 2)), read
        assert all(found["conv", "residual", has, read] for has in (True, False)), read
        assert found["pool", read], read
        assert found["head", read], read
        assert found["gate", read, True] + found["gate", read, False], read
        assert found[("conv", "written", *read)], read
    for up in (1, 2):
        assert all(found["conv", kind, count, up] for kind in ("binary", "masked") for count in (1, 2, 3)), up
        assert all(found["conv", kind, 2, up] for kind in kinds.TWO_BIT), up
    assert all(found["conv", "inputs", count] for count in (1, 2))
    assert all(found["head", "doublings", count] for count in (0, 1, 2))


def test_what_trains_every_operation_is_in_the_table() -> None:
    assert set(STAGES) == set(ops.OPERATIONS)


def conv_of(network: Network, name: str) -> BitConv:
    return network.bit_convolutions()[name]


def test_branches_have_weights_in_their_supports_alone_and_the_share_of_zeros_there() -> None:
    network, model = proven()
    weights = model.ternary(next(layer for layer in model.layers if layer.name == "up"))
    allowed = np.stack([multibranch.support(branch) for branch in range(3)])[:, None, :, :, :, :, None]
    assert not np.any(weights[np.broadcast_to(~allowed, weights.shape)])
    inside = weights[np.broadcast_to(allowed, weights.shape)]
    assert np.mean(inside == 0) == pytest.approx(0.6, abs=0.01)
    assert conv_of(network, "up").maskable().numel() == inside.size
    assert set(np.unique(model.tensors["up.exponents"])) == {0, 1, 2, 3}


def test_two_bits_are_two_segments() -> None:
    network, model = proven()
    high, low = model.ternary(next(layer for layer in model.layers if layer.name == "res"))
    assert model.tensors["res.exponents"].tolist() == [[1] * 6, [0] * 6]
    assert set(np.unique(2 * high + low)) == {-3, -1, 1, 3}
    conv = conv_of(network, "res")
    gamma = np.where(conv.norm.weight.detach().numpy() < 0, -1, 1)
    assert model.tensors["res.residual_signs"].tolist() == gamma.tolist()
    expected = mbu.two_bits(conv.weight.detach().numpy()) * gamma[:, None, None, None]
    np.testing.assert_array_equal((2 * high + low)[:, 0, 0].transpose(0, 3, 1, 2), expected)


@pytest.mark.parametrize("seed", SEEDS[::6])
def test_training_and_evaluation_agree_up_to_the_rounding_of_ties(seed: int) -> None:
    """The straight-through forward pass with running statistics, save for float32 rounding, layer after layer."""
    network = randomized(Network(trained(seed)), seed)
    with torch.no_grad():
        pixels = torch.from_numpy(random_image(seed).transpose(2, 0, 1).copy())[None]
        exact = network.trace(pixels, keep=True)
        for conv in convolutions(network):
            conv.training = True  # but batch norm stays in evaluation mode
            layer = conv.layer
            read = [exact[name] for name in layer.reads]
            faked = conv(*read)
            same = float((faked == exact[layer.name]).float().mean())
            assert same > 0.99, (layer, same)


def test_heads_on_levels_are_doubled_exactly_and_in_training_alike() -> None:
    layer = Layer("head", "head", ("x",), 2, "int16", 1, doublings=2)
    head = Head(layer, (ops.Tensor(5, 4, 2, "unsigned"),))
    nn.init.normal_(head.bias)
    x = torch.randint(0, 4, (1, 5, 6, 4)).float()
    with torch.no_grad():
        faked, exact = head.train()(x), head.eval()(x)
    assert exact.shape == (1, 2, 24, 16)
    assert torch.allclose(faked.double(), exact, atol=1e-3)
    params = head.quantized_params()
    integers = exact / params.scale
    assert torch.allclose(integers, integers.round(), rtol=0, atol=1e-4)


def test_a_doubled_head_uses_int16_only_as_far_as_its_logits_fit() -> None:
    tensor = ops.Tensor(512, 16, 2, "unsigned")
    layer = Layer("head", "head", ("x",), 2, "int16", 1, doublings=4)
    head = Head(layer, (tensor,))
    nn.init.constant_(head.bias, 30.0)
    params = head.quantized_params()
    (most,) = {int(ops.operation(layer).bound(layer, (tensor,), {"weight": params.weights, **params.arrays}).max())}
    assert 2**30 < most < 2**31 - 1
    assert np.abs(params.weights).max() < 32767
    one = Head(replace(layer, doublings=0), (replace(tensor, stride=1),))
    assert np.abs(one.quantized_params().weights).max() == 32767


def test_doubling_is_the_references() -> None:
    logits = np.random.default_rng(0).integers(-99, 99, (5, 3, 2))
    theirs = doubled(torch.from_numpy(logits.transpose(2, 0, 1))[None], 2)[0].numpy().transpose(1, 2, 0)
    np.testing.assert_array_equal(theirs, reference.doubled(logits, 0))


@pytest.mark.parametrize(("channels", "dtype"), [(30000, torch.float32), (40000, torch.float64)])
def test_sums_that_float32_cannot_hold_are_made_in_float64(channels: int, dtype: torch.dtype) -> None:
    layer = Layer("conv", "conv", ("x",), 1, "binary", 3, segments=4)  # each four times: 432 * channels
    assert BitConv(layer, (ops.Tensor(channels, 1, 2, "unsigned"),)).eval().frozen_weight.dtype is dtype


@pytest.mark.parametrize("kind", ["binary", "masked", "two-bit", "two-bit-masked"])
@pytest.mark.parametrize("bits", [32, 8, 4, 2])
def test_weights_of_more_bits_are_as_large_as_their_own_will_be(kind: str, bits: int) -> None:
    torch.manual_seed(0)
    layer = Layer("conv", "conv", ("x",), 8, kind, 3, segments=2 if kind in kinds.TWO_BIT else 1)
    conv = BitConv(layer, (ops.Tensor(8, 1),))
    conv.zeros = 0.5
    conv.refresh_threshold()
    with torch.no_grad():
        own = conv._fake_quantized()
        conv.bits = bits
        weights = conv._fake_quantized()
    assert torch.equal(weights == 0, own == 0)
    assert float(weights.abs().mean()) == pytest.approx(float(own.abs().mean()), rel=1e-4)
    assert len(np.unique(weights)) <= 2**bits + 1
    assert len(np.unique(weights)) > len(np.unique(own)) or bits == 2


def test_every_parameter_of_every_form_learns() -> None:
    network, _ = proven()
    learner = Network(network.layers)
    learner.load_state_dict(network.state_dict())
    learner.set_zeros(0.6)
    learner.train()
    learner(torch.from_numpy(random_image(1).transpose(2, 0, 1).copy())[None]).square().sum().backward()
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_full_precision_gates_branches_and_residuals_are_open_and_real() -> None:
    network = Network(proven()[0].layers, full_precision=True)
    with torch.no_grad():
        traced = network.trace(torch.from_numpy(random_image(2).transpose(2, 0, 1).copy())[None], keep=True)
    closed = (traced["open"] == 0).expand_as(traced["gate"])
    assert torch.equal(traced["gate"][closed], torch.zeros_like(traced["gate"][closed]))
    opened = (traced["open"] >= 1).expand_as(traced["gate"])
    assert torch.equal(traced["gate"][opened], traced["up"][opened])
