"""Energy against trees of files as Jetsons and servers have them, and an NVML that refreshes every 100 ms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.core import resident
from service.settings import Settings
from service.telemetry import energy
from service.telemetry.energy import Ina3221Meter, Monitor, NvmlMeter, RaplMeter, Unreadable
from service.telemetry.metrics import Metrics
from tests.service.core.test_batcher import Clock
from tests.service.fakes import FakeEngine

ORIN_NANO = {"VDD_IN": (5080, 1000), "VDD_CPU_GPU_CV": (5080, 200), "VDD_SOC": (5080, 300)}  # mV, mA
AGX_ORIN = {"VDD_GPU_SOC": (12000, 500), "VDD_CPU_CV": (12000, 250), "VIN_SYS_5V0": (5000, 800)}
AGX_ORIN_SECOND = {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (12000, 100)}


def ina3221(hwmon: Path, number: int, rails: dict[str, tuple[int, int]]) -> Path:
    """One chip as the kernel shows it; channel 7 is the sum of the shunts, which has a voltage but no current."""
    chip = hwmon / f"hwmon{number}"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina3221\n")
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        (chip / f"in{channel}_label").write_text(f"{label}\n")
        (chip / f"in{channel}_input").write_text(f"{millivolts}\n")
        (chip / f"curr{channel}_input").write_text(f"{milliamperes}\n")
    (chip / "in7_label").write_text("sum of shunt voltages\n")
    (chip / "in7_input").write_text("8\n")
    return chip


def rapl(powercap: Path, packages: int = 1, span_uj: int = 262_143_328_850) -> Path:
    """Packages with a core zone (within them) and DRAM (beside them), and psys (round them)."""
    zones = {"intel-rapl:9": "psys"}
    for package in range(packages):
        zones |= {f"intel-rapl:{package}": f"package-{package}", f"intel-rapl:{package}:0": "core"}
        zones |= {f"intel-rapl:{package}:1": "dram"}
    for number, (zone, name) in enumerate(zones.items(), 1):
        (powercap / zone).mkdir(parents=True)
        (powercap / zone / "name").write_text(f"{name}\n")
        (powercap / zone / "energy_uj").write_text(f"{number * 1_000_000}\n")
        (powercap / zone / "max_energy_range_uj").write_text(f"{span_uj}\n")
    return powercap


class FakeNvml:
    """Boards of 100 W each; their counters move every 100 ms only. `broken` is what Jetson says: initialised, and not
    supported. `boards` are PCI addresses in NVML's order, and a UUID has the place in it. MIG divides those in `mig`.
    """

    boards = ("0000:01:00.0", "0000:3b:00.0")
    mig: tuple[str, ...] = ()

    class NVMLError(Exception):
        pass

    def __init__(self, clock: Callable[[], float], broken: bool = False) -> None:
        self.clock, self.broken, self.restarted_at = clock, broken, 0.0

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetHandleByPciBusId(self, bus: str) -> int:  # noqa: N802
        if bus.lower() not in self.boards:
            raise self.NVMLError("Not Found")
        return self.boards.index(bus.lower())

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:  # noqa: N802
        if self.boards[handle] not in self.mig:
            raise self.NVMLError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        if self.broken:
            raise self.NVMLError("Not Supported")
        return round((self.clock() - self.restarted_at) // 0.1 * 0.1 * 100 * 1000)


# -- meters --------------------------------------------------------------------------------------------------------


def test_orin_nano_power_is_summed_over_time_by_label(tmp_path: Path) -> None:
    chip = ina3221(tmp_path, 4, ORIN_NANO)
    (tmp_path / "hwmon0").mkdir()
    (tmp_path / "hwmon0" / "name").write_text("nvme\n")
    meter = Ina3221Meter(tmp_path, "orin")
    assert meter.total == ("VDD_IN",)
    assert meter.read(10.0) == {"VDD_IN": 0, "VDD_CPU_GPU_CV": 0, "VDD_SOC": 0}
    (chip / "curr1_input").write_text("3000\n")
    joules = meter.read(12.0)
    assert joules["VDD_IN"] == pytest.approx(2 * 5.08 * (1 + 3) / 2)
    assert joules["VDD_SOC"] == pytest.approx(2 * 5.08 * 0.3)


def test_agx_orin_has_no_total_rail_so_four_rails_of_two_chips_are_summed(tmp_path: Path) -> None:
    ina3221(tmp_path, 2, AGX_ORIN)
    ina3221(tmp_path, 3, AGX_ORIN_SECOND)
    meter = Ina3221Meter(tmp_path)
    assert "NC" not in meter.read(0)
    clock = Clock()
    monitor = Monitor(meter, lambda: 10 * int(clock.now > 100), lambda: False, clock)
    for _ in range(6):
        monitor.sample()
        clock.now += 1
    assert monitor.boundary == "VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0+VDDQ_VDD2_1V8AO"
    assert monitor.image_joules == pytest.approx(5 * (6 + 3 + 4 + 1.2) / 10)


def test_unknown_rails_are_shown_apart_and_make_no_total(tmp_path: Path) -> None:
    ina3221(tmp_path, 0, {"VDD_ODD": (5000, 100)})
    meter = Ina3221Meter(tmp_path)
    assert (meter.total, set(meter.read(0))) == ((), {"VDD_ODD"})


def test_a_rail_that_vanishes_is_absent_and_the_gap_is_not_guessed(tmp_path: Path) -> None:
    chip = ina3221(tmp_path, 0, ORIN_NANO)
    meter = Ina3221Meter(tmp_path)
    meter.read(0)
    (chip / "curr1_input").unlink()
    assert set(meter.read(1)) == {"VDD_CPU_GPU_CV", "VDD_SOC"}
    (chip / "curr1_input").write_text("1000\n")
    assert meter.read(60)["VDD_IN"] == 0
    assert meter.read(61)["VDD_IN"] == pytest.approx(5.08)


def test_a_jetson_without_readings_is_unreadable(tmp_path: Path) -> None:
    ina3221(tmp_path, 0, {"VDD_IN": (0, 0)})
    with pytest.raises(Unreadable, match="no INA3221"):
        Ina3221Meter(tmp_path)


def test_packages_are_the_total_and_dram_stands_beside(tmp_path: Path) -> None:
    meter = RaplMeter(rapl(tmp_path, packages=2), "server")
    assert meter.total == ("package-0", "package-1")
    assert set(meter.read(0)) == {"package-0", "package-1", "dram-0", "dram-1"}  # cores and psys would count twice
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("4500000\n")
    assert meter.read(1)["package-0"] == pytest.approx(2.5)


def test_a_wrapped_counter_goes_on(tmp_path: Path) -> None:
    meter = RaplMeter(rapl(tmp_path, span_uj=10_000_000))
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    sums = []
    for value in (9_000_000, 1_000_000, 3_000_000):
        counter.write_text(f"{value}\n")
        sums.append(meter.read(0)["package-0"])
    assert sums == pytest.approx([0, 2, 4])


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj"])
def test_rapl_without_permission_is_unreadable(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, rapl(tmp_path) / "intel-rapl:0" / file)
    with pytest.raises(Unreadable, match=r"RAPL: .*Permission denied"):
        RaplMeter(tmp_path)


def forbid(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """As a file mode would, for root too."""
    read_text = Path.read_text

    def checked(path: Path, *args: Any, **options: Any) -> str:
        if path == file:
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", checked)


def test_a_counter_that_is_forbidden_later_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = RaplMeter(rapl(tmp_path))
    meter.read(0)
    forbid(monkeypatch, tmp_path / "intel-rapl:0" / "energy_uj")
    assert set(meter.read(1)) == {"dram-0"}


def test_nvml_counts_millijoules_and_survives_a_restart_of_its_driver() -> None:
    clock = Clock()
    nvml = FakeNvml(clock)
    meter = NvmlMeter(nvml, "0000:3B:00.0")
    assert (meter.device, meter.read(0)) == ("GPU-1", {"gpu": 0})
    clock.now += 2
    assert meter.read(0)["gpu"] == pytest.approx(200)
    nvml.restarted_at = clock.now
    clock.now += 1
    assert meter.read(0)["gpu"] == pytest.approx(300, rel=0.04)
    nvml.broken = True
    assert meter.read(0) == {}


# -- choice --------------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no sensor at all."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    monkeypatch.setattr(energy, "HWMON", tmp_path / "hwmon")
    monkeypatch.setattr(energy, "_pynvml", lambda: FakeNvml(Clock(), broken=True))
    return tmp_path


def chosen(wanted: str = "auto", device: str = "cpu", bus: str = "") -> str | None:
    meter = energy.choose(wanted, device, bus)
    return meter.source if meter else None


def test_without_sensors_there_is_no_meter(machine: Path) -> None:
    assert [chosen(), chosen(device="cuda:0"), chosen("rapl")] == [None, None, None]


def test_an_nvml_that_only_initialises_is_passed_over(machine: Path) -> None:
    ina3221(machine / "hwmon", 1, ORIN_NANO)
    assert chosen(device="cuda") == "ina3221"


def test_a_gpu_tells_nothing_about_an_engine_on_the_cpu(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rapl(machine / "powercap")
    monkeypatch.setattr(energy, "_pynvml", lambda: FakeNvml(Clock()))
    assert [chosen(), chosen(device="cuda:1"), chosen("nvml"), chosen("none")] == ["rapl", "nvml", "nvml", None]


def test_the_board_is_the_one_that_cuda_runs_on_whatever_its_number(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA_VISIBLE_DEVICES shows the second board alone, or CUDA counts the faster one first: NVML counts by slot."""
    engine = FakeEngine(device="cuda:0", bus="0000:3B:00.0")
    monkeypatch.setattr(energy, "_pynvml", lambda: FakeNvml(Clock()))
    monitor = resident.assemble([engine], Settings(), Metrics()).energy
    assert monitor
    assert (monitor.meter.device, monitor.boundary) == ("GPU-1", "gpu")
    assert chosen(device="cuda:0", bus="0000:99:00.0") is None


