"""The page at / in a real browser: choose and drop an image, use the webcam, give a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.app import create_app
from service.settings import Settings
from tests.pictures import file_of, photo
from tests.service.api.browser import Page, chromium
from tests.service.api.test_batch import two_models
from tests.service.fakes import FakeEngine, fake_model, serving

PAINTED = """(() => {
    const canvas = document.getElementById("overlay");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const seen = {};
    for (let i = 0; i < data.length; i += 4) {
        const color = data.slice(i, i + 4).join();
        seen[color] = (seen[color] || 0) + 1;
    }
    return [canvas.width, canvas.height, seen];
})()"""
SHOWN = "!document.getElementById('result').hidden && document.getElementById('status').textContent === ''"
FOREGROUND = 13 * (21 // 2)  # pixels of `photo` that the fake engine takes for foreground


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def address() -> Iterator[str]:
    with serving(create_app(two_models(), Settings())) as client:
        yield str(client.base_url)


def text(page: Page, element: str) -> str:
    found = page.run(f"document.getElementById({element!r}).textContent")
    assert isinstance(found, str)
    return found


def test_a_chosen_image_is_shown_with_its_mask_and_times(page: Page, address: str, tmp_path: Path) -> None:
    image = tmp_path / "photo.png"
    image.write_bytes(file_of(photo()))
    page.open(address)
    page.choose("#file", image)
    page.wait_for(SHOWN)
    assert page.run(PAINTED) == [21, 13, {"255,0,0,255": FOREGROUND, "0,0,0,0": 21 * 13 - FOREGROUND}]
    for stage in ("decode", "queue", "engine", "encode", "total"):
        assert float(text(page, stage).removesuffix(" ms")) >= 0
    assert "class 0" in text(page, "legend")
    page.run("(() => { const o = document.getElementById('opacity'); o.value = 0.25; o.oninput({ target: o }); })()")
    assert page.run("document.getElementById('overlay').style.opacity") == "0.25"
    assert page.picture().startswith(b"\x89PNG")


def test_a_dropped_image_and_another_model(page: Page, address: str) -> None:
    page.open(address)
    numbers = list(file_of(photo()))
    page.run("document.getElementById('model').value = 'second'; document.getElementById('model').onchange(); 0")
    page.run(f"""(() => {{
        const dropped = new DataTransfer();
        dropped.items.add(new File([new Uint8Array({numbers})], "photo.png", {{ type: "image/png" }}));
        const event = new DragEvent("drop", {{ dataTransfer: dropped, cancelable: true, bubbles: true }});
        document.getElementById("drop").dispatchEvent(event);
    }})()""")
    page.wait_for(SHOWN)
    width, height, colors = page.run(PAINTED)  # red is 255 or 0: class 0, or an index that the model does not have
    assert (width, height, colors["255,0,0,255"]) == (21, 13, 21 * 13 - FOREGROUND)


def test_class_indices_are_painted_in_the_colours_of_their_classes(page: Page, address: str, tmp_path: Path) -> None:
    image = tmp_path / "indices.png"  # the fake engine's class index is the red of a pixel
    image.write_bytes(file_of(Image.fromarray(np.array([[[0, 0, 0], [1, 0, 0], [2, 0, 0]]], np.uint8))))
    page.open(address)
    page.run("document.getElementById('model').value = 'second'; document.getElementById('model').onchange(); 0")
    page.choose("#file", image)
    page.wait_for(SHOWN)
    assert page.run(PAINTED) == [3, 1, {f"255,{40 * index},0,255": 1 for index in range(3)}]


def test_what_is_no_image_is_said(page: Page, address: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.png"
    wrong.write_bytes(b"no image")
    page.open(address)
    page.choose("#file", wrong)
    page.wait_for("document.getElementById('status').textContent.includes('not a readable image')")
    assert page.run("document.getElementById('result').hidden")


def test_the_webcam_is_segmented_frame_by_frame(page: Page, address: str) -> None:
    page.open(address)
    page.run("document.getElementById('webcam').click()")
    page.wait_for(f"{SHOWN} && parseInt(document.getElementById('fps').textContent) >= 3")
    assert page.run("document.getElementById('overlay').width") >= 320
    page.run("document.getElementById('webcam').click()")
    assert text(page, "webcam") == "Start the webcam"


def test_a_key_is_asked_for_once_and_used_for_the_webcam_too(page: Page) -> None:
    with serving(create_app(FakeEngine(fake_model()), Settings(api_key="k"))) as client:
        page.do("Page.addScriptToEvaluateOnNewDocument", source="window.prompt = () => 'k';")
        page.open(str(client.base_url))
        page.run("document.getElementById('webcam').click()")
        page.wait_for(SHOWN)
        assert page.run("sessionStorage.getItem('key')") == "k"
