"""Hostile model files: every fault of a description is refused, and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from engine import check, format
from engine.layer import IMAGE
from engine.model import ModelFileError
from tests.engine.model_files import Description, layer, rewrite
from tests.models import random_model


def nested(levels: int) -> list[object]:
    """A list in a list in a list, so many of them."""
    return [nested(levels - 1)] if levels > 1 else []


DESCRIPTIONS: dict[str, tuple[Callable[[Description], object], str]] = {
    "newer format": (lambda d: d.update(format=3), "format: 3 is not supported"),
    "format true": (lambda d: d.update(format=True), "format: True is not supported"),
    "format missing": (lambda d: d.pop("format"), "format: None is not supported"),
    "unknown key": (lambda d: d.update(extra=1), "description: has the unknown key 'extra'"),
    "tensors in json": (lambda d: d.update(tensors={}), "description: has the unknown key 'tensors'"),
    "missing key": (lambda d: d.pop("classes"), "description: lacks 'classes'"),
    "wrong type": (lambda d: d.update(threshold="0.5"), "description, threshold: must be float, not str"),
    "other family": (lambda d: d.update(family="u-net"), "family: 'u-net' is not supported by this version"),
    "empty name": (lambda d: d.update(name=""), "name: must be"),
    "name with a path": (lambda d: d.update(name="../etc"), "name: must be"),
    "threshold below": (lambda d: d.update(threshold=-0.1), "threshold: -0.1 lies outside"),
    "threshold above": (lambda d: d.update(threshold=1.5), "threshold: 1.5 lies outside"),
    "provenance infinite": (lambda d: d.update(provenance={"dice": float("-inf")}), "description: is not JSON"),
    "provenance surrogate": (lambda d: d.update(provenance={"data": "\ud800"}), "provenance: is not JSON"),
    "provenance deep": (lambda d: d.update(provenance={"a": nested(32)}), "provenance: is nested more than 32 levels"),
    "provenance no object": (lambda d: d.update(provenance=[]), "provenance: must be dict"),
    # classes
    "no classes": (lambda d: d["classes"].clear(), "classes: there are 0"),
    "too few logits": (lambda d: d["classes"].append({"name": "b", "color": [0, 0, 0]}), "head: 1 logits for 2"),
    "class unnamed": (lambda d: d["classes"][0].update(name=""), r"classes\[0\]: the name"),
    "class unprintable": (lambda d: d["classes"][0].update(name="a\nb"), r"classes\[0\]: the name"),
    "color short": (lambda d: d["classes"][0].update(color=[1, 2]), r"classes\[0\], color: must have 3"),
    "color float": (lambda d: d["classes"][0].update(color=[1, 2, 0.5]), r"color\[2\]: must be int"),
    "color bool": (lambda d: d["classes"][0].update(color=[1, 2, True]), r"color\[2\]: must be int, not bool"),
    "color bright": (lambda d: d["classes"][0].update(color=[1, 2, 256]), r"classes\[0\]: color"),
    # preprocessing
    "unknown resize": (lambda d: d["preprocessing"].update(resize_mode="crop"), "preprocessing: resize_mode 'crop'"),
    "unknown contrast": (lambda d: d["preprocessing"].update(contrast="x"), "preprocessing: contrast 'x'"),
    "multiple": (lambda d: d["preprocessing"].update(multiple=16), "preprocessing: has the unknown key 'multiple'"),
    "padded with size": (lambda d: d["preprocessing"].update(height=16), "preprocessing: only resized"),
    "resized without": (lambda d: d["preprocessing"].update(resize_mode="resize"), "preprocessing: size 0"),
    "resized huge": (lambda d: d["preprocessing"].update(resize_mode="resize", height=64, width=2**20), "size 1048576"),
    "preprocessing key": (lambda d: d["preprocessing"].update(mean=0), "preprocessing: has the unknown key"),
    "channel by name": (lambda d: d["preprocessing"].update(channel="red"), "preprocessing: channel 'red' is neither"),
    "channel below": (lambda d: d["preprocessing"].update(channel="-1"), "preprocessing: channel '-1' is neither"),
    "page no text": (lambda d: d["preprocessing"].update(page=1), "preprocessing, page: must be str, not int"),
    # layers
    "no layers": (lambda d: d["layers"].clear(), "layers: there are 0"),
    "too many layers": (lambda d: d.update(layers=d["layers"] * 100), "layers: there are"),
    "layers no list": (lambda d: d.update(layers={}), "layers: must be list"),
    "layer no object": (lambda d: d["layers"].insert(0, "conv"), r"layers\[0\]: must be dict"),
    "layer key": (lambda d: layer(d, "head").update(bits=1), "unknown key 'bits'"),
    "layer lacks": (lambda d: layer(d, "head").pop("scale"), "lacks 'scale'"),
    "layer name": (lambda d: layer(d, "head").update(name="a b"), "layer 'a b'"),
    "layer named image": (lambda d: layer(d, "in.conv2").update(name=IMAGE), "image: a second layer"),
    "same name": (lambda d: layer(d, "in.conv2").update(name="in.conv1"), "in.conv1: a second layer"),
    "unknown op": (lambda d: layer(d, "ct1").update(op="conv5x5"), "ct1: op 'conv5x5' is not supported"),
    "unknown weights": (lambda d: layer(d, "ct1").update(weights="int4"), "ct1: conv cannot have weights"),
    "weighted pool": (
        lambda d: layer(d, "down1.pool").update(weights="masked"),
        "down1.pool: pool cannot have",
    ),
    "bit head": (lambda d: layer(d, "head").update(weights="binary"), "head: head cannot have weights"),
    "bad block": (lambda d: layer(d, "ct1").update(block="C T"), "ct1: block"),
    "two planes of signs": (lambda d: layer(d, "ct1").update(planes=2), "ct1: planes 2, not 1 to 1"),
    "no planes": (lambda d: layer(d, "ct1").update(planes=0), "ct1: planes 0, not 1 to 1"),
    "huge planes": (
        lambda d: layer(d, "ct1").update(planes=10**9, encoding="unsigned"),
        "ct1: planes 1000000000, not 1 to 2",
    ),
    "unknown encoding": (lambda d: layer(d, "ct1").update(encoding="float"), "ct1: encoding 'float' is not supported"),
    "inputs of two encodings": (lambda d: layer(d, "ct1").update(encoding="unsigned"), "up1.conv1: its inputs are not"),
    "pool of other encoding": (
        lambda d: layer(d, "down1.pool").update(encoding="unsigned"),
        "down1.pool: its channels, planes or encoding",
    ),
    "levels of the head": (lambda d: layer(d, "head").update(planes=2, encoding="unsigned"), "head: planes 2"),
    "kernel 5": (lambda d: layer(d, "ct1").update(kernel=5), "ct1: conv cannot have kernel 5"),
    "kernel of a pool": (lambda d: layer(d, "down1.pool").update(kernel=2), "down1.pool: pool cannot have kernel 2"),
    "up 3": (lambda d: layer(d, "ct1").update(up=3), "ct1: conv cannot have up 3"),
    "no segments": (lambda d: layer(d, "ct1").update(segments=0), "ct1: segments 0, not 1 to 4"),
    "many segments": (lambda d: layer(d, "ct1").update(segments=2**40), "ct1: segments 1099511627776"),
    "segments of a pool": (lambda d: layer(d, "down1.pool").update(segments=2), "down1.pool: pool has no segments"),
    "unknown residual": (lambda d: layer(d, "in.conv2").update(residual="x"), "in.conv2: input 'x' is no earlier"),
    "late residual": (lambda d: layer(d, "in.conv2").update(residual="up4.conv2"), "in.conv2: input 'up4.conv2' is no"),
    "residual of itself": (lambda d: layer(d, "in.conv2").update(residual="in.conv2"), "in.conv2: input 'in.conv2' is"),
    "residual of the image": (lambda d: layer(d, "in.conv2").update(residual=IMAGE), "in.conv2: the first layer, and"),
    "residual of a pool": (lambda d: layer(d, "down1.pool").update(residual="in.conv1"), "down1.pool: pool has no"),
    "residual too narrow": (lambda d: layer(d, "ct4").update(up=1, residual="in.conv2"), "different resolutions"),
    "residual of an upsampling": (lambda d: layer(d, "ct1").update(residual="down4.conv1"), "ct1: only a convolution"),
    "exponent without residual": (lambda d: layer(d, "ct1").update(residual_exponent=1), "ct1: residual_exponent 1"),
    "huge residual": (
        lambda d: layer(d, "down1.conv2").update(residual="down1.conv1", residual_exponent=8),
        "down1.conv2: residual_exponent 8, not 0 to 7",
    ),
    "negative residual": (
        lambda d: layer(d, "down1.conv2").update(residual="down1.conv1", residual_exponent=-1),
        "down1.conv2: residual_exponent -1",
    ),
    "other channels": (
        lambda d: layer(d, "up3.conv1").update(residual="ct3"),
        "up3.conv1: its residual is not of its channels",
    ),
    "gate of one": (lambda d: layer(d, "down1.pool").update(op="gate"), "down1.pool: 1 inputs; gate reads 2 to 2"),
    "many doublings": (lambda d: layer(d, "head").update(doublings=5), "head: doublings 5, not 0 to 4"),
    "doubled too far": (lambda d: layer(d, "head").update(doublings=1), "head: its output would be finer"),
    "doubled bits": (lambda d: layer(d, "ct1").update(doublings=1), "ct1: conv has no doublings"),
    "no channels": (lambda d: layer(d, "ct1").update(channels=0), "ct1: channels 0"),
    "many channels": (lambda d: layer(d, "ct1").update(channels=2**31), "ct1: channels 2147483648"),
    "negative channels": (lambda d: layer(d, "ct1").update(channels=-8), "ct1: channels -8"),
    "channels bool": (lambda d: layer(d, "ct1").update(channels=True), "'ct1', channels: must be int, not bool"),
    "pool channels": (lambda d: layer(d, "down1.pool").update(channels=5), "down1.pool: its channels, planes"),
    "self reference": (lambda d: layer(d, "ct1").update(inputs=["ct1"]), "ct1: input 'ct1' is no earlier"),
    "forward reference": (lambda d: layer(d, "ct1").update(inputs=["ct2"]), "ct1: input 'ct2' is no earlier"),
    "unknown input": (lambda d: layer(d, "ct1").update(inputs=["x"]), "ct1: input 'x' is no earlier"),
    "pixels to bits": (lambda d: layer(d, "in.conv2").update(inputs=[IMAGE]), "in.conv2: the first layer, and"),
    "no inputs": (lambda d: layer(d, "ct1").update(inputs=[]), "ct1: 0 inputs"),
    "three inputs": (lambda d: layer(d, "up1.conv1").update(inputs=["ct1"] * 3), "up1.conv1: 3 inputs"),
    "inputs no list": (lambda d: layer(d, "ct1").update(inputs="x"), "'ct1', inputs: must be list"),
    "pooled pair": (lambda d: layer(d, "down1.pool").update(inputs=["in.conv1", "in.conv2"]), "down1.pool: 2 inputs"),
    "levels apart": (lambda d: layer(d, "up1.conv1").update(inputs=["in.conv2", "ct1"]), "different resolutions"),
    "finer than image": (lambda d: layer(d, "in.conv2").update(up=2), "in.conv2: its output would be finer"),
    "coarse head": (
        lambda d: layer(d, "head").update(inputs=["down1.conv2"]),
        "head: the logits must have the",
    ),
    "unused": (lambda d: layer(d, "up4.conv1").update(inputs=["in.conv1", "in.conv2"]), "ct4: no layer reads it"),
    "pixels from bits": (
        lambda d: layer(d, "in.conv1").update(inputs=["head"]),
        "in.conv1: the first layer, and no",
    ),
    "no pixels": (lambda d: d["layers"].pop(0), "in.conv2: the first layer, and no other"),
    "second pixels": (
        lambda d: layer(d, "in.conv2").update(op="stem", weights="int16", inputs=[IMAGE]),
        "in.conv2: the first layer, and no other",
    ),
    "second head": (
        lambda d: d["layers"].append({**layer(d, "head"), "name": "h2", "inputs": ["up4.conv2"]}),
        "head: the last layer, and no other",
    ),
    "head not last": (lambda d: d["layers"].pop(), "up4.conv2: the last layer, and no other"),
    "scale 0": (lambda d: layer(d, "head").update(scale=0.0), "head: scale 0.0 is not positive"),
    "scale negative": (lambda d: layer(d, "head").update(scale=-1.0), "head: scale -1.0 is not positive"),
    "scale int": (lambda d: layer(d, "head").update(scale=1), "'head', scale: must be float"),
    "scaled bits": (lambda d: layer(d, "ct1").update(scale=0.5), "ct1: conv has no scale"),
}


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_hostile_descriptions_are_refused(path: Path, kind: str) -> None:
    edit, message = DESCRIPTIONS[kind]
    rewrite(path, lambda description, _: edit(description))
    with pytest.raises(ModelFileError, match=f"^tiny.safetensors: .*{message}"):
        format.load(path)


def test_too_coarse_a_layer_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image is padded to multiples of the stride, so a small file could ask for any memory."""
    monkeypatch.setattr(check, "MAX_STRIDE", 8)
    with pytest.raises(ModelFileError, match=r"^tiny.safetensors: \S+: stride 16, not 1 to 8"):
        format.load(path)


def test_an_infinite_scale_is_refused(path: Path) -> None:
    with safe_open(path, framework="numpy") as file:
        text = file.metadata()["mbunet"]
    save_file(load_file(path), path, metadata={"mbunet": text.replace(f'"scale":{2.0**-17}', '"scale":1e999')})
    with pytest.raises(ModelFileError, match="head: scale inf is not positive"):
        format.load(path)


def test_the_description_is_bounded(tmp_path: Path) -> None:
    model = replace(random_model(width=1), provenance={"note": "x" * format.MAX_TEXT})
    with pytest.raises(ModelFileError, match=r"description: \d+ bytes long"):
        format.save(model, tmp_path / "a")


def test_errors_stay_short(path: Path) -> None:
    rewrite(path, lambda description, _: layer(description, "ct1").update(op="x" * 100_000))
    with pytest.raises(ModelFileError) as error:
        format.load(path)
    assert len(str(error.value)) < 300