def test_joules_of_a_board_that_mig_divides_are_nobodys_own(machine: Path) -> None:
    nvml = FakeNvml(clock := Clock())
    nvml.mig = (FakeNvml.boards[1],)
    monitor = Monitor(NvmlMeter(nvml, FakeNvml.boards[1]), lambda: 5, lambda: True, clock)
    for _ in range(10):
        monitor.sample()
        clock.now += 1
    assert monitor.rails["gpu"] == pytest.approx(900)
    assert (monitor.boundary, monitor.image_joules, monitor.idle_watts) == ("", None, None)
    assert NvmlMeter(nvml, FakeNvml.boards[0]).total == ("gpu",)


# -- windows -------------------------------------------------------------------------------------------------------


def monitored(watch: Clock) -> tuple[Monitor, dict[str, int]]:
    state = {"images": 0, "busy": 0}
    return Monitor(NvmlMeter(FakeNvml(watch)), lambda: state["images"], lambda: bool(state["busy"]), watch), state


def run_for(monitor: Monitor, clock: Clock, seconds: float, each: Callable[[], None] = lambda: None) -> None:
    for _ in range(round(seconds / 0.2)):
        monitor.sample()
        clock.now += 0.2
        each()


def test_joules_per_image_are_those_of_a_window() -> None:
    clock = Clock()
    monitor, state = monitored(clock)
    run_for(monitor, clock, 11, lambda: state.update(images=state["images"] + 1))  # 5 images a second at 100 W
    assert monitor.image_joules == pytest.approx(20, rel=0.03)
    assert monitor.idle_watts is None


