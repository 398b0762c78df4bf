"""Settings from the environment and from flags."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from engine.runtime import MODELS
from service.settings import Settings, SettingsError, load


def test_defaults_listen_to_this_machine_alone() -> None:
    settings = load({})
    assert settings == Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)


def test_every_shipped_model_but_the_large_one_is_served_nuclei_first() -> None:
    """That takes four times the work of the others, for which small images of anybody would wait."""
    served, shipped = Settings().models, {path.stem for path in MODELS.glob("*.safetensors")}
    assert served[0] == "nuclei-small"
    assert shipped - set(served) == {"nuclei-large"}
    assert set(served) < shipped


def test_flags_win_over_the_environment() -> None:
    environment = {"MBUNET_PORT": "1", "MBUNET_HOST": "::1", "HOME": "/"}
    settings = load(environment, {"port": "2", "model": None})
    assert (settings.port, settings.host, settings.model) == (2, "::1", Settings.model)


def test_the_limits_promised_are_settings() -> None:
    promised = (Path(__file__).parents[2] / ".github" / "SECURITY.md").read_text()
    names = {f"MBUNET_{field.name.upper()}" for field in fields(Settings)}
    assert set(re.findall(r"`(MBUNET_\w+)`", promised)) <= names


@pytest.mark.parametrize("key", ["MBUNET_PROT", "MBUNET_", "MBUNET_port", "MBUNET_WERRORS"])
def test_unknown_keys_are_refused(key: str) -> None:
    with pytest.raises(SettingsError, match=f"{key} is not a setting"):
        load({key: "1"})


def test_a_misspelt_key_gets_a_hint() -> None:
    with pytest.raises(SettingsError, match="did you mean MBUNET_QUEUE_IMAGES"):
        load({"MBUNET_QUEUE_IMAGE": "1"})


def test_a_setting_of_before_says_what_does_its_work_now() -> None:
    with pytest.raises(SettingsError, match="MBUNET_QUEUE_PIXELS is gone: MBUNET_MEMORY_BYTES bounds"):
        load({"MBUNET_QUEUE_PIXELS": "1"})


@pytest.mark.parametrize("key", ["MBUNET_REQUIRE_NEON", "MBUNET_WERROR"])
def test_variables_of_build_and_tests_are_left_alone(key: str) -> None:
    assert load({key: "1"}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("port", "http", "port must be a whole number, not 'http'"),
        ("port", "65536", "port must lie between 0 and 65535, not 65536"),
        ("threads", "-1", "threads must lie between"),
        ("max_pixels", "", "max_pixels must be a whole number"),
        ("host", "", "host must not be empty"),
        ("root_path", "mbunet/", "root_path is a path without an end"),
        ("energy", "sun", "energy must be one of auto, nvml, ina3221, rapl, none"),
    ],
)
def test_values_are_checked_at_birth(name: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load({f"MBUNET_{name.upper()}": text})
    with pytest.raises(SettingsError, match=message):
        load({}, {name: text})


@pytest.mark.parametrize(
    "origin",
    ["https://app.example.org/", "*", "app.example.org", "https://APP.example.org", "https://a.org:443", "http://a:80"],
)
def test_origins_that_no_browser_sends_are_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match=r"origins are as browsers send them.*" + re.escape(repr(origin))):
        load({"MBUNET_ORIGINS": f"https://friend.example, {origin}"})


@pytest.mark.parametrize(
    "origin", ["https://example.org", "http://localhost:3000", "http://[::1]:8080", "chrome-extension://abcdef"]
)
def test_origins_as_browsers_send_them(origin: str) -> None:
    assert load({"MBUNET_ORIGINS": origin}).allowed_origins == [origin]


@pytest.mark.parametrize("key", ["secret\n", " secret", "secret\t", "sec\nret"])
def test_keys_that_no_client_can_send_are_refused(key: str) -> None:
    with pytest.raises(SettingsError, match="api_key has white space"):
        load({"MBUNET_API_KEY": key})
