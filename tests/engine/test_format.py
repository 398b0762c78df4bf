"""The model file: what is saved comes back, byte for byte; whatever should not be in a file is refused by name."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from engine import check, format, ops
from engine.backends import reference
from engine.backends.cpu import CpuBackend
from engine.bits import pack
from engine.layer import IMAGE, Layer
from engine.model import ClassInfo, Model, ModelFileError, Preprocessing
from engine.networks import bfcn, multibranch, unet
from engine.plan import compile_plan
from tests.models import random_model

Description = dict[str, Any]
Tensors = dict[str, NDArray[Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid model file with odd channel counts (padding bits), binary and masked layers."""
    format.save(random_model(width=3, masked=("Down1", "CT2", "Up4")), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def rewrite(path: Path, edit: Callable[[Description, Tensors], object]) -> None:
    """Change the file at `path` behind the back of `format.save`."""
    with safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["mbunet"])
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    edit(description, tensors)
    save_file(tensors, path, metadata={"mbunet": json.dumps(description)})


def layer(description: Description, name: str) -> Description:
    return next(item for item in description["layers"] if item["name"] == name)


def same(one: Model, other: Model) -> bool:
    fields = ("name", "family", "layers", "classes", "preprocessing", "threshold", "provenance")
    if any(getattr(one, field) != getattr(other, field) for field in fields):
        return False
    return one.tensors.keys() == other.tensors.keys() and all(
        array.dtype == other.tensors[name].dtype and np.array_equal(array, other.tensors[name])
        for name, array in one.tensors.items()
    )


# -- what is saved comes back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("masked", [(), ("Down2", "CT1", "Up3"), unet.BLOCKS])
def test_round_trip(tmp_path: Path, width: int, classes: int, masked: tuple[str, ...]) -> None:
    model = random_model(width, classes, masked, seed=width)
    format.save(model, tmp_path / "a")
    assert same(format.load(tmp_path / "a"), model)


def test_every_field_comes_back(tmp_path: Path) -> None:
    model = replace(
        random_model(width=1),
        name="cells-2",
        classes=(ClassInfo("Zellkern, groß", (0, 128, 255)),),
        preprocessing=Preprocessing("resize", 256, 500, "stretch", channel="1", page="max"),
        threshold=0.25,
        provenance={"data": "nuclei", "scores": {"dice": 0.9, "by": ["a", None, True, 3]}},
    )
    format.save(model, tmp_path / "a")
    assert same(format.load(tmp_path / "a"), model)


def test_what_a_model_does_not_name_does_not_stand_in_its_file(path: Path) -> None:
    def named() -> set[str]:
        with safe_open(path, framework="numpy") as file:
            return {"channel", "page"}.intersection(json.loads(file.metadata()["mbunet"])["preprocessing"])

    assert named() == set()
    format.save(replace(format.load(path), preprocessing=Preprocessing(channel="0")), path)
    assert named() == {"channel"}


