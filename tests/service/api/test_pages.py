"""The page at / in a real browser: choose, drop and go through images, count objects, use the webcam, give a key."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.api import pages
from service.app import create_app
from service.cli import object_table
from service.codec.encoders import ENCODERS
from service.settings import Settings
from tests.pictures import file_of, photo, tiff_of
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


def drop(page: Page, *files: Path) -> None:
    """As a person who drags `files` onto the page."""
    items = json.dumps([[file.name, list(file.read_bytes())] for file in files])
    page.run(f"""(() => {{
        const dropped = new DataTransfer();
        for (const [name, bytes] of {items}) {{
            dropped.items.add(new File([new Uint8Array(bytes)], name, {{ type: "image/png" }}));
        }}
        const event = new DragEvent("drop", {{ dataTransfer: dropped, cancelable: true, bubbles: true }});
        document.getElementById("drop").dispatchEvent(event);
    }})()""")


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


def test_a_dropped_image_and_another_model(page: Page, address: str, tmp_path: Path) -> None:
    page.open(address)
    image = tmp_path / "photo.png"
    image.write_bytes(file_of(Image.fromarray(np.asarray(photo()) // 255)))  # class 0 and class 1
    page.run("document.getElementById('model').value = 'second'; document.getElementById('model').onchange(); 0")
    drop(page, image)
    page.wait_for(SHOWN)
    width, height, colors = page.run(PAINTED)
    assert (width, height, colors["255,0,0,255"]) == (21, 13, 21 * 13 - FOREGROUND)


def test_class_indices_are_painted_in_the_colours_of_their_classes(page: Page, address: str, tmp_path: Path) -> None:
    image = tmp_path / "indices.png"  # the fake engine's class index is the red of a pixel
    image.write_bytes(file_of(Image.fromarray(np.array([[[0, 0, 0], [1, 0, 0], [2, 0, 0]]], np.uint8))))
    page.open(address)
    page.run("document.getElementById('model').value = 'second'; document.getElementById('model').onchange(); 0")
    page.choose("#file", image)
    page.wait_for(SHOWN)
    assert page.run(PAINTED) == [3, 1, {f"255,{40 * index},0,255": 1 for index in range(3)}]
    assert page.run("document.getElementById('limit').hidden")  # there is no threshold to several classes
    counted = "[...document.querySelectorAll('#legend tr')].map((line) => line.cells[3].textContent).join()"
    assert page.run(counted) == ",1,1"


@pytest.mark.parametrize("model", ["first", "second"])
def test_what_the_browser_cannot_show_the_server_does(page: Page, address: str, tmp_path: Path, model: str) -> None:
    pixels = np.asarray(photo()) // np.array([255 if model == "second" else 1, 1, 1], np.uint8)  # indices in red
    paths = [tmp_path / name for name in ("looked-at.tif", "other.ome.tif")]
    for path in paths:
        path.write_bytes(file_of(Image.fromarray(pixels), "TIFF"))
    page.open(address)
    page.run(f"document.getElementById('model').value = {model!r}; document.getElementById('model').onchange(); 0")
    page.choose("#file", *paths)
    page.wait_for(SHOWN)
    width, height, data = page.run("""(() => {
        const canvas = document.getElementById("picture");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return [canvas.width, canvas.height, [...data]];
    })()""")
    marked = np.full((13, 21, 1), True) if model == "second" else pixels[:, :, :1] > 127
    lowest = np.where(marked, 254, 255)  # an overlay drops the lowest bit of what it colors
    assert (np.array(data).reshape(height, width, 4)[:, :, :3] == pixels & lowest).all()
    page.wait_for("document.querySelector('#strip img').naturalWidth === 21")
    hidden = "[...document.querySelectorAll('#strip img')].map((picture) => picture.hidden)"
    page.wait_for(f"{hidden}.join() === 'false,true'")  # a name stands for the one that nobody has opened
    name = page.run("getComputedStyle(document.querySelectorAll('#strip button')[1], '::before').content")
    assert name == '"other.ome.tif"'


def test_what_was_taken_of_a_stack_is_said(page: Page, address: str, tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    path.write_bytes(tiff_of(np.zeros((3, 13, 21), np.uint8), imagej=True, metadata={"axes": "ZYX"}))
    page.open(address)
    page.choose("#file", path)
    page.wait_for("document.getElementById('status').textContent === 'Of this file page=0/3 was taken.'")


def test_a_picture_that_nobody_can_show_is_said_and_its_mask_stays(page: Page, address: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    path.write_bytes(file_of(photo(), "TIFF"))
    page.open(address)
    page.run("served = () => Promise.reject(new Error('Too many images wait')); 0")
    page.choose("#file", path)
    page.wait_for("document.getElementById('status').textContent.startsWith('Your browser cannot show this file.')")
    assert text(page, "status").endswith("Too many images wait")
    assert page.run(PAINTED)[2]["255,0,0,255"] == FOREGROUND


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


def test_a_webcam_goes_on_with_another_threshold_and_begins_once(page: Page, address: str) -> None:
    page.open(address)
    page.run("""(() => {
        const devices = navigator.mediaDevices, grant = devices.getUserMedia.bind(devices);
        window.cameras = 0;
        devices.getUserMedia = (wanted) => { window.cameras += 1; return grant(wanted); };
    })()""")
    page.run("document.getElementById('webcam').click(); document.getElementById('webcam').click(); 0")
    page.wait_for(SHOWN)
    assert page.run("window.cameras") == 1
    page.run("window.before = webcam; 0")
    set_value(page, "threshold", "0.9")
    page.wait_for("webcam && webcam !== window.before && window.before.socket.readyState === WebSocket.CLOSED")
    page.wait_for(f"{SHOWN} && webcam.count > 2")
    assert text(page, "webcam") == "Stop the webcam"
    page.run("document.getElementById('webcam').click()")
    assert page.run("window.before.media.getTracks().every((track) => track.readyState === 'ended')")


def test_a_webcam_that_the_server_refuses_says_so(page: Page) -> None:
    with serving(create_app(FakeEngine(fake_model()), Settings(streams=0))) as client:
        page.open(str(client.base_url))
        page.run("document.getElementById('webcam').click()")
        page.wait_for("document.getElementById('status').textContent.includes('closed the stream')")
        assert text(page, "webcam") == "Start the webcam"


def test_of_many_images_the_newest_are_kept(page: Page, address: str, tmp_path: Path) -> None:
    many = [tmp_path / f"{i}.png" for i in range(203)]
    for file in many:
        file.write_bytes(file_of(photo()))
    page.open(address)
    drop(page, *many[:2])
    page.wait_for("images.length === 2")
    drop(page, *many[2:])
    page.wait_for("images.length === 200")
    assert page.run("document.querySelector('#strip button').title") == "3.png"
    assert page.run("document.querySelectorAll('#strip button').length") == 200


def test_a_key_is_asked_for_once_and_used_for_the_webcam_too(page: Page) -> None:
    """And again where none was given; what failed then is done now. It may have signs that no subprotocol has."""
    key = "c2VjcmV0/a=="
    with serving(create_app(FakeEngine(fake_model()), Settings(api_key=key))) as client:
        asks = f"window.asked = 0; window.prompt = () => (window.asked++ ? {key!r} : null);"
        page.do("Page.addScriptToEvaluateOnNewDocument", source=asks)
        page.do("Page.navigate", url=str(client.base_url))
        page.wait_for("document.getElementById('status')?.textContent.includes('key')")
        page.run("document.getElementById('webcam').click()")
        page.wait_for(SHOWN)
        assert page.run("sessionStorage.getItem('key')") == key
        assert page.run("window.asked") == 2


def files(tmp_path: Path) -> list[Path]:
    """Two discs that touch and a speck; and nothing at all."""
    y, x = np.mgrid[:40, :90]
    red = np.zeros((40, 90, 3), np.uint8)
    for center in (30, 52):
        red[(x - center) ** 2 + (y - 20) ** 2 < 144, 0] = 255
    red[2, 2, 0] = 200
    written = [tmp_path / "discs.png", tmp_path / "dark.png"]
    for path, pixels in zip(written, (red, np.zeros((8, 8, 3), np.uint8)), strict=True):
        Image.fromarray(pixels).save(path)
    return written


def objects(page: Page) -> str:
    counted = page.run("document.querySelector('#legend tr').cells[3].textContent")
    assert isinstance(counted, str)
    return counted


def set_value(page: Page, element: str, value: str) -> None:
    page.run(f"""(() => {{
        const element = document.getElementById({element!r});
        if (element.type === "checkbox") element.checked = {value!r} === "true"; else element.value = {value!r};
        for (const kind of ["input", "change"]) element.dispatchEvent(new Event(kind));
    }})()""")


def saved(page: Page, link: str) -> str:
    content = page.run(f"fetch(document.getElementById({link!r}).href).then((answer) => answer.text())")
    assert isinstance(content, str)
    return content


def press(page: Page, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        page.do("Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 else "")


def test_several_images_are_gone_through_by_thumbnails_and_keys(page: Page, address: str, tmp_path: Path) -> None:
    page.open(address)
    page.choose("#file", *files(tmp_path))
    page.wait_for(SHOWN)
    assert page.run("[...document.querySelectorAll('#strip button')].map((b) => b.title)") == ["discs.png", "dark.png"]
    assert page.run("document.getElementById('overlay').width") == 90
    press(page, "ArrowRight")
    page.wait_for(f"{SHOWN} && document.getElementById('overlay').width === 8")
    assert page.run("document.querySelector('#strip [aria-current=true]').title") == "dark.png"
    page.run("document.querySelector('#strip button').click()")
    page.wait_for(f"{SHOWN} && document.getElementById('overlay').width === 90")
    press(page, "m")
    assert page.run("document.getElementById('overlay').style.opacity") == "0"
    press(page, "+")
    assert text(page, "zoom").startswith("1.5")
    assert page.run("document.getElementById('figure').scrollWidth > document.getElementById('figure').clientWidth")
    press(page, "0")
    assert not text(page, "zoom").startswith("1.5")


def test_all_that_is_dropped_is_segmented_at_once(page: Page, address: str, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_bytes(b"no image")
    page.open(address)
    drop(page, *files(tmp_path), text)
    marks = "[...document.querySelectorAll('#strip button')].map((button) => button.className)"
    page.wait_for(f"{marks}.join() === 'done,done,failed'")
    assert page.run("document.querySelector('#strip [aria-current=true]').title") == "discs.png"
    set_value(page, "threshold", "0.9")  # all anew
    page.wait_for(f"images.every((image) => image.asked === wanted()) && {marks}.join() === 'done,done,failed'")
    assert page.run("images[0].answer.objects.annotations.length") == 1


def test_objects_are_counted_and_saved(page: Page, address: str, tmp_path: Path) -> None:
    page.do("Page.setBypassCSP", enabled=True)  # so that this test may read what is saved
    page.open(address)
    page.choose("#file", files(tmp_path)[0])
    page.wait_for(SHOWN)
    assert "threshold" not in page.run("wanted()")
    assert objects(page) == "2"  # the speck reaches the threshold of a half
    set_value(page, "threshold", "0.9")
    page.wait_for(f"{SHOWN} && document.querySelector('#legend tr').cells[3].textContent === '1'")
    assert "threshold=0.9" in page.run("wanted()")
    set_value(page, "threshold", "0.5")
    set_value(page, "least", "2")
    set_value(page, "split", "true")
    page.wait_for(f"{SHOWN} && document.querySelector('#legend tr').cells[1].textContent === '866'")
    page.wait_for("document.querySelector('#legend tr').cells[3].textContent === '2'")
    document = json.loads(saved(page, "json"))
    rows = list(csv.DictReader(saved(page, "csv").splitlines()))
    assert [int(row["area"]) for row in rows] == [entry["area"] for entry in document["annotations"]]
    assert sum(int(row["area"]) for row in rows) == 865
    assert tuple(rows[0]) == object_table.COLUMNS[1:]  # as segment --table writes them, but for the image
    assert page.run("document.getElementById('csv').download") == "discs.objects.csv"
    assert saved(page, "save").startswith("\ufffdPNG")
    page.do("Page.setBypassCSP", enabled=False)
    assert (
        page.run("fetch(document.getElementById('save').href).then((a) => a.blob()).then((b) => b.type)") == "image/png"
    )


def test_a_sample_is_tried_by_one_click(page: Page, address: str) -> None:
    page.open(address)
    page.run("document.querySelector('#samples button').click()")
    page.wait_for(SHOWN)
    assert page.run("document.getElementById('overlay').width") == 256
    assert not page.run("document.getElementById('limit').hidden")


def test_the_page_fits_a_phone(page: Page, address: str, tmp_path: Path) -> None:
    page.do("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
    try:
        page.open(address)
        page.choose("#file", *files(tmp_path))
        page.wait_for(SHOWN)
        assert page.run("document.documentElement.scrollWidth") == 360
    finally:
        page.do("Emulation.clearDeviceMetricsOverride")


def test_the_docs_say_what_a_parameter_takes(page: Page, address: str) -> None:
    page.do("Page.navigate", url=f"{address}/docs")
    page.wait_for("document.getElementById('problems')?.rows.length")
    cells = page.run("[...document.querySelectorAll('main tr')].map((row) => [...row.cells].map((c) => c.textContent))")
    taken = {row[0]: row[2] for row in cells if row[1] == "query"}
    assert taken["format"] == " | ".join(ENCODERS)
    assert taken["priority"] == "normal | low"
    assert taken["split"] == "distance"
    assert taken["threshold"] == "from 0 to 1"
    assert taken["min_area"] == taken["timeout_ms"] == "from 1"


def test_the_docs_explain_the_problem_that_a_link_names(page: Page, address: str) -> None:
    page.do("Page.navigate", url=f"{address}/docs#deadline-passed")
    page.wait_for("document.querySelector('tr:target')")
    assert "timeout_ms has passed" in page.run("document.querySelector('tr:target').textContent")
    page.wait_for("document.querySelector('tr:target').getBoundingClientRect().top < innerHeight && scrollY > 0")


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_addresses_are_relative(name: str) -> None:
    source = (pages.FOLDER / name).read_text(encoding="utf-8")
    assert not re.findall(r"""(?:ask\(|fetch\(|URL\(|src[=:] ?|href[=:] ?)["'`]/""", source)
