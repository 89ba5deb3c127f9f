"""Bad input is refused in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from thirteen.errors import ThirteenError


@contextmanager
def refused(
    where: object, message: str, kind: type[ThirteenError] = ThirteenError
) -> Iterator[pytest.ExceptionInfo[ThirteenError]]:
    """The block raises an error of one line that begins with the place and has the message."""
    with pytest.raises(kind) as error:
        yield error
    line = str(error.value)
    assert line.startswith(str(where)) and message in line
    assert "\n" not in line and len(line) < len(str(where)) + 500
