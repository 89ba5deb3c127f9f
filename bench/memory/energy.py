"""The energy that some work takes, as far as the machine meters it: by the processor, or by a battery.

A meter counts all that the processor or the device does, not this process alone.
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
    """What decoding took.

    Attributes:
        source: what metered: "RAPL package-0", or "battery BAT0".
        joules_per_token: over all of `tokens`.
        watts: on average.
        tokens: that were decoded.
        seconds: that they took.
    """

    source: str
    joules_per_token: float
    watts: float
    tokens: int
    seconds: float


class EnergyMeter(Protocol):
    """Something that meters energy.

    Attributes:
        source: its name.
        least_s: how long work has to be for the meter to see it.
    """

    source: str
    least_s: float

    def joules(self, work: Callable[[], None]) -> float:
        """Do the work, and tell what it took."""


class Rapl:
    """The energy counters of processor packages: in microjoules, beginning again at their range."""

    least_s = 1.0

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = zones
        self._ranges = [_number(zone / "max_energy_range_uj") for zone in zones]
        self.source = f"RAPL {', '.join((zone / 'name').read_text().strip() for zone in zones)}"

    def joules(self, work: Callable[[], None]) -> float:
        """See Meter. A counter must not go round twice: its range is minutes, at least."""
        before = self._read()
        work()
        grown = zip(self._read(), before, self._ranges, strict=True)
        return sum((after - start) % (most + 1) for after, start, most in grown) / 1e6

    def _read(self) -> list[int]:
        return [_number(zone / "energy_uj") for zone in self._zones]


class Battery:
    """A discharging battery's power, sampled while the work is done."""

    least_s = 10.0  # their gauges are refreshed every second or few

    def __init__(self, supply: Path) -> None:
        self._supply = supply
        self.source = f"battery {supply.name}"
        self.watts()

    def joules(self, work: Callable[[], None]) -> float:
        """See Meter."""
        samples, over = [self.watts()], Event()

        def sample() -> None:
            while not over.wait(_SAMPLE_S):
                with suppress(OSError, ValueError):  # a gauge may be busy
                    samples.append(self.watts())

        sampler, began = Thread(target=sample), monotonic()
        sampler.start()
        try:
            work()
        finally:
            over.set()
            sampler.join()
        return sum(samples) / len(samples) * (monotonic() - began)

    def watts(self) -> float:
        """What is drawn now: from microwatts, or from microamperes and microvolts."""
        if (power := self._supply / "power_now").exists():
            return abs(_number(power)) / 1e6
        return abs(_number(self._supply / "current_now")) * _number(self._supply / "voltage_now") / 1e12


def find_meter(sys: Path = _SYS) -> EnergyMeter | None:
    """The best meter that there is and that may be read; None where there is none.

    Most systems let only root read the counters of a processor.
    """
    for make in (_rapl, _battery):
        with suppress(OSError, ValueError):
            if meter := make(sys):
                return meter
    return None


def measure_energy(meter: EnergyMeter, decode: Callable[[], int]) -> Energy:
    """Meter decoding, repeated until the meter sees it.

    Args:
        meter: what meters.
        decode: writes tokens, and returns how many.
    """
    tokens, began = 0, monotonic()

    def work() -> None:
        nonlocal tokens
        while not tokens or monotonic() - began < meter.least_s:
            tokens += decode()

    joules = meter.joules(work)
    seconds = monotonic() - began
    return Energy(meter.source, joules / tokens, joules / seconds, tokens, seconds)


def _rapl(sys: Path) -> Rapl | None:
    zones = sorted((sys / "class/powercap").glob("*rapl*:*"))
    packages = [zone for zone in zones if (zone / "name").read_text().startswith("package")]
    for zone in packages:
        _number(zone / "energy_uj")  # it may not be readable
    return Rapl(packages) if packages else None


def _battery(sys: Path) -> Battery | None:
    for supply in sorted((sys / "class/power_supply").glob("*")):
        states = [
            (supply / name).read_text().strip() for name in ("type", "status") if (supply / name).exists()
        ]
        if states == ["Battery", "Discharging"]:
            return Battery(supply)
    return None


def _number(file: Path) -> int:
    return int(file.read_text())
