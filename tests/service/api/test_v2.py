"""The Open Inference Protocol through Triton's own, unchanged HTTP client, and past it with broken requests."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from engine import preprocess
from engine.model import Preprocessing
from engine.runtime import Engine
from service import problems
from service.api import oip, v2
from service.api.timing import deadline_passed
from service.app import create_app
from service.core import cost
from service.core.params import SegmentParams
from service.problems import BadTensor
from service.settings import Settings
from tests.models import random_model
from tests.pictures import file_of, images, photo
from tests.service.api.test_batch import two_models
from tests.service.fakes import PATIENCE, FakeEngine, fake_model, fitting_threads, serving
from tests.service.test_app import PNG, assert_problem, mask_of

PIXELS = np.asarray(photo())
INFER = "/v2/models/fake/infer"

triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
triton_utils = pytest.importorskip("tritonclient.utils")


@pytest.fixture(scope="module")
def asked(client: httpx.Client) -> Iterator[Any]:
    """Triton's client of the common server."""
    with tritons(client) as made:
        yield made


def tritons(client: httpx.Client) -> Any:
    return triton.InferenceServerClient(f"{client.base_url.host}:{client.base_url.port}")


def tensor(pixels: np.ndarray[Any, Any], binary: bool = True) -> Any:
    made = triton.InferInput("image", list(pixels.shape), "UINT8")
    made.set_data_from_numpy(pixels, binary_data=binary)
    return made


def output(binary: bool = True) -> list[Any]:
    return [triton.InferRequestedOutput("mask", binary_data=binary)]


# -- Triton's client -----------------------------------------------------------------------------------------------