def test_saving_is_byte_reproducible(tmp_path: Path, path: Path) -> None:
    model = format.load(path)
    shuffled = replace(
        model,
        tensors={name: np.asfortranarray(array) for name, array in reversed(model.tensors.items())},
        provenance=dict(reversed(model.provenance.items())),
    )
    format.save(shuffled, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_the_description_is_one_key_of_sorted_compact_json(path: Path) -> None:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    description = json.loads(metadata["mbunet"])
    assert list(metadata) == ["mbunet"]
    assert metadata["mbunet"] == json.dumps(description, sort_keys=True, separators=(",", ":"))


def test_ternary_weights_are_the_planes() -> None:
    model = random_model(width=3, masked=("Down1",))
    for item in model.layers:
        if item.weights in ("binary", "masked"):
            weights, inputs = model.ternary(item), model.input_channels(item)
            assert weights.shape == ops.weight_shape(item, sum(inputs))
            assert np.array_equal(pack(weights > 0, inputs), model.tensors[f"{item.name}.pos"])
            assert (weights != 0).all() == (item.weights == "binary")


@pytest.mark.parametrize("width", [3, 16])
def test_random_models_give_bits_that_vary(width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    result = reference.run(random_model(width), image)
    for name, bits in result.trace.items():
        shares = bits.mean(axis=(0, 1))
        assert "pool" in name or np.mean((shares > 0) & (shares < 1)) > 0.3, name
    assert (result.logits > 0).any()
    assert (result.logits < 0).any()


def test_a_full_size_model_is_checked_fast(tmp_path: Path) -> None:
    model = random_model(width=64)
    format.save(model, tmp_path / "a")
    start = time.perf_counter()
    format.load(tmp_path / "a")
    assert time.perf_counter() - start < 1.0


# -- hostile files: the file itself -----------------------------------------------------------------------------------


def header(length: int, text: str) -> bytes:
    return length.to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header"),
        (b"\x10\0\0", "header"),
        (b"not a model at all, but long enough", "header"),
        (b"\0" * 4096, "header"),
        (header(2, "{}"), "metadata"),
        (header(format.MAX_HEADER + 1, "{}"), r"header: \d+ bytes long"),
        (header(2**63, "{}"), r"header: \d+ bytes long"),
        (header(100, "{}"), "header"),
        (header(4, "[1, "), "header"),
        (header(20, '{"__metadata__": {}}'), "metadata"),
        (header(66, '{"a":{"dtype":"U8","shape":[99999999],"data_offsets":[0,99999999]}}'[:66]), "header"),
        (header(67, '{"a":{"dtype":"U8","shape":[99999999],"data_offsets":[0,99999999]}}'), "."),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
def test_files_that_are_no_safetensors_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "hostile").write_bytes(data)
    with pytest.raises(ModelFileError, match=f"^hostile: .*{message}"):
        format.load(tmp_path / "hostile")


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.999])
def test_truncated_files_are_refused(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ModelFileError, match=r"tiny\.safetensors"):
        format.load(path)


def test_trailing_bytes_are_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    with pytest.raises(ModelFileError, match=r"tiny\.safetensors"):
        format.load(path)


def test_damaged_files_load_or_are_refused_but_nothing_else(path: Path) -> None:
    rng = np.random.default_rng(0)
    data = path.read_bytes()
    header_length = 8 + int.from_bytes(data[:8], "little")
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.integers(header_length)] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ModelFileError):
            format.load(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        format.load(tmp_path / "none")


@pytest.mark.parametrize("metadata", [None, {}, {"other": "{}"}, {"mbunet": "{}", "other": ""}], ids=repr)
def test_exactly_one_metadata_key_is_allowed(path: Path, metadata: dict[str, str] | None) -> None:
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(ModelFileError, match="metadata: has the keys"):
        format.load(path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "nul", "[" * 100_000, '{"format":1,"format":1}', '{"threshold":NaN}', "1" * 5000, "\ud800 "],
    ids=["empty", "open", "word", "deep", "twice", "nan", "long number", "surrogate"],
)
def test_bad_json_is_refused(path: Path, text: str) -> None:
    save_file(load_file(path), path, metadata={"mbunet": text.encode(errors="replace").decode()})
    with pytest.raises(ModelFileError, match="description: is not JSON"):
        format.load(path)


def test_json_that_is_no_object_is_refused(path: Path) -> None:
    save_file(load_file(path), path, metadata={"mbunet": "[]"})
    with pytest.raises(ModelFileError, match="description: is no JSON object"):
        format.load(path)


# -- hostile files: the description -----------------------------------------------------------------------------------

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


# -- hostile files: the tensors ---------------------------------------------------------------------------------------


def put(name: str, index: Any, value: int) -> Callable[[Tensors], object]:
    """An edit that writes `value` at `index` of the tensor `name`."""
    return lambda tensors: tensors[name].__setitem__(index, value)


def swap(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Tensors], object]:
    """An edit that replaces the tensor `name` by `change` of it."""
    return lambda tensors: tensors.update({name: change(tensors[name])})


