"""Access to the server: API keys, what each may do, and the size of a header."""

from pathlib import Path

import pytest
from thirteen.errors import FileError
from thirteen.server.access.access_middleware import check_access
from thirteen.server.access.api_keys import ApiKeys
from thirteen.server.access.request_limits import HEADER_BYTES_MAX
from thirteen.server.http_errors import HttpError

ONE, TWO = (f"{name}-of-more-than-twenty-characters" for name in ("one", "two"))


def refusal(path: str, keys: ApiKeys, key: str) -> int | None:
    """The status with which a request is refused; None if it is not."""
    try:
        check_access({"path": path, "headers": [(b"authorization", f"Bearer {key}".encode())]}, keys, None)
    except HttpError as error:
        return error.status
    return None


@pytest.mark.parametrize(
    ("path", "statuses"), [("/metrics", [403, None, 401]), ("/v1/models", [None, 401, 401])]
)
def test_only_a_key_of_its_own_reads_the_metrics(
    path: str, statuses: list[int | None], tmp_path: Path
) -> None:
    """One client's key told it the tokens, cache hits and times of the others."""
    (tmp_path / "keys").write_text(f"{ONE}\nmetrics: {TWO}\n")
    keys = ApiKeys.from_file(tmp_path / "keys")
    assert [refusal(path, keys, key) for key in (ONE, TWO, "three")] == statuses


@pytest.mark.parametrize(
    ("text", "message"),
    [(f"{ONE}\nmetrics: \n", "line 2: a key of 0 char.*"), (f"#\nmetrics: {TWO}", ": contains no key")],
)
def test_a_file_that_lacks_a_key_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """An empty key for the metrics let in everyone who sent one."""
    (tmp_path / "keys").write_text(text)
    with pytest.raises(FileError, match=f"keys:? ?{message}$"):
        ApiKeys.from_file(tmp_path / "keys")


def test_a_header_above_the_limit_is_refused() -> None:
    """The HTTP parser bounds only a header that arrives in several pieces."""
    scope = {"path": "/", "headers": [(b"x", b"a" * HEADER_BYTES_MAX)]}
    with pytest.raises(HttpError, match=f"at most {HEADER_BYTES_MAX}") as refused:
        check_access(scope, None, None)
    assert refused.value.status == 431


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    """Other line ends of Unicode made two short keys of a long one."""
    odd = "o\u2028n\x0be\x1cs\x85" * 3
    (tmp_path / "keys").write_bytes(f"{odd}\r\n{TWO}\n".encode())
    keys = ApiKeys.from_file(tmp_path / "keys")
    assert [refusal("/v1/models", keys, key) for key in (odd, TWO, "o", "n", "e", "s")] == [None, None] + [
        401
    ] * 4
