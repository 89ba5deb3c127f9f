"""Meters of energy, over folders like those of Linux's sysfs."""

from collections.abc import Callable
from pathlib import Path
from time import sleep

import pytest
from thirteen.bench.memory.energy import Battery, Rapl, find_meter, measure_energy

RANGE = 262_143_328_850


def rapl(sys: Path, energies: dict[str, int]) -> Callable[[str, int], None]:
    """Zones by number, each with a name and a counter; returns what sets a counter."""
    for number, (name, energy) in enumerate(energies.items()):
        zone = sys / "class/powercap" / f"intel-rapl:{number}"
        zone.mkdir(parents=True)
        for file, text in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", RANGE)):
            (zone / file).write_text(f"{text}\n")

    def put(name: str, energy: int) -> None:
        zone = f"intel-rapl:{list(energies).index(name)}"
        (sys / "class/powercap" / zone / "energy_uj").write_text(f"{energy}\n")

    return put


def battery(sys: Path, name: str = "BAT0", **files: object) -> Path:
    folder = sys / "class/power_supply" / name
    folder.mkdir(parents=True)
    for file, text in ({"type": "Battery", "status": "Discharging"} | files).items():
        (folder / file).write_text(f"{text}\n")
    return folder


def test_a_machine_that_meters_nothing_has_no_meter(tmp_path: Path) -> None:
    assert find_meter(tmp_path) is None
    battery(tmp_path, "AC", type="Mains")
    battery(tmp_path, "BAT1", status="Charging", power_now=9_000_000)
    battery(tmp_path, "BAT2")  # of which it is not told what it gives
    assert find_meter(tmp_path) is None


def test_the_packages_counters_are_summed_and_other_zones_are_not(tmp_path: Path) -> None:
    put = rapl(tmp_path, {"package-0": 10, "dram": 5, "package-1": 100})
    meter = find_meter(tmp_path)
    assert isinstance(meter, Rapl)
    assert meter.source == "RAPL package-0, package-1"

    def work() -> None:
        put("package-0", 2_000_010)
        put("dram", 77_000_000)
        put("package-1", 500_100)

    assert meter.joules(work) == pytest.approx(2.5)


def test_a_counter_that_went_round_is_no_negative_energy(tmp_path: Path) -> None:
    put = rapl(tmp_path, {"package-0": RANGE - 1_000_000})
    meter = find_meter(tmp_path)
    assert meter is not None
    assert meter.joules(lambda: put("package-0", 499_999)) == pytest.approx(1.5)


@pytest.mark.parametrize("missing", ["energy_uj", "max_energy_range_uj"])
def test_counters_that_cannot_be_read_leave_the_battery(tmp_path: Path, missing: str) -> None:
    """Most systems let only root read them."""
    rapl(tmp_path, {"package-0": 10})
    (tmp_path / "class/powercap/intel-rapl:0" / missing).unlink()
    battery(tmp_path, power_now=4_500_000)
    meter = find_meter(tmp_path)
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
def test_a_batterys_energy_is_its_power_over_the_time(tmp_path: Path, gauges: dict[str, int]) -> None:
    battery(tmp_path, **gauges)
    meter = find_meter(tmp_path)
    assert meter is not None
    assert 6 * 0.3 <= meter.joules(lambda: sleep(0.3)) < 6 * 3


def test_a_gauge_that_changes_counts_by_its_mean(tmp_path: Path) -> None:
    folder = battery(tmp_path, power_now=2_000_000)
    meter = Battery(folder)

    def work() -> None:
        (folder / "power_now").write_text("8000000\n")
        sleep(0.5)

    assert 2 * 0.5 < meter.joules(work) < 8 * 3


class Fixed:
    """A meter that says what it was told."""

    source = "test"

    def __init__(self, joules: float, least_s: float) -> None:
        self._joules, self.least_s = joules, least_s

    def joules(self, work: Callable[[], None]) -> float:
        work()
        return self._joules


def test_decoding_is_repeated_until_the_meter_sees_it() -> None:
    calls: list[int] = []

    def decode() -> int:
        calls.append(10)
        sleep(0.02)
        return 10

    found = measure_energy(Fixed(6.0, least_s=0.1), decode)
    assert len(calls) > 1
    assert found.tokens == sum(calls)
    assert found.joules_per_token == pytest.approx(6.0 / found.tokens)
    assert found.watts == pytest.approx(6.0 / found.seconds)
    assert measure_energy(Fixed(1.0, least_s=0), lambda: 5).tokens == 5