def test_health_and_metadata(asked: Any) -> None:
    assert asked.is_server_live()
    assert asked.is_server_ready()
    assert asked.is_model_ready("fake")
    assert asked.is_model_ready("fake", "1")
    assert not asked.is_model_ready("other")
    assert "binary_tensor_data" in asked.get_server_metadata()["extensions"]
    described = asked.get_model_metadata("fake")
    assert described["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert described["outputs"] == [
        {"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]},
        {"name": "labels", "datatype": "UINT16", "shape": [-1, -1, -1]},
    ]
    assert asked.get_model_config("fake", "1")["input"][0]["data_type"] == "TYPE_UINT8"
    assert [entry["name"] for entry in asked.get_model_repository_index()] == ["fake"]


@pytest.mark.parametrize(("height", "width", "lane"), [(48, 32, "codec-0"), (1024, 2048, "codec-1")])
def test_threads_of_its_lane_fit_and_resize_and_not_the_event_loop(
    height: int, width: int, lane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = fitting_threads(monkeypatch)
    model = replace(fake_model(), preprocessing=Preprocessing("aspect", height, width, "stretch"))
    with serving(create_app(FakeEngine(model), Settings())) as client:
        found = tritons(client).infer("fake", [tensor(np.zeros((1, 20, 20, 3), np.uint8))], outputs=output())
        assert found.as_numpy("mask").shape == (1, 20, 20)
    assert threads == [lane] * 2


@pytest.mark.parametrize("how", [Preprocessing(contrast="stretch"), Preprocessing("aspect", 48, 32, "stretch")])
@pytest.mark.parametrize("side", [40, 700])  # copied at once, or by a thread
def test_the_mask_is_that_of_the_engine_whatever_the_model_makes_of_an_image(how: Preprocessing, side: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (2, side, side + 3, 3), np.uint8)
    with (
        Engine.load(replace(random_model(width=1), preprocessing=how), device="cpu", threads=1) as engine,
        serving(create_app(engine, Settings())) as client,
    ):
        name = engine.model.name
        found = tritons(client).infer(name, [tensor(pixels)], outputs=output()).as_numpy("mask")
        assert np.array_equal(found, 255 * np.stack(engine.run(list(pixels))[0]))
        labels = [triton.InferRequestedOutput("labels")]
        found = tritons(client).infer(name, [tensor(pixels[:, :40])], outputs=labels).as_numpy("labels")
        assert np.array_equal(found != 0, np.stack(engine.run(list(pixels[:, :40]))[0]))


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("outputs", [output(True), output(False), None])
def test_the_mask_is_that_of_segment_byte_for_byte(
    asked: Any, client: httpx.Client, binary_in: bool, outputs: list[Any] | None
) -> None:
    batch = np.stack([PIXELS, PIXELS[::-1]])
    result = asked.infer("fake", [tensor(batch, binary_in)], outputs=outputs, request_id="r-1")
    assert result.get_response()["id"] == "r-1"
    masks = result.as_numpy("mask")
    assert (masks.dtype, masks.shape) == (np.uint8, (2, 13, 21))
    expected = mask_of(client.post("/segment", content=file_of(photo()), headers=PNG))
    assert masks[0].tobytes() == expected.tobytes()
    assert masks[1].tobytes() == expected[::-1].tobytes()


@pytest.mark.parametrize("binary", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize(("parameters", "count"), [({}, 2), ({"split": "distance"}, 3), ({"min_area": 60}, 1)])
def test_labels_are_those_of_segment(
    asked: Any, client: httpx.Client, binary: tuple[bool, bool], parameters: dict[str, Any], count: int
) -> None:
    y, x = np.mgrid[:30, :60]
    pixels = np.zeros((30, 60, 3), np.uint8)
    for center, radius in ((12, 9), (27, 9), (50, 4)):
        pixels[(x - center) ** 2 + (y - 14) ** 2 < radius**2] = 255
    outputs = [triton.InferRequestedOutput(*each) for each in zip(("labels", "mask"), binary, strict=True)]
    result = asked.infer("fake", [tensor(np.stack([pixels, pixels * 0]))], outputs=outputs, parameters=parameters)
    labels, masks = result.as_numpy("labels"), result.as_numpy("mask")
    file = file_of(Image.fromarray(pixels))
    answer = client.post("/segment", params=parameters | {"format": "labels"}, content=file, headers=PNG)
    with Image.open(io.BytesIO(answer.content)) as expected:
        assert np.array_equal(labels[0], np.asarray(expected))
    assert labels.dtype == np.uint16
    assert labels[0].max() == count
    assert not labels[1].any()
    assert np.array_equal(masks[0], pixels[:, :, 0])


def test_threshold_timeout_and_priority_are_taken(asked: Any) -> None:
    grey = np.full((1, 4, 4, 3), 100, np.uint8)
    for threshold, expected in ((0.3, 255), (0.5, 0)):
        result = asked.infer("fake", [tensor(grey)], priority=2, timeout=5_000_000, parameters={"threshold": threshold})
        assert (result.as_numpy("mask") == expected).all()


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("other", PIXELS[None], "there is no model of this name"),
        ("fake", PIXELS, "must have the shape"),
        ("fake", PIXELS[None, :, :, :2], "must have 3 channels"),
        ("fake", np.zeros((33, 1, 1, 3), np.uint8), "at most 32"),
    ],
)
def test_errors_carry_their_reason(asked: Any, model: str, given: np.ndarray[Any, Any], message: str) -> None:
    with pytest.raises(triton_utils.InferenceServerException) as caught:
        asked.infer(model, [tensor(np.ascontiguousarray(given))])
    assert message in str(caught.value)


def test_several_classes_are_indices() -> None:
    with serving(create_app(two_models(), Settings())) as client, tritons(client) as asked:
        result = asked.infer("second", [tensor(np.full((1, 4, 4, 3), 2, np.uint8))])
    assert (result.as_numpy("mask") == 2).all()


def test_images_are_counted_as_those_of_segment_are() -> None:
    app = create_app(FakeEngine(), Settings())
    with serving(app) as client, tritons(client) as asked:
        asked.infer("fake", [tensor(np.stack([PIXELS, PIXELS]))])
    value = app.state.service.metrics.registry.get_sample_value
    assert value("mbunet_images_total") == 2
    assert value("mbunet_stage_seconds_count", {"stage": "engine"}) == 2


def test_the_real_engine_gives_the_same_through_both_doors() -> None:
    with Engine.load(random_model(width=4), threads=1) as engine, serving(create_app(engine, Settings())) as client:
        expected = mask_of(client.post("/segment", content=images()["RGB PNG"][0], headers=PNG))
        with tritons(client) as asked:
            masks = asked.infer("random", [tensor(PIXELS[None])]).as_numpy("mask")
    assert masks[0].tobytes() == expected.tobytes()


# -- past it -------------------------------------------------------------------------------------------------------


def infer_body(**changes: Any) -> dict[str, Any]:
    sound = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [255, 0, 0]}
    return {"inputs": [sound | changes]}


