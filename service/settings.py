"""Every setting of the service, once: its default, its meaning and its bounds. Read from MBUNET_* and from flags."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from engine import cores

PREFIX = "MBUNET_"
NOT_SETTINGS = frozenset(  # of tests and build
    {"MBUNET_REQUIRE_NEON", "MBUNET_REQUIRE_CHROMIUM", "MBUNET_REQUIRE_NVCC", "MBUNET_CUDA", "MBUNET_WERROR"}
)

GONE = {"queue_pixels": "MBUNET_MEMORY_BYTES bounds what requests hold"}
"""Settings of before, and what does their work now."""

LAST_SHARE = 0.1  # of drain_ms, for the last run of an engine when all requests are answered or given up
ORIGIN = re.compile(r"(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d+)?")
"""Scheme, host and, unless it is the scheme's own, port, in small letters, with nothing behind them."""
ROOT_PATH = re.compile(r"(/[\w.~-]+)+", re.ASCII)
MOST_WORKERS = 64
ENERGY_SOURCES = ("auto", "nvml", "ina3221", "rapl", "none")


class SettingsError(ValueError):
    """A setting that does not exist or cannot be; the message names it."""


def _setting(default: int | str, meaning: str, low: int = 0, high: int = 2**40) -> Any:
    return field(default=default, metadata={"meaning": meaning, "low": low, "high": high})


