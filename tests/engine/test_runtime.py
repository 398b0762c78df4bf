"""The resident engine: what it accepts and refuses, and what it says about itself."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import preprocess
from engine.backends import reference, registry
from engine.format import save
from engine.model import Model, ModelFileError, Preprocessing
from engine.runtime import Engine, EngineError, available_kernels, resolve
from tests.models import random_model

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 33, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(width=3)


@pytest.mark.parametrize("device", ["auto", *registry.available()])
def test_every_device_gives_the_same_mask(model: Model, device: str) -> None:
    with Engine.load(model, device=device) as engine:
        (mask,), timings = engine.run([IMAGE])
        expected = reference.run(model, preprocess.pad(IMAGE, model.padded(20, 33))).logits[:20, :33]
        assert np.array_equal(engine.logits(IMAGE), expected)
    assert np.array_equal(mask, reference.decide(expected, 0))
    assert mask.dtype == np.uint8
    assert timings.fit_ms >= 0
    assert timings.run_ms > 0


def test_a_file_and_a_model_are_the_same(model: Model, tmp_path: Path) -> None:
    save(model, tmp_path / "m.safetensors")
    with Engine.load(tmp_path / "m.safetensors") as a, Engine.load(str(tmp_path / "m.safetensors")) as b:
        assert np.array_equal(a.logits(IMAGE), b.logits(IMAGE))


def test_no_images_give_no_masks(model: Model) -> None:
    assert Engine.load(model).run([])[0] == []


@pytest.mark.parametrize(
    "image",
    [IMAGE[..., :2], IMAGE[0], IMAGE.astype(np.int16), IMAGE[:0], IMAGE[:, :0]],
    ids=["two channels", "two dimensions", "int16", "no rows", "no columns"],
)
def test_what_is_no_image_is_refused(model: Model, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="an image is uint8 or uint16"):
        Engine.load(model).run([image])


def test_the_network_runs_on_what_is_fitted_alone(model: Model) -> None:
    deep = IMAGE.astype(np.uint16) * np.uint16(257)
    with Engine.load(model) as engine:
        assert np.array_equal(engine.fit(deep), IMAGE)
        assert engine.fit(IMAGE) is IMAGE
        job = engine.start([engine.fit(deep)], want_logits=True).finish()
        assert np.array_equal(job.masks[0], engine.run([IMAGE])[0][0])
        assert np.array_equal(job.logits[0], engine.logits(IMAGE))
        with pytest.raises(ValueError, match=r"an image is uint8 .* not uint16"):
            engine.start([deep])
        with pytest.raises(ValueError, match="an image is uint8 or uint16"):
            engine.fit(IMAGE[0])


def test_a_mask_and_logits_of_one_run(model: Model) -> None:
    resizing = replace(model, preprocessing=Preprocessing(resize_mode="resize", height=48, width=32))
    with Engine.load(resizing) as engine:
        mask, logits = engine.mask_and_logits(IMAGE, 0.4)
        assert np.array_equal(mask, engine.run([IMAGE], 0.4)[0][0])
        assert np.array_equal(logits, engine.logits(IMAGE))


def test_views_are_taken_as_they_look(model: Model) -> None:
    view = IMAGE[::-1, ::2]
    engine = Engine.load(model)
    assert np.array_equal(engine.run([view])[0][0], engine.run([view.copy()])[0][0])


def test_thresholds(model: Model) -> None:
    engine = Engine.load(model)
    low, high = (engine.run([IMAGE], t)[0][0] for t in (0.0, 1.0))
    assert low.all()
    assert not high.any()
    each = engine.run([IMAGE, IMAGE], [0.0, 1.0])[0]
    assert np.array_equal(each[0], low)
    assert np.array_equal(each[1], high)
    with pytest.raises(ValueError, match="1 thresholds for 2 images"):
        engine.run([IMAGE, IMAGE], [0.5])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        engine.run([IMAGE], 1.5)


def test_a_stretching_model_stretches(model: Model) -> None:
    stretching = replace(model, preprocessing=Preprocessing(contrast="stretch"))
    dark = IMAGE // 8
    expected = Engine.load(model).logits(preprocess.stretch(dark))
    assert np.array_equal(Engine.load(stretching).logits(dark), expected)


def test_a_resizing_model_answers_at_the_image_s_size(model: Model) -> None:
    resizing = replace(model, preprocessing=Preprocessing(resize_mode="resize", height=48, width=32))
    (mask,), _ = Engine.load(resizing).run([IMAGE])
    (small,), _ = Engine.load(model).run([preprocess.resize(IMAGE, 48, 32)])
    assert np.array_equal(mask, preprocess.resize_nearest(small, 20, 33))


def test_describe_names_every_layer_s_kernel(model: Model) -> None:
    rows = Engine.load(model, device="cpu", kernel="portable").describe()
    assert [row["layer"] for row in rows] == [layer.name for layer in model.layers]
    assert {row["kernel"] for row in rows} == {"portable"}
    assert all(0.3 < row["zeros"] < 0.7 for row in rows if row["weights"] == "masked")


def test_clear_errors(model: Model, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no device 'tpu'"):
        Engine.load(model, device="tpu")
    with pytest.raises(EngineError, match="no kernel 'sse9'"):
        Engine.load(model, kernel="sse9")
    with pytest.raises(EngineError, match="threads"):
        Engine.load(model, threads=-1)
    with pytest.raises(EngineError, match="no model 'unheard-of'"):
        resolve("unheard-of")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(ModelFileError, match="junk"):
        Engine.load(tmp_path / "junk.safetensors")


def test_a_closed_engine_says_so(model: Model) -> None:
    engine = Engine.load(model)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run([IMAGE])


def test_a_call_ends_before_the_engine_is_closed(model: Model) -> None:
    engine = Engine.load(model, device="cpu", threads=1)
    backend, order = engine._backend, []

    def close() -> None:
        engine.close()
        order.append("closed")

    class Closing:
        """Somebody else closes the engine in the middle of a call."""

        kernel, note, explain, empty = backend.kernel, "", backend.explain, backend.empty
        closer = threading.Thread(target=close)

        def run(self, *arguments: Any) -> Any:
            self.closer.start()
            self.closer.join(0.02)  # which it would do in that time, if it could
            found = backend.run(*arguments)
            order.append("run")
            return found

    engine._backend = Closing()
    assert engine.run([IMAGE])[0][0].shape == IMAGE.shape[:2]
    Closing.closer.join()
    assert order == ["run", "closed"]


def test_kernels_are_listed_best_first() -> None:
    assert available_kernels()[-1] == "portable"


def test_memory_does_not_grow_once_warm(model: Model) -> None:
    engine = Engine.load(model, device="cpu", threads=2)
    session = engine._backend.session  # type: ignore[attr-defined]
    sizes = [(30, 40), (100, 64), (16, 16)]
    memory = []
    for _ in range(3):
        for height, width in sizes:
            engine.run([np.zeros((height, width, 3), np.uint8)])
        memory.append(session.memory)
    assert memory[0] == memory[1] == memory[2] > 0
