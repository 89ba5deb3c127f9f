"""Energy meters on folders that imitate Linux's sysfs."""

from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import sleep

import pytest
from thirteen.bench.harness.energy import Battery, Rapl, find_energy_meter, measure_energy

RANGE = 262_143_328_850


def rapl(sys: Path, energies: dict[str, int]) -> Callable[[str, int], None]:
    """Write RAPL zones with these names and counters; returns a function that sets a counter."""
    for number, (name, energy) in enumerate(energies.items()):
        zone = sys / "class/powercap" / f"intel-rapl:{number}"
        zone.mkdir(parents=True)
        for file, text in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", RANGE)):
            (zone / file).write_text(f"{text}\n")

    def set_counter(name: str, energy: int) -> None:
        zone = f"intel-rapl:{list(energies).index(name)}"
        (sys / "class/powercap" / zone / "energy_uj").write_text(f"{energy}\n")

    return set_counter


def battery(sys: Path, name: str = "BAT0", **files: object) -> Path:
    folder = sys / "class/power_supply" / name
    folder.mkdir(parents=True)
    for file, text in ({"type": "Battery", "status": "Discharging"} | files).items():
        (folder / file).write_text(f"{text}\n")
    return folder


def test_no_meter_without_rapl_or_a_discharging_battery(tmp_path: Path) -> None:
    assert find_energy_meter(tmp_path) is None
    battery(tmp_path, "AC", type="Mains")
    battery(tmp_path, "BAT1", status="Charging", power_now=9_000_000)
    battery(tmp_path, "BAT2")  # without a gauge
    assert find_energy_meter(tmp_path) is None


def test_rapl_sums_packages_and_ignores_other_zones(tmp_path: Path) -> None:
    set_counter = rapl(tmp_path, {"package-0": 10, "dram": 5, "package-1": 100})
    meter = find_energy_meter(tmp_path)
    assert isinstance(meter, Rapl)
    assert meter.source == "RAPL package-0, package-1"

    def work() -> None:
        set_counter("package-0", 2_000_010)
        set_counter("dram", 77_000_000)
        set_counter("package-1", 500_100)

    assert meter.joules(work) == pytest.approx(2.5)


def test_a_wrapped_counter_does_not_give_negative_energy(tmp_path: Path) -> None:
    set_counter = rapl(tmp_path, {"package-0": RANGE - 1_000_000})
    meter = find_energy_meter(tmp_path)
    assert meter is not None
    assert meter.joules(lambda: set_counter("package-0", 499_999)) == pytest.approx(1.5)


@pytest.mark.parametrize("missing", ["energy_uj", "max_energy_range_uj"])
def test_unreadable_counters_fall_back_to_the_battery(tmp_path: Path, missing: str) -> None:
    """Most systems let only root read the counters."""
    rapl(tmp_path, {"package-0": 10})
    (tmp_path / "class/powercap/intel-rapl:0" / missing).unlink()
    battery(tmp_path, power_now=4_500_000)
    meter = find_energy_meter(tmp_path)
    assert isinstance(meter, Battery)
    assert meter.source == "battery BAT0"


@pytest.mark.parametrize(
    "gauges",
    [
        {"power_now": 6_000_000},
        {"power_now": -6_000_000},
        {"current_now": 500_000, "voltage_now": 12_000_000},
    ],
)
def test_battery_energy_is_power_times_time(tmp_path: Path, gauges: dict[str, int]) -> None:
    battery(tmp_path, **gauges)
    meter = find_energy_meter(tmp_path)
    assert meter is not None
    joules = meter.joules(lambda: sleep(0.3))
    assert joules is not None
    assert 6 * 0.3 <= joules < 6 * 3


def test_battery_energy_uses_the_mean_of_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings, times, busy = iter([2.0, 2.0, 8.0]), iter([0.0, 10.0]), Event()  # the first is no sample

    def watts(meter: Battery) -> float:
        if reading := next(readings, 0.0):
            return reading
        busy.set()
        raise OSError("a gauge can be busy")

    def work() -> None:
        assert busy.wait(60)

    monkeypatch.setattr(Battery, "watts", watts)
    monkeypatch.setattr("thirteen.bench.harness.energy.monotonic", lambda: next(times))
    assert Battery(tmp_path).joules(work) == pytest.approx((2 + 8) / 2 * 10)


def test_a_gauge_that_is_busy_throughout_gives_no_energy(tmp_path: Path) -> None:
    """The first sample was not tolerant: a run ended after its evaluation."""
    folder = battery(tmp_path, power_now=6_000_000)
    meter = find_energy_meter(tmp_path)
    assert meter is not None
    (folder / "power_now").write_text("")  # as a driver that has no value yet
    assert meter.joules(lambda: None) is None


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging"])
def test_a_charger_that_is_plugged_in_gives_no_energy(tmp_path: Path, status: str) -> None:
    """The charging power was reported as that of the model."""
    folder = battery(tmp_path, power_now=6_000_000)
    meter = find_energy_meter(tmp_path)
    assert meter is not None

    def work() -> None:
        (folder / "status").write_text(f"{status}\n")
        sleep(0.5)

    assert meter.joules(work) is None
    assert measure_energy(meter, lambda: 5) is None


class FixedMeter:
    """A meter that reports a fixed energy."""

    source = "test"

    def __init__(self, joules: float, min_duration_s: float) -> None:
        self._joules, self.min_duration_s = joules, min_duration_s

    def joules(self, work: Callable[[], None]) -> float:
        work()
        return self._joules


def test_decoding_repeats_until_the_meters_minimum_duration() -> None:
    calls: list[int] = []

    def decode() -> int:
        calls.append(10)
        sleep(0.02)
        return 10

    found = measure_energy(FixedMeter(6.0, min_duration_s=0.1), decode)
    assert len(calls) > 1
    assert found is not None
    assert found.tokens == sum(calls)
    assert found.joules_per_token == pytest.approx(6.0 / found.tokens)
    assert found.watts == pytest.approx(6.0 / found.seconds)
    once = measure_energy(FixedMeter(1.0, min_duration_s=0), lambda: 5)
    assert once is not None
    assert once.tokens == 5