def test_plain_json_needs_no_client(client: httpx.Client) -> None:
    nested = client.post(INFER, json=infer_body(data=[[[[255, 0, 0]]]])).json()
    assert nested["outputs"] == [{"name": "mask", "datatype": "UINT8", "shape": [1, 1, 1], "data": [255]}]
    assert nested["model_name"] == "fake"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b'{"inputs": 1}',
        b'{"inputs": [1]}',
        *(
            json.dumps(infer_body(**change)).encode()
            for change in (
                {"name": "x"},
                {"datatype": "FP32"},
                {"shape": [1, 1, 3]},
                {"shape": [1, 1, -1, 3]},
                {"shape": [1, 1, True, 3]},
                {"shape": [1, 2**40, 2**40, 3]},
                {"data": [256, 0, 0]},
                {"data": [0.5, 0, 0]},
                {"data": [[1], [2, 3]]},
                {"data": "abc"},
                {"data": [2**70, 0, 0]},
                {"data": None},
                {"parameters": 3},
                {"parameters": {"binary_data_size": 5}},
                {"parameters": {"binary_data_size": "3"}},
            )
        ),
        json.dumps(infer_body() | {"outputs": [{"name": "x"}]}).encode(),
        json.dumps(infer_body() | {"outputs": 7}).encode(),
        json.dumps(infer_body() | {"outputs": [{"name": "mask"}, {"name": "mask"}]}).encode(),
        json.dumps(infer_body() | {"parameters": []}).encode(),
        *(
            json.dumps(infer_body() | {"parameters": {name: value}}).encode()
            for name in ("timeout", "priority")
            for value in (-1, 0.5, "1", True)
        ),
    ],
)
def test_broken_requests_are_400_with_the_member_error(client: httpx.Client, body: bytes) -> None:
    answer = client.post(INFER, content=body)
    assert (answer.status_code, answer.json()["title"]) == (400, problems.BadTensor.title)
    assert answer.json()["error"] == answer.json()["detail"]


@pytest.mark.parametrize("length", ["999999", 5000 * "9", "-1", "x", "²", ""], ids="{:.9}".format)
def test_a_header_length_that_cannot_be(client: httpx.Client, length: str) -> None:
    headers = {b"Inference-Header-Content-Length": length.encode()}
    assert client.post(INFER, content=b"{}", headers=headers).status_code == 400


def test_a_header_length_may_begin_with_zeros(client: httpx.Client) -> None:
    document = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [255, 0, 0]}]}
    body = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": f"{5000 * '0'}{len(body)}"}
    assert client.post(INFER, content=body, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("parameters", "output"),
    [
        ({"threshold": 2}, "mask"),
        ({"threshold": "x"}, "mask"),
        ({"timeout": 10**12}, "mask"),
        ({"split": "distance"}, "mask"),  # of labels alone
        ({"min_area": 4}, "mask"),
        ({"split": "watershed"}, "labels"),
        ({"min_area": 0}, "labels"),
        ({"min_area": "4"}, "labels"),
    ],
)
def test_parameters_out_of_range(client: httpx.Client, parameters: dict[str, Any], output: str) -> None:
    body = infer_body() | {"parameters": parameters, "outputs": [{"name": output}]}
    assert client.post(INFER, json=body).status_code == 422


