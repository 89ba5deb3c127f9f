"""File sizes are parsed, and anything else is refused with a usage hint."""

import pytest
from thirteen.convert.fit_size import parse_file_size
from thirteen.errors import OptionError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("600MB", 600_000_000),
        ("572MiB", 572 << 20),
        ("0.6GB", 600_000_000),
        ("600 mb", 600_000_000),
        ("3.9bpw", 3_900_000),
    ],
)
def test_a_size_is_bytes_or_bits_per_weight(text, expected):
    assert parse_file_size(text).file_bytes(8_000_000) == expected


@pytest.mark.parametrize(
    "text", ["600", "-1MB", "", "MB", "0MB", "nanMB", "infMB", "1e3MB", "33bpw", "6OOMB", "9" * 308 + "GB"]
)
def test_an_invalid_size_is_refused(text):
    with pytest.raises(OptionError, match=r"size '.*': "):
        parse_file_size(text)