TENSORS: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "missing": (lambda t: t.pop("ct1.pos"), "ct1.pos: the tensor is missing"),
    "missing neg": (lambda t: t.pop("ct2.neg"), "ct2.neg: the tensor is missing"),
    "extra": (lambda t: t.update(extra=np.zeros(1)), "'extra': there should be no such tensor"),
    "neg of a binary layer": (lambda t: t.update({"ct1.neg": t["ct1.pos"]}), "'ct1.neg': there should be no"),
    "theta int64": (swap("ct1.theta", lambda a: a.astype(np.int64)), "ct1.theta: is I64, not int32"),
    "weight float": (swap("head.weight", lambda a: a.astype(np.float32)), "head.weight: is F32, not int16"),
    "planes int8": (swap("ct1.pos", lambda a: a.view(np.int8)), "ct1.pos: is int8, not uint8"),
    "shape": (swap("ct1.pos", lambda a: a[:, :-1]), r"ct1.pos: has shape \(1, 23, 2, 2, 1, 1, "),
    "theta flat": (swap("ct1.theta", lambda a: a[:, 0]), r"ct1.theta: has shape \(24,\)"),
    "two thresholds": (swap("ct1.theta", lambda a: np.repeat(a, 2, 1)), r"ct1.theta: has shape \(24, 2\)"),
    "empty": (swap("head.bias", lambda a: a[:0]), r"head.bias: has shape \(0,\)"),
    "scalar": (swap("head.bias", lambda a: np.array(a[0])), r"head.bias: has shape \(\)"),
    "padding of pos": (put("in.conv2.pos", 0, 0x08), "in.conv2.pos: a padding bit is set"),
    "padding of neg": (put("in.conv2.neg", 0, 0x80), "in.conv2.neg: a padding bit is set"),
    "padding between inputs": (
        put("up4.conv1.pos", (0, 1, 0, 0, 0, 0, 0), 0x10),
        "up4.conv1.pos: a padding bit",
    ),
    "overlap": (lambda t: t.update({"ct2.neg": t["ct2.pos"]}), "ct2.neg: overlaps ct2.pos"),
    "first weight": (put("in.conv1.weight", (0, 1, 2, 0), -32768), "in.conv1.weight: a weight lies beyond"),
    "head weight": (put("head.weight", (0, 1), -32768), "head.weight: a weight lies beyond"),
    "head sum up": (put("head.bias", 0, 2**31 - 1), "head: its sums can leave the range of int32"),
    "head sum down": (put("head.bias", 0, -(2**31)), "head: its sums can leave the range of int32"),
    "theta of pixels": (put("in.conv1.theta", (0, 0), 2**31 - 1), "in.conv1.theta: a threshold lies outside"),
    "theta below": (put("up1.conv2.theta", (3, 0), -12 * 9 - 1), "up1.conv2.theta: a threshold lies outside"),
    "theta above": (put("up1.conv2.theta", (3, 0), 12 * 9 + 2), "up1.conv2.theta: a threshold lies outside"),
    "theta of upconv": (put("ct1.theta", (0, 0), 24 + 2), "ct1.theta: a threshold lies outside"),
    "theta lowest": (put("ct2.theta", (0, 0), -(2**31)), "ct2.theta: a threshold lies outside"),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_hostile_tensors_are_refused(path: Path, kind: str) -> None:
    edit, message = TENSORS[kind]
    rewrite(path, lambda _, tensors: edit(tensors))
    with pytest.raises(ModelFileError, match=f"^tiny.safetensors: {message}"):
        format.load(path)


# -- hostile files: what segments, residuals, gates and planes have of their own --------------------------------------