def test_idle_watts_come_from_windows_without_any_work() -> None:
    clock = Clock()
    monitor, state = monitored(clock)
    state["busy"] = 1
    run_for(monitor, clock, 6)
    assert (monitor.idle_watts, monitor.image_joules) == (None, None)  # at work, but nothing finished
    state["busy"] = 0
    run_for(monitor, clock, 11)
    assert monitor.idle_watts == pytest.approx(100, rel=0.03)


def test_an_image_that_takes_longer_than_a_window_costs_all_its_joules() -> None:
    clock = Clock()
    monitor, state = monitored(clock)
    for seconds in (20, 12):
        state["busy"] = 1
        run_for(monitor, clock, seconds / 2)
        state["busy"] = 0
        run_for(monitor, clock, 0.2)  # between two turns
        state["busy"] = 1
        run_for(monitor, clock, seconds / 2)
        state.update(images=state["images"] + 1)
        run_for(monitor, clock, 0.2)
        assert monitor.image_joules == pytest.approx(100 * seconds, rel=0.04)


def test_idle_time_after_work_that_came_to_nothing_belongs_to_no_image() -> None:
    clock = Clock()
    monitor, state = monitored(clock)
    state["busy"] = 1
    run_for(monitor, clock, 8)
    state["busy"] = 0
    run_for(monitor, clock, 60)
    assert monitor.idle_watts == pytest.approx(100, rel=0.03)
    state.update(images=state["images"] + 1)
    run_for(monitor, clock, 6)
    assert monitor.image_joules
    assert monitor.image_joules < 100 * 6


def test_windows_with_a_missing_reading_do_not_count() -> None:
    clock = Clock()
    nvml = FakeNvml(clock)
    monitor = Monitor(NvmlMeter(nvml), lambda: 0, lambda: False, clock)
    for _ in range(4):
        run_for(monitor, clock, 4)
        nvml.broken = True
        run_for(monitor, clock, 1)
        nvml.broken = False
    assert monitor.idle_watts is None


def test_series_carry_source_boundary_and_device_and_are_absent_until_known() -> None:
    clock = Clock()
    monitor, state = monitored(clock)
    metrics = Metrics()
    metrics.show_energy(monitor, lambda: state["images"])
    labels = 'boundary="gpu",device="GPU-0",source="nvml"'
    monitor.sample()
    text = metrics.text().decode()
    assert f"mbunet_energy_joules_total{{{labels}}} 0.0" in text
    assert "mbunet_image_joules{" not in text
    run_for(monitor, clock, 11, lambda: state.update(images=state["images"] + 1))
    text = metrics.text().decode()
    assert f"mbunet_energy_images_total{{{labels}}} 55.0" in text
    assert f"mbunet_image_joules{{{labels}}} " in text
    assert "mbunet_idle_watts{" not in text
    assert "energy" not in Metrics().text().decode()
