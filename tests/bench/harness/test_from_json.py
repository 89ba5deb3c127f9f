"""Reports out of their JSON, and what is no such JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import pytest
from thirteen.bench.harness.from_json import from_json, read_report
from thirteen.errors import RequestError

T = TypeVar("T")


@dataclass(frozen=True)
class Pair(Generic[T]):
    one: T
    other: T | None = None


@dataclass(frozen=True)
class Inner:
    count: int
    part: float


@dataclass(frozen=True)
class Whole:
    name: str
    kind: Literal["a", "b"]
    sure: bool
    several: tuple[Inner, ...]
    two: tuple[int, str]
    by_name: Mapping[str, int]
    pair: Pair[Inner]
    maybe: float | None


WHOLE = Whole("x", "b", True, (Inner(1, 0.5), Inner(2, 3)), (7, "y"), {"z": 1}, Pair(Inner(3, 1.5)), None)


def test_what_asdict_made_is_the_same_again_by_way_of_json():
    assert from_json(Whole, json.loads(json.dumps(asdict(WHOLE))), "whole") == WHOLE


def test_fields_of_a_later_version_are_passed_over():
    assert from_json(Inner, {"count": 1, "part": 2.0, "new": []}, "inner") == Inner(1, 2.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 3}, "name: is 3, not a text"),
        ({"kind": "c"}, "kind: is 'c', not one of a, b"),
        ({"kind": []}, r"kind: is \[\], not one of"),
        ({"sure": 1}, "sure: is 1, not true or false"),
        ({"several": {}}, r"several: is \{\}, not a list"),
        ({"several": [{"count": 1, "part": None}]}, r"several\[0\]: part: is None, not a number"),
        ({"several": [{"count": True, "part": 1}]}, "count: is True, not a whole number"),
        ({"several": [{"part": 1}]}, r"several\[0\]: 'count' is missing"),
        ({"two": [1]}, r"two: is \[1\], not a list of 2"),
        ({"by_name": [1]}, "by_name: is"),
        ({"by_name": {"z": "1"}}, "by_name: z: is '1', not a whole number"),
        ({"pair": {"one": 1, "other": None}}, "pair: one: is 1, not an object"),
        ({"maybe": "x" * 1000}, "maybe: is 'x"),
    ],
)
def test_what_is_of_another_kind_is_named_by_its_place(change, said):
    with pytest.raises(RequestError, match=f"^file: .*{said}|^file: {said}") as raised:
        from_json(Whole, asdict(WHOLE) | change, "file")
    assert len(str(raised.value)) < 200 and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"null", "is None, not an object"),
        (b"[1]", "not an object"),
        (b"{}", "'count' is missing"),
    ],
)
def test_a_file_that_is_no_report_is_one_clear_line(tmp_path: Path, content, said):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=rf"report\.json: .*{said}"):
        read_report(path, Inner)


def test_a_file_that_is_not_there_or_endless_is_too(tmp_path: Path):
    with pytest.raises(RequestError, match="No such file"):
        read_report(tmp_path / "absent.json", Inner)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate((1 << 26) + 1)
    with pytest.raises(RequestError, match="more than 67,108,864 bytes"):
        read_report(tmp_path / "large.json", Inner)
