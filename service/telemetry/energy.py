"""Joules: where this machine lets them be read, what they cover, and what an image cost.

A meter is chosen by a real reading: a library that loads, or a file that exists, proves nothing (on Jetson NVML
initialises and reports no power). Where nothing can be read there is no meter and no figure: absent, not zero.

    NvmlMeter     a counter of millijoules, refreshed every 10 to 100 ms      boundary: the GPU's board, where MIG does
                                                                              not share it among strangers
    Ina3221Meter  volts x amperes of every labelled rail, summed over time    boundary: VDD_IN, or the sum of AGX rails
    RaplMeter     counters of microjoules that wrap                           boundary: the CPU packages, without DRAM

Joules per image are those of a window divided by the images finished in it (MLPerf's mean watts x seconds / queries):
counters refresh too seldom for single requests, and the idle draw within the window belongs to it. A window with work
lasts until an image is finished, or until there has been no work for as long as a window is: then nobody waits for it.
"""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from service.logs import log

WINDOW_S = 5.0  # long against NVML's refresh, short for who waits for a figure
FADING = 0.8  # weight of the past against the newest idle window
LONGEST_GAP_S = 3.0  # beyond that, power between two readings is unknown and not counted

POWERCAP = Path("/sys/class/powercap")
HWMON = Path("/sys/class/hwmon")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
JETSON_TOTALS = (  # rails by label whose sum is the whole module; hwmon numbers and channels differ between releases
    ("VDD_IN",),  # Orin NX and Nano
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"),  # AGX Orin has no rail for the total
)


class Unreadable(Exception):  # noqa: N818  (no error: most machines have no such sensor)
    """There is nothing for this meter to read; says why."""


class Meter(Protocol):
    """Cumulative joules by rail. `total` names the rails whose sum is the boundary; empty where none is known."""

    source: str
    device: str
    total: tuple[str, ...]
    interval_s: float

    def read(self, now: float) -> dict[str, float]:
        """Joules since the first reading, of every rail that can be read at this moment (seconds of any clock)."""


@dataclass
class Counter:
    """Sums up a counter that wraps at `span` joules, or (span 0) restarts at zero when its driver does."""

    span: float = 0.0
    joules: float = 0.0
    last: float | None = None

    def advance(self, value: float) -> float:
        """The sum, after the counter has been read as `value`."""
        if self.last is not None:
            step = value - self.last
            self.joules += step if step >= 0 else step + self.span if self.span else value
        self.last = value
        return self.joules


@dataclass
class Integral:
    """Sums up power over time, as the mean of two neighbouring readings."""

    joules: float = 0.0
    last: tuple[float, float] | None = None  # seconds, watts

    def advance(self, now: float, watts: float) -> float:
        """The sum, after `watts` have been read at `now`."""
        if self.last is not None and now - self.last[0] <= LONGEST_GAP_S:
            self.joules += (now - self.last[0]) * (watts + self.last[1]) / 2
        self.last = (now, watts)
        return self.joules


class NvmlMeter:
    """The energy counter of the GPU at the PCI address `bus`, by default of the first. `nvml` is the module pynvml.

    Where MIG divides the board its joules are shown, but are not this engine's: there is no total. Raises Unreadable.
    """

    source = "nvml"
    interval_s = 0.2

    def __init__(self, nvml: Any, bus: str = "") -> None:
        self._nvml = nvml
        self._counter = Counter()
        try:
            nvml.nvmlInit()
            self._handle = nvml.nvmlDeviceGetHandleByPciBusId(bus) if bus else nvml.nvmlDeviceGetHandleByIndex(0)
            self.device = str(nvml.nvmlDeviceGetUUID(self._handle))
            if nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) <= 0:
                raise Unreadable("NVML's energy counter stands at zero")
        except nvml.NVMLError as error:
            raise Unreadable(f"NVML: {error}") from error
        self.total: tuple[str, ...] = () if self._is_divided() else ("gpu",)

    def _is_divided(self) -> bool:
        try:
            return bool(self._nvml.nvmlDeviceGetMigMode(self._handle)[0])
        except self._nvml.NVMLError:  # a board that cannot be
            return False

    def read(self, now: float) -> dict[str, float]:
        """See `Meter`."""
        try:
            millijoules = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except self._nvml.NVMLError:
            return {}
        return {"gpu": self._counter.advance(millijoules / 1e3)}


