"""The limits that inputs are held to: what must be a finding is one."""

from pathlib import Path
from time import process_time

import pytest
from thirteen.errors import RequestError

from .target import Target, refused, run, run_traced, scratch_file, scratch_folder


@pytest.mark.parametrize("accepted", [True, False])
def test_the_outcome_is_that_of_the_check(accepted: bool) -> None:
    assert run(Target(lambda data: accepted), b"a") is accepted


def test_an_error_of_another_type_is_a_finding() -> None:
    with pytest.raises(KeyError):
        run(Target(lambda data: {}[data]), b"a")


def test_a_second_of_processor_time_is_a_finding() -> None:
    def slow(data: bytes) -> bool:
        end = process_time() + 1.1
        while process_time() < end:
            pass
        return True

    with pytest.raises(AssertionError, match=r"1 bytes took \d+\.\d s"):
        run(Target(slow), b"a")


def test_memory_that_is_freed_again_is_a_finding() -> None:
    with pytest.raises(AssertionError, match="1 bytes took 17"):
        run_traced(Target(lambda data: not bytes(17_000_000)), b"a")
    run_traced(Target(lambda data: not bytes(17_000_000)), b"a" * 60_000)


@pytest.mark.parametrize("message", ["", "two\nlines", "a\x1b[31m red line", "a" * 1001])
def test_a_refusal_that_is_no_plain_line_is_a_finding(message: str) -> None:
    with pytest.raises(AssertionError):
        refused(RequestError(message))
    assert refused(RequestError("n must be 1, not 'é'")) is False


def test_a_file_replaces_the_one_before() -> None:
    path = scratch_file("a", b"long")
    assert scratch_file("a", b"b") == path and path.read_bytes() == b"b"
    assert scratch_folder("b") == Path(path.parent, "b") == scratch_folder("b")
