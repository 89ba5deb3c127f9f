"""A report of measurements as one HTML page, without scripts or network access."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError

from ..errors import FileError, RequestError
from ..files.json_file import from_json, parse_json, read_bounded
from ..stats.intervals import RATIO_LEVEL, Interval
from .accuracy.accuracy import AccuracyReport
from .fidelity.fidelity import FidelityReport
from .latency import LatencyReport

Report: TypeAlias = LatencyReport | AccuracyReport | FidelityReport

_HOME = str(Path.home())
_BYTES_MAX = 1 << 26  # of a file; typical ones have a few hundred thousand
# Types of reports by a key that only they have.
_TYPES: Mapping[str, type[Report]] = {
    "first_token": LatencyReport,
    "adapted": AccuracyReport,
    "shipped": FidelityReport,
}


def read_reports(path: Path) -> list[Report]:
    """Read what a `bench` command printed with --json: one measurement, or several by name.

    Raises:
        FileError: the file cannot be read, or does not hold measurements.
    """
    value = parse_json(read_bounded(path, _BYTES_MAX), str(path))
    objects = [value, *value.values()] if isinstance(value, dict) else []
    reports = [
        from_json(type_, one, str(path))
        for one in objects
        if isinstance(one, dict)
        for key, type_ in _TYPES.items()
        if key in one and "verdict" in one
    ]
    if not reports:
        raise FileError(f"{path}: not what bench latency, accuracy or fidelity prints with --json")
    return reports


def render_page(reports: Sequence[Report]) -> str:
    """Render reports as HTML; texts in them are escaped.

    Raises:
        RequestError: a number is one that no measurement can have had.
    """
    environment = Environment(
        loader=PackageLoader("thirteen", "bench"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_without_home,
    )
    environment.globals |= {"Interval": Interval, "ratio_level": RATIO_LEVEL}
    try:
        sections = [(type(report).__name__, report, report.table()) for report in reports]
        return environment.get_template("report.html.jinja").render(sections=sections)
    except (ArithmeticError, IndexError, ValueError, UndefinedError) as error:
        raise RequestError(f"bench report: a number cannot be that of a measurement: {error}") from None


def _without_home(value: object) -> object:
    return value.replace(_HOME, "~") if type(value) is str and len(_HOME) > 1 else value