@pytest.fixture
def bfcn_path(tmp_path: Path) -> Path:
    """Two segments, two planes, residuals, doublings."""
    flat = bfcn.layers(3, weights="masked", weight_bits=2)
    format.save(random_model(layers=flat), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


WEIGHTED: dict[str, tuple[Callable[[Description, Tensors], object], str]] = {
    "exponent 4": (lambda _, t: put("up8.exponents", (1, 2), 4)(t), "up8.exponents: an exponent is not 0 to 3"),
    "exponent 255": (lambda _, t: put("up8.exponents", (0, 0), 255)(t), "up8.exponents: an exponent is not"),
    "exponents flat": (lambda _, t: swap("up8.exponents", lambda a: a[0])(t), r"up8.exponents: has shape \(12,\)"),
    "exponents int32": (lambda _, t: swap("up8.exponents", lambda a: a.astype(np.int32))(t), "up8.exponents: is int32"),
    "exponents missing": (lambda _, t: t.pop("up8.exponents"), "up8.exponents: the tensor is missing"),
    "exponents of the stem": (
        lambda _, t: t.update({"in.exponents": np.zeros((1, 3), np.uint8)}),
        "'in.exponents': there should be no such tensor",
    ),
    "sign 0": (lambda _, t: put("res2.conv2.residual_signs", 1, 0)(t), "res2.conv2.residual_signs: a sign is neither"),
    "sign 2": (lambda _, t: put("res2.conv2.residual_signs", 0, 2)(t), "res2.conv2.residual_signs: a sign is neither"),
    "sign -128": (lambda _, t: put("res2.conv2.residual_signs", 0, -128)(t), "res2.conv2.residual_signs: a sign is"),
    "signs short": (
        lambda _, t: swap("res2.conv2.residual_signs", lambda a: a[:2])(t),
        r"res2.conv2.residual_signs: has shape \(2,\), not \(3,\)",
    ),
    "signs uint8": (
        lambda _, t: swap("res2.conv2.residual_signs", lambda a: a.view(np.uint8))(t),
        "res2.conv2.residual_signs: is uint8, not int8",
    ),
    "signs missing": (
        lambda _, t: t.pop("res2.conv2.residual_signs"),
        "res2.conv2.residual_signs: the tensor is missing",
    ),
    "signs without residual": (
        lambda _, t: t.update({"res2.conv1.residual_signs": np.ones(3, np.int8)}),
        "'res2.conv1.residual_signs': there should be no such tensor",
    ),
    "residual dropped": (
        lambda d, _: layer(d, "res2.conv2").update(residual="", residual_exponent=0),
        "'res2.conv2.residual_signs': there should be no such tensor",
    ),
    "a ring of residuals": (
        lambda d, _: layer(d, "res2.conv1").update(residual="res2.conv2"),
        "res2.conv1: input 'res2.conv2' is no earlier layer",
    ),
    "residual of one plane": (
        lambda d, _: layer(d, "in").update(planes=1),
        "pool2: its channels, planes or encoding are not its input's",
    ),
    "three planes": (lambda d, _: layer(d, "up8").update(planes=3), "up8: planes 3, not 1 to 2"),
    "one plane less": (
        lambda d, _: layer(d, "res2.conv1").update(planes=1),
        "res2.conv2: its residual is not of its channels and resolution, written as",
    ),
    "one segment less": (
        lambda d, _: layer(d, "up8").update(segments=1),
        "'up8.exponents': there should be no such tensor",
    ),
    "one segment more": (lambda d, _: layer(d, "up8").update(segments=3), r"up8.pos: has shape \(2, 12, "),
    "thresholds descend": (
        lambda _, t: swap("res2.conv1.theta", lambda a: np.ascontiguousarray(a[:, ::-1]))(t),
        "res2.conv1.theta: the thresholds of a channel do not ascend",
    ),
    "a doubling less": (lambda d, _: layer(d, "head").update(doublings=1), "head: the logits must have the image's"),
    "doubled beyond int32": (
        lambda _, t: t["head.bias"].fill(2**23),
        "head: its sums can leave the range of int32",
    ),
}


@pytest.mark.parametrize("kind", WEIGHTED)
def test_hostile_tensors_of_the_general_convolution_are_refused(bfcn_path: Path, kind: str) -> None:
    edit, message = WEIGHTED[kind]
    rewrite(bfcn_path, edit)
    with pytest.raises(ModelFileError, match=f"^tiny.safetensors: {message}"):
        format.load(bfcn_path)


def wide(channels: int, planes: int = 1, segments: int = 1) -> Model:
    """A dense convolution that reads the `channels` of one layer twice."""
    written: Any = {"planes": planes, "encoding": "unsigned"}
    flat = [
        Layer("in", "stem", (IMAGE,), channels, "int16", 3, **written),
        Layer("wide", "conv", ("in", "in"), 1, "binary", 3, segments=segments),
        Layer("head", "head", ("wide",), 1, "int16", 1),
    ]
    return random_model(layers=flat)


def test_more_inputs_than_the_lists_hold_are_refused() -> None:
    CpuBackend(compile_plan(wide(3640)), "portable", 1).run([np.zeros((1, 1, 3), np.uint8)], [0], False)
    for shape in ((3641,), (2000, 2), (1000, 1, 4)):
        with pytest.raises(ModelFileError, match=r"^wide: an output adds up \d+ bits; 65528 are possible"):
            wide(*shape)


def test_sums_beyond_the_counters_are_refused() -> None:
    model = wide(900, 2, 2)
    model.tensors["wide.exponents"].fill(ops.MAX_EXPONENT)
    check.check_values(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "MAX_COUNT", int(model.bound(model.layers[1]).max()) - 1)
        with pytest.raises(ModelFileError, match=r"^wide: its sums can exceed \d+"):
            check.check_values(model)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: layer(d, "up1.position").update(channels=2), "up1.gate1: its second input is not one plane of one"),
        (lambda d: layer(d, "up1.position").update(planes=2, encoding="unsigned"), "up1.gate1: its second input"),
        (lambda d: layer(d, "up1.gate1")["inputs"].pop(), "up1.gate1: 1 inputs; gate reads 2 to 2"),
        (lambda d: layer(d, "up1.gate1").update(channels=1), "up1.gate1: its channels, planes or encoding"),
        (lambda d: layer(d, "up1.gate1").update(inputs=["down3.conv2", "down4.conv2"]), "up1.gate1: its inputs have"),
        (lambda d: layer(d, "up1.gate1").update(weights="masked"), "up1.gate1: gate cannot have weights"),
    ],
)
def test_hostile_gates_are_refused(tmp_path: Path, edit: Callable[[Description], object], message: str) -> None:
    path = tmp_path / "tiny.safetensors"
    format.save(random_model(layers=multibranch.layers(2)), path)
    rewrite(path, lambda description, _: edit(description))
    with pytest.raises(ModelFileError, match=f"^tiny.safetensors: {message}"):
        format.load(path)