@dataclass(frozen=True)
class Settings:
    """How one process serves; raises SettingsError at birth for what cannot be.

    `max_pixels` counts those of the file, and again those that the model computes for it (`core.cost`), as
    `batch_pixels` does.
    """

    host: str = _setting("127.0.0.1", "address to listen on; 0.0.0.0 means every interface, :: those of IPv6 too")
    port: int = _setting(8080, "TCP port; 0 lets the system choose", high=65535)
    root_path: str = _setting("", "path below which a proxy shows this server, as in /mbunet")
    workers: str = _setting(
        "1", "processes for HTTP, decoding and encoding round one for the engine; auto by the cores"
    )
    model: str = _setting(
        "nuclei-small,road-damage", "model files or names of shipped models, by commas; the first is the default"
    )
    device: str = _setting("auto", "where the engine runs: auto, cpu, cuda, cuda:1 and so on, or reference")
    kernel: str = _setting("auto", "kernel of the CPU engine: auto, portable, avx2, avx512, avx512vnni or neon")
    threads: int = _setting(0, "threads of the engine; 0 means one per core", high=4096)
    max_body_bytes: int = _setting(32 * 2**20, "largest request body in bytes", low=1)
    max_pixels: int = _setting(32 * 2**20, "largest image in pixels", low=256)
    memory_bytes: int = _setting(0, "bytes that all requests may take; 0 means half of what the process may use")
    queue_images: int = _setting(64, "images that may wait for the engine; one more is refused with 429", low=1)
    batch_images: int = _setting(8, "images in one run of the engine", low=1)
    batch_pixels: int = _setting(2 * 2**20, "pixels in one run of the engine; larger images run in windows", low=1)
    max_delay_ms: int = _setting(0, "milliseconds that an image may wait for company while the engine is free")
    timeout_ms: int = _setting(30_000, "milliseconds from upload to answer: default and limit", low=1)
    upload_ms: int = _setting(30_000, "milliseconds that an upload may take", low=1)
    stall_ms: int = _setting(30_000, "milliseconds after which who takes nothing of an answer is hung up on", low=1)
    keep_alive_ms: int = _setting(  # longer than proxies keep theirs: 60 s
        75_000, "milliseconds that a connection stays open between two requests", low=1
    )
    hang_ms: int = _setting(60_000, "milliseconds of one engine run after which /healthz fails", low=1)
    drain_ms: int = _setting(30_000, "milliseconds from SIGTERM until what is unanswered is given up", low=1)
    request_images: int = _setting(32, "images in one request", low=1)
    streams: int = _setting(16, "websockets open at the same time")
    stream_fps: int = _setting(60, "frames per second taken from a websocket, the newest each time", low=1)
    api_key: str = _setting("", "key that clients must send; none is asked for without it")
    origins: str = _setting("", "other origins whose pages may ask, by commas, as in https://example.org")
    energy: str = _setting("auto", "where joules are read: auto, nvml, ina3221, rapl or none")
    tls_certificate: str = _setting("", "PEM file with the certificate chain, to serve HTTPS")
    tls_key: str = _setting("", "PEM file with the certificate's private key")

    @property
    def models(self) -> list[str]:
        """Each of `model`, the default first: what runs one model alone takes that."""
        return [name.strip() for name in self.model.split(",")]

    @property
    def allowed_origins(self) -> list[str]:
        """`origins`, one by one."""
        return [origin.strip() for origin in self.origins.split(",") if origin.strip()]

    @property
    def front_ends(self) -> int:
        """Processes round one for the engine; 1 means that all is one process."""
        return max(1, cores.available() // 2) if self.workers == "auto" else int(self.workers)

    def __post_init__(self) -> None:
        for setting in fields(self):
            _check(setting, getattr(self, setting.name))
        if self.energy not in ENERGY_SOURCES:
            raise SettingsError(f"energy must be one of {', '.join(ENERGY_SOURCES)}, not {self.energy!r}")
        if self.root_path and not ROOT_PATH.fullmatch(self.root_path):
            raise SettingsError(f"root_path is a path without an end, as in /mbunet, not {self.root_path!r}")
        if self.workers != "auto" and not (self.workers.isdecimal() and 1 <= int(self.workers) <= MOST_WORKERS):
            raise SettingsError(f"workers must be auto or lie between 1 and {MOST_WORKERS}, not {self.workers!r}")
        for origin in self.allowed_origins:
            if not ORIGIN.fullmatch(origin):
                form = "scheme://host or scheme://host:port in small letters, without the scheme's own port"
                raise SettingsError(f"origins are as browsers send them, {form}, not {origin!r}")
        if self.api_key != self.api_key.strip() or not self.api_key.isprintable():
            raise SettingsError("api_key has white space at an end, or a line's end in it: no client can send it")
        if self.tls_key and not self.tls_certificate:
            raise SettingsError("tls_key needs a tls_certificate beside it")


def load(environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> Settings:
    """Settings from MBUNET_* variables and from `flags` by field name; a flag wins, None is a flag not given."""
    known = {setting.name: setting for setting in fields(Settings)}
    texts = {}
    for key, text in environment.items():
        if key.startswith(PREFIX) and key not in NOT_SETTINGS:
            name = key.removeprefix(PREFIX).lower()
            if name in GONE and key == PREFIX + name.upper():
                raise SettingsError(f"{key} is gone: {GONE[name]}")
            if name not in known or key != PREFIX + name.upper():
                raise SettingsError(f"{key} is not a setting{_hint(name, known)}")
            texts[name] = text
    texts |= {name: text for name, text in (flags or {}).items() if text is not None}
    return Settings(**{name: _parse(known[name], text) for name, text in texts.items()})


def _parse(setting: Field[Any], text: str) -> Any:
    if isinstance(setting.default, str):
        return text
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"{setting.name} must be a whole number, not {text!r}") from None


def _check(setting: Field[Any], value: Any) -> None:
    if type(value) is not type(setting.default):
        raise SettingsError(f"{setting.name} must be of type {type(setting.default).__name__}, not {value!r}")
    low, high = setting.metadata["low"], setting.metadata["high"]
    if isinstance(value, int) and not low <= value <= high:
        raise SettingsError(f"{setting.name} must lie between {low} and {high}, not {value}")
    if value == "" and setting.default != "":
        raise SettingsError(f"{setting.name} must not be empty")


def _hint(name: str, known: Mapping[str, Field[Any]]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {PREFIX}{near[0].upper()}?"
    return f"; there are {', '.join(PREFIX + other.upper() for other in known)}"
