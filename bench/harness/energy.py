"""Energy per decoded token, from the processor's energy counters (RAPL) or a discharging battery.

A meter counts everything that the processor or the device does, not this process alone.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Protocol

_SYS = Path("/sys")
_SAMPLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of decoding.

    Attributes:
        source: the meter, for example "RAPL package-0" or "battery BAT0".
        joules_per_token: mean over `tokens`.
        watts: mean power.
        tokens: decoded tokens.
        seconds: wall time of decoding.
    """

    source: str
    joules_per_token: float
    watts: float
    tokens: int
    seconds: float


class EnergyMeter(Protocol):
    """An energy meter.

    Attributes:
        source: name of the meter.
        min_duration_s: shortest work that the meter resolves.
    """

    source: str
    min_duration_s: float

    def joules(self, work: Callable[[], None]) -> float | None:
        """Run `work` and return the energy used meanwhile; None if the meter could not tell."""


class Rapl:
    """Energy counters of the processor packages: microjoules, which wrap at the counter's range."""

    min_duration_s = 1.0

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = zones
        self._ranges = [_read_int(zone / "max_energy_range_uj") for zone in zones]
        self.source = f"RAPL {', '.join((zone / 'name').read_text().strip() for zone in zones)}"

    def joules(self, work: Callable[[], None]) -> float:
        """Run `work` and return its energy. A counter may wrap once; its range lasts at least minutes."""
        before = self._counters()
        work()
        counters = zip(self._counters(), before, self._ranges, strict=True)
        return sum((end - start) % (largest + 1) for end, start, largest in counters) / 1e6

    def _counters(self) -> list[int]:
        return [_read_int(zone / "energy_uj") for zone in self._zones]


class Battery:
    """Power drawn from a discharging battery, sampled while the work runs."""

    min_duration_s = 10.0  # battery gauges update every second or every few seconds

    def __init__(self, supply: Path) -> None:
        self._supply = supply
        self.source = f"battery {supply.name}"
        self.watts()

    def joules(self, work: Callable[[], None]) -> float | None:
        """Run `work` and return mean power times duration; None unless the battery discharged throughout."""
        samples, finished = list[float | None](), Event()

        def sample() -> None:
            with suppress(OSError, ValueError):  # a gauge can be busy
                samples.append(self.watts())

        def sample_until_finished() -> None:
            while not finished.wait(_SAMPLE_S):
                sample()

        sample()
        sampler, start = Thread(target=sample_until_finished), monotonic()
        sampler.start()
        try:
            work()
        finally:
            finished.set()
            sampler.join()
        duration_s = monotonic() - start
        discharging = [watts for watts in samples if watts is not None]
        if not discharging or len(discharging) < len(samples):
            return None
        return sum(discharging) / len(discharging) * duration_s

    def watts(self) -> float | None:
        """Current power, from microwatts or from microamperes and microvolts; None unless it discharges."""
        if not _discharges(self._supply):
            return None  # then it is the charger's power, or none
        if (power := self._supply / "power_now").exists():
            return abs(_read_int(power)) / 1e6
        return abs(_read_int(self._supply / "current_now")) * _read_int(self._supply / "voltage_now") / 1e12


def find_energy_meter(sys: Path = _SYS) -> EnergyMeter | None:
    """Find a readable meter: RAPL first, then a discharging battery; None without either.

    Most systems let only root read the RAPL counters.
    """
    for find in (_find_rapl, _find_battery):
        with suppress(OSError, ValueError):
            if meter := find(sys):
                return meter
    return None


def measure_energy(meter: EnergyMeter, decode: Callable[[], int]) -> Energy | None:
    """Meter decoding, repeated until it lasts as long as the meter needs; None if the meter could not tell.

    Args:
        meter: the meter.
        decode: decodes some tokens and returns their number.
    """
    tokens, start = 0, monotonic()

    def work() -> None:
        nonlocal tokens
        while not tokens or monotonic() - start < meter.min_duration_s:
            tokens += decode()

    joules = meter.joules(work)
    seconds = monotonic() - start
    if joules is None:
        return None
    return Energy(meter.source, joules / tokens, joules / seconds, tokens, seconds)


def _find_rapl(sys: Path) -> Rapl | None:
    zones = sorted((sys / "class/powercap").glob("*rapl*:*"))
    packages = [zone for zone in zones if (zone / "name").read_text().startswith("package")]
    for zone in packages:
        _read_int(zone / "energy_uj")  # raises where only root may read it
    return Rapl(packages) if packages else None


def _find_battery(sys: Path) -> Battery | None:
    for supply in sorted((sys / "class/power_supply").glob("*")):
        type_ = supply / "type"
        if type_.exists() and type_.read_text().strip() == "Battery" and _discharges(supply):
            return Battery(supply)
    return None


def _discharges(supply: Path) -> bool:
    status = supply / "status"
    return status.exists() and status.read_text().strip() == "Discharging"


def _read_int(file: Path) -> int:
    return int(file.read_text())