class Ina3221Meter:
    """The current monitors of a Jetson Orin, found under hwmon by their rails' labels; raises Unreadable."""

    source = "ina3221"
    interval_s = 0.2

    def __init__(self, hwmon: Path, device: str = "") -> None:
        self._rails = _rails(hwmon)
        self._integrals = {name: Integral() for name in self._rails}
        self.device = device or machine()
        self.total: tuple[str, ...] = next((names for names in JETSON_TOTALS if set(names) <= set(self._rails)), ())
        watts = [_watts(*files) for files in self._rails.values()]
        if not any(watts):
            raise Unreadable(f"no INA3221 with a labelled rail and a reading under {hwmon}")

    def read(self, now: float) -> dict[str, float]:
        """See `Meter`."""
        joules = {}
        for name, files in self._rails.items():
            watts = _watts(*files)
            if watts is not None:
                joules[name] = self._integrals[name].advance(now, watts)
        return joules


class RaplMeter:
    """The energy counters of the CPU packages, and of DRAM beside them, under powercap; raises Unreadable."""

    source = "rapl"
    interval_s = 1.0

    def __init__(self, powercap: Path, device: str = "") -> None:
        self._zones = _zones(powercap)
        self.device = device or machine()
        self.total = tuple(name for name in self._zones if name.startswith("package"))
        try:
            spans = {name: _number(zone / "max_energy_range_uj") / 1e6 for name, zone in self._zones.items()}
            if not any(_number(self._zones[name] / "energy_uj") for name in self.total):
                raise Unreadable(f"no CPU package with an energy counter under {powercap}")
        except (OSError, ValueError) as error:
            raise Unreadable(f"RAPL: {error}") from error
        self._counters = {name: Counter(span) for name, span in spans.items()}

    def read(self, now: float) -> dict[str, float]:
        """See `Meter`."""
        joules = {}
        for name, zone in self._zones.items():
            try:
                joules[name] = self._counters[name].advance(_number(zone / "energy_uj") / 1e6)
            except (OSError, ValueError):
                continue
        return joules


def choose(wanted: str, device: str, bus: str = "") -> Meter | None:
    """The meter for an engine on `device` ("cpu", "cuda:0", …): the first that can be read, or the `wanted` one.

    A GPU is known by its PCI address `bus`: NVML counts the boards otherwise than CUDA does.

    A GPU's counter tells nothing about an engine on the CPU, so it is not tried there unless it is asked for.
    """
    makers: dict[str, Callable[[], Meter]] = {
        "nvml": lambda: NvmlMeter(_pynvml(), bus),
        "ina3221": lambda: Ina3221Meter(HWMON),
        "rapl": lambda: RaplMeter(POWERCAP),
    }
    automatic = ("nvml", "ina3221", "rapl") if device.startswith("cuda") else ("ina3221", "rapl")
    for name in automatic if wanted == "auto" else () if wanted == "none" else (wanted,):
        try:
            return makers[name]()
        except Unreadable as reason:
            log.log(logging.INFO if wanted == "auto" else logging.WARNING, "no energy from %s: %s", name, reason)
    return None