@pytest.mark.parametrize(
    ("parameters", "detail"),
    [
        ({"timeout": 30_000_001}, "timeout: at most 30000000 microseconds are taken, not 30000001"),
        ({"treshold": 0.5}, "there is no parameter 'treshold' here; there is threshold, "),
        ({"sequence_id": 7}, "there is no parameter 'sequence_id' here"),
        ({"min_area": 4}, "min_area is for the output labels"),
    ],
)
def test_parameters_are_named_in_the_protocols_words(
    client: httpx.Client, parameters: dict[str, Any], detail: str
) -> None:
    answer = client.post(INFER, json=infer_body() | {"parameters": parameters})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(detail)


@pytest.mark.parametrize(
    "body",
    [
        infer_body(parameters={"shared_memory_region": "x"}),
        infer_body() | {"outputs": [{"name": "mask", "parameters": {"classification": 3}}]},
    ],
)
def test_unknown_parameters_of_tensors_are_refused(client: httpx.Client, body: dict[str, Any]) -> None:
    answer = client.post(INFER, json=body)
    assert answer.status_code == 422
    assert "there is binary_data" in answer.json()["error"]


def test_a_deadline_of_microseconds_is_told() -> None:
    assert deadline_passed(1e-6).detail == "there was no mask after 0.001 ms"
    assert deadline_passed(1234.567).detail == "there was no mask after 1234567 ms"


def test_no_timeout_is_the_servers_own(client: httpx.Client) -> None:
    assert client.post(INFER, json=infer_body() | {"parameters": {"timeout": 0}}).status_code == 200


