"""Numbers that no measurement can have had are refused where they are read, with their place."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from thirteen.bench.memory.size import run_size
from thirteen.bench.report.collect import ReportInputs, ReportRequest, collect_measurements
from thirteen.bench.report.report import write_report
from thirteen.errors import RequestError

Rows = dict[str, Any]


def collect(tmp_path: Path, rows: Rows) -> Any:
    path = tmp_path / "size.json"
    path.write_text(json.dumps(rows))
    return collect_measurements(ReportInputs(size=path), ReportRequest())


def test_a_size_report_is_drawn(tiny: Path, tmp_path: Path) -> None:
    data = collect(tmp_path, asdict(run_size(tiny)))
    assert write_report(data, tmp_path / "report").exists()


def of_first_group(**changes: Any) -> Callable[[Rows], None]:
    return lambda rows: rows["groups"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.update(groups=[]), "groups is empty"),
        (lambda rows: rows.update(types={}), "types is empty"),
        (lambda rows: rows.update(weights=0), "weights cannot be 0"),
        (lambda rows: rows.update(file_bytes=-1), "file_bytes cannot be -1"),
        (of_first_group(types={}), r"groups\[0\]: types is empty"),
        (of_first_group(weights=0), r"groups\[0\]: weights cannot be 0"),
        (of_first_group(nbytes=10**400), r"groups\[0\]: nbytes cannot be 10{58}…"),
    ],
)
def test_an_impossible_number_is_refused_with_its_place(
    change: Callable[[Rows], None], message: str, tiny: Path, tmp_path: Path
) -> None:
    """Each ended in a traceback: a division by zero, or an axis without limits."""
    rows = json.loads(json.dumps(asdict(run_size(tiny))))
    change(rows)
    with pytest.raises(RequestError, match=rf"size\.json: {message}$"):
        collect(tmp_path, rows)