@pytest.mark.parametrize("theta", [-12 * 9, 12 * 9 + 1])
def test_the_constants_are_allowed(path: Path, theta: int) -> None:
    rewrite(path, lambda _, tensors: tensors["up1.conv2.theta"].fill(theta))
    assert (format.load(path).tensors["up1.conv2.theta"] == theta).all()


def test_several_thresholds_must_ascend() -> None:
    model = random_model(width=1)
    two_planes = replace(model.layers[1], planes=2, encoding="unsigned")
    model = replace(model, layers=(model.layers[0], two_planes, *model.layers[2:]))
    theta = np.array([[-1, 0, 1]], np.int32)
    model.tensors[f"{two_planes.name}.theta"] = theta
    check.check_values(model)
    model.tensors[f"{two_planes.name}.theta"] = theta[:, ::-1]
    with pytest.raises(ModelFileError, match=r"in\.conv2\.theta: the thresholds of a channel do not ascend"):
        check.check_values(model)


def test_shapes_are_compared_before_tensors_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(path, lambda _, tensors: tensors.update({"ct1.pos": np.zeros((1, 1), np.uint8)}))

    class Unreadable:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            assert name != "get_tensor"
            return getattr(self.file, name)

        def __enter__(self) -> Unreadable:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(format, "safe_open", lambda *args, **kwargs: Unreadable(safe_open(*args, **kwargs)))
    with pytest.raises(ModelFileError, match=r"ct1\.pos: has shape"):
        format.load(path)


# -- saving refuses what loading would --------------------------------------------------------------------------------


def test_saving_refuses_what_loading_would(tmp_path: Path) -> None:
    model = random_model(width=1)
    broken = [
        replace(model, threshold=2.0),
        replace(model, threshold=1),
        replace(model, provenance={"when": object()}),
        replace(model, layers=model.layers[:-1]),
        replace(model, layers=(Layer("a", "stem", (IMAGE,), 1, "int16", 3), *model.layers)),
        replace(model, tensors={}),
        replace(model, tensors={**model.tensors, "head.bias": model.tensors["head.bias"].astype(np.int64)}),
    ]
    for wrong in broken:
        with pytest.raises(ModelFileError):
            format.save(wrong, tmp_path / "a")
    assert not (tmp_path / "a").exists()