def machine() -> str:
    """What all processes and containers of this machine agree on, and no other machine has; until the next boot."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return platform.node()


@dataclass(frozen=True)
class Reading:
    """One look at meter and engine: seconds, joules of the boundary (None where unknown), images so far, at work."""

    at: float
    joules: float | None
    images: int
    busy: bool


@dataclass
class Monitor:
    """Reads a meter now and then, and tells joules from joules: per image, idle, and by rail.

    `images` counts the images that engines have finished; `busy` says whether one is at work. `sample` is all that the
    thread does, so tests call it themselves.
    """

    meter: Meter
    images: Callable[[], int]
    busy: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    rails: dict[str, float] = field(default_factory=dict)  # cumulative joules
    idle_watts: float | None = None
    image_joules: float | None = None
    _opened: Reading | None = None
    _worked_at: float | None = None  # when work was last seen in the window
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def boundary(self) -> str:
        """What the total covers, as a label."""
        return "+".join(self.meter.total)

    def start(self) -> None:
        """Sample in a thread until `stop`."""
        self._thread = threading.Thread(target=self._sample_until_stopped, name="energy", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._ended.set()
        if self._thread:
            self._thread.join()

    def sample(self) -> None:
        """Take one reading, and close the window when it is long enough."""
        now = self.clock()
        joules = self.meter.read(now)
        self.rails |= joules
        total = _sum(joules, self.meter.total)
        reading = Reading(now, total, self.images(), self.busy())
        if total is None or self._opened is None or self._opened.joules is None:
            self._open(reading)
            return
        if reading.busy or reading.images > self._opened.images:
            self._worked_at = now
        if now - self._opened.at >= WINDOW_S and not self._is_unfinished(self._opened, reading):
            self._close(self._opened, reading)
            self._open(reading)

    def _open(self, reading: Reading) -> None:
        self._opened, self._worked_at = reading, reading.at if reading.busy else None

    def _is_unfinished(self, opened: Reading, now: Reading) -> bool:
        """Whether what has been worked on since is still to come."""
        return now.images == opened.images and self._worked_at is not None and now.at - self._worked_at < WINDOW_S

    def _close(self, opened: Reading, now: Reading) -> None:
        assert opened.joules is not None
        assert now.joules is not None
        joules, images = now.joules - opened.joules, now.images - opened.images
        if images:
            self.image_joules = joules / images
        elif self._worked_at is None:
            watts = joules / (now.at - opened.at)
            before = watts if self.idle_watts is None else self.idle_watts
            self.idle_watts = FADING * before + (1 - FADING) * watts

    def _sample_until_stopped(self) -> None:
        while not self._ended.wait(self.meter.interval_s):
            self.sample()


def _sum(joules: Mapping[str, float], names: Iterable[str]) -> float | None:
    found = [joules.get(name) for name in names]
    known = [value for value in found if value is not None]
    return sum(known) if known and len(known) == len(found) else None


def _rails(hwmon: Path) -> dict[str, tuple[Path, Path]]:
    """(millivolts, milliamperes) of every rail of every INA3221, by label; channels that are not connected are left."""
    found = {}
    for name in sorted(hwmon.glob("*/name")):
        if _text(name) != "ina3221":
            continue
        for label in sorted(name.parent.glob("in*_label")):
            channel = label.name.removeprefix("in").removesuffix("_label")
            files = name.parent / f"in{channel}_input", name.parent / f"curr{channel}_input"
            if _text(label) not in ("", "NC") and all(file.exists() for file in files):
                found[_text(label)] = files
    return found


def _zones(powercap: Path) -> dict[str, Path]:
    """Packages and their DRAM by name. Cores and the like lie within a package and would count twice."""
    found = {}
    for package in sorted(powercap.glob("intel-rapl:*")):
        name = _text(package / "name")
        if package.name.count(":") == 1 and name.startswith("package"):
            found[name] = package
            for part in sorted(powercap.glob(f"{package.name}:*")):
                if _text(part / "name") == "dram":
                    found[f"dram-{name.removeprefix('package-')}"] = part
    return found


def _watts(millivolts: Path, milliamperes: Path) -> float | None:
    try:
        return _number(millivolts) * _number(milliamperes) / 1e6
    except (OSError, ValueError):
        return None


def _number(file: Path) -> int:
    return int(file.read_text())


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _pynvml() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise Unreadable("nvidia-ml-py is not installed") from error
    return pynvml
