"""The model file: what is saved comes back, byte for byte; whatever should not be in a file is refused by name."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from engine import format, ops
from engine.backends import reference
from engine.bits import pack
from engine.layer import IMAGE, Layer
from engine.model import ClassInfo, Model, ModelFileError, Preprocessing
from engine.networks import unet
from tests.models import random_model


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
