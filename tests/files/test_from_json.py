"""Reports restored from JSON, and errors for malformed JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Generic, Literal, TypeVar

import pytest
from thirteen.errors import FileError, RequestError
from thirteen.files.json_file import from_json

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
class ExampleReport:
    name: str
    kind: Literal["a", "b"]
    sure: bool
    several: tuple[Inner, ...]
    two: tuple[int, str]
    by_name: Mapping[str, int]
    pair: Pair[Inner]
    maybe: float | None


EXAMPLE = ExampleReport(
    "x", "b", True, (Inner(1, 0.5), Inner(2, 3)), (7, "y"), {"z": 1}, Pair(Inner(3, 1.5)), None
)


def test_round_trip_through_json_restores_the_dataclass():
    assert from_json(ExampleReport, json.loads(json.dumps(asdict(EXAMPLE))), "example") == EXAMPLE


@dataclass(frozen=True)
class Positive:
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise RequestError(f"bench: count must be at least 1, not {self.count}")


def test_a_value_that_the_dataclass_refuses_is_named_by_its_place():
    with pytest.raises(FileError, match=r"^file: bench: count must be at least 1, not 0$"):
        from_json(Positive, {"count": 0}, "file")


def test_unknown_fields_are_ignored_and_missing_ones_have_their_defaults():
    assert from_json(Inner, {"count": 1, "part": 2.0, "new": []}, "inner") == Inner(1, 2.0)
    assert from_json(Pair[Inner], {"one": {"count": 1, "part": 2.0}}, "pair") == Pair(Inner(1, 2.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name: 3 should be a valid string"),
        ({"kind": "c"}, "kind: 'c' should be 'a' or 'b'"),
        ({"several": [{"part": 1}]}, r"several\[0\]: count is missing"),
        ({"by_name": {"z": "1"}}, "by_name: z: '1' should be a valid integer"),
        ({"maybe": "x" * 1000}, "maybe: 'xx"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_by_its_path(change, message):
    with pytest.raises(FileError, match=f"^file: .*{message}|^file: {message}") as raised:
        from_json(ExampleReport, asdict(EXAMPLE) | change, "file")
    assert len(str(raised.value)) < 200 and "\n" not in str(raised.value)