def test_a_timeout_bounds_the_labels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose writing ends before the next plane."""
    written: list[int] = []
    late = threading.Event()

    def labelled(mask: Any, _: Any) -> list[Any]:
        written.append(1)
        late.wait(PATIENCE)
        return [mask]

    monkeypatch.setattr(v2, "labelled", labelled)
    body = infer_body(shape=[2, 1, 1, 3], data=[0] * 6) | {"outputs": [{"name": "labels"}]}
    with serving(create_app(FakeEngine(), Settings())) as client:
        try:
            answer = client.post(INFER, json=body | {"parameters": {"timeout": 100_000}})
        finally:
            late.set()
        assert answer.status_code == 504
        assert client.post(INFER, json=body).status_code == 200
    assert len(written) == 1 + 2


def test_the_time_of_every_stage_is_told(client: httpx.Client) -> None:
    told = client.post(INFER, json=infer_body()).headers["Server-Timing"]
    assert re.findall(r"(\w+);dur=", told)[:4] == ["decode", "queue", "engine", "encode"]
    assert 'mbunet_stage_seconds_count{stage="decode"} 0.0' not in client.get("/metrics").text


def test_images_that_are_late_are_neither_fitted_nor_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now, fitted = [100.0], []

    def slow(image: np.ndarray[Any, Any], *_: object) -> np.ndarray[Any, Any]:
        now[0] += 1
        fitted.append(image)
        return image

    engine = FakeEngine(replace(fake_model(), preprocessing=Preprocessing(contrast="stretch")))
    with serving(create_app(engine, Settings(), clock=lambda: now[0])) as client:
        runs = len(engine.batches)
        monkeypatch.setattr(preprocess, "preprocess", slow)
        images = {"name": "image", "datatype": "UINT8", "shape": [4, 2, 2, 3], "data": [0] * 48}
        body = {"inputs": [images], "parameters": {"timeout": 1_500_000}}
        assert_problem(client.post(INFER, json=body), problems.DeadlinePassed)
    assert len(fitted) == 2
    assert len(engine.batches) == runs


def test_memory_of_tensors_is_counted_before_they_are_fitted() -> None:
    held = []

    class Counting(FakeEngine):
        def empty(self, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.uint8]]:
            held.append(app.state.service.budget.held)
            return super().empty(shape)

    engine = Counting(replace(fake_model(), preprocessing=Preprocessing(contrast="stretch")))
    app = create_app(engine, Settings())
    with serving(app) as client:
        images = {"name": "image", "datatype": "UINT8", "shape": [2, 30, 20, 3], "data": [7] * 3600}
        for parameters, copies in (({}, 0), ({"channel": 1}, 3600)):
            held.clear()
            answer = client.post(INFER, json={"inputs": [images], "parameters": parameters})
            assert answer.status_code == 200, answer.text
            wanted = SegmentParams(engine, 0.5)
            counted = len(answer.request.content) + 2 * cost.run_bytes(wanted, (30, 20, 3)) + copies
            assert len(held) == 2
            assert min(held) >= counted


def test_models_are_loaded_already_and_stay(asked: Any) -> None:
    assert "model_repository" in asked.get_server_metadata()["extensions"]
    asked.load_model("fake")
    for ask, model, options, said in (
        (asked.load_model, "other", {}, "there is no model of this name; there is fake"),
        (asked.load_model, "fake", {"config": "{}"}, "fake is loaded as it is"),
        (asked.unload_model, "fake", {}, "fake stays"),
    ):
        with pytest.raises(triton_utils.InferenceServerException, match=said):
            ask(model, **options)
    assert asked.is_model_ready("fake")


@pytest.mark.parametrize("body", [b"[1]", b"{", b'{"parameters": 3}'])
def test_a_load_that_asks_for_something_is_refused(client: httpx.Client, body: bytes) -> None:
    assert client.post("/v2/repository/models/fake/load", content=body).status_code in (400, 422)


def test_an_image_over_the_pixel_limit(client: httpx.Client) -> None:
    body = infer_body(shape=[1, 1, 65537, 3], data=[0] * (65537 * 3))
    assert client.post(INFER, content=json.dumps(body, separators=(",", ":"))).status_code == 413


def test_an_engine_failure_is_a_500_with_an_error() -> None:
    with serving(create_app(FakeEngine(breaks=lambda image: image[0, 0, 0] == 13), Settings())) as client:
        answer = client.post(INFER, json=infer_body(data=[13, 0, 0]))
    assert answer.status_code == 500
    assert "secret" not in answer.json()["error"]


def test_json_is_bounded_and_bytes_are_not() -> None:
    """Whoever reads JSON reads it in one go, and nobody else is served meanwhile."""
    head = json.dumps(infer_body(shape=[1, 700, 700, 3], parameters={"binary_data_size": 1_470_000}))
    body = head.encode() + bytes(1_470_000)
    assert oip.read(*oip.split(body, str(len(head)))).images.shape == (1, 700, 700, 3)
    with pytest.raises(BadTensor, match="binary_data_size"):
        oip.split(b'{"inputs":[' + b" " * oip.MAX_JSON + b"]}", None)


def test_text_among_numbers_takes_no_room_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[int] = []
    asarray = np.asarray

    def counted(*given: Any) -> np.ndarray[Any, Any]:
        made = asarray(*given)
        rooms.append(made.nbytes)
        return made

    monkeypatch.setattr(np, "asarray", counted)
    for data in (["x" * 1000, *[0] * 1000], [[0, "x"], [1, 2]], [[0], [1, 2]], [True, 1, 2], [256, 0, 0], None):
        with pytest.raises(BadTensor, match="from 0 to 255"):
            oip.read(json.dumps(infer_body(data=data)).encode(), memoryview(b""))
    assert max(rooms) == 1001 * 8


def test_a_large_answer_as_json_is_whole(client: httpx.Client) -> None:
    data = [255, 0, 0] * 5000 + [0, 0, 0] * 5000
    (output,) = client.post(INFER, json=infer_body(shape=[1, 100, 100, 3], data=data)).json()["outputs"]
    assert output["shape"] == [1, 100, 100]
    assert output["data"] == [255] * 5000 + [0] * 5000
