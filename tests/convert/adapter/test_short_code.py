"""Short codes are exact and at most 80 characters long; damaged ones are refused."""

import random
import string

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from thirteen.convert.adapter.basis import NAME_MAX, NUMBERS_MAX
from thirteen.convert.adapter.short_code import (
    CHARSET,
    ShortCode,
    basis_fingerprint,
    bech32m_checksum,
    decode_short_code,
    encode_short_code,
    looks_like_code,
    round_to_bfloat16,
    to_symbols,
    verify_checksum,
)
from thirteen.errors import FileError

FINGERPRINT = basis_fingerprint("9f" * 32)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,19}", fullmatch=True)
NUMBERS = arrays.arrays(np.float32, 13, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
V = np.random.default_rng(1).normal(0, 0.05, 13).astype(np.float32)
CODE = encode_short_code(ShortCode("smollm2-135m", FINGERPRINT, V))


def test_the_checksum_matches_bip_350():
    """The examples of BIP 350: a different code would have no proven minimum distance."""
    for text in (
        "a1lqfn3a",
        "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
        "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    ):
        prefix, _, data = text.rpartition("1")
        symbols = [CHARSET.index(character) for character in data]
        assert verify_checksum(prefix, symbols)
        assert bech32m_checksum(prefix, symbols[:-6]) == symbols[-6:]


@given(NAMES, NUMBERS)
@example("a", np.array([np.inf], np.float32))
def test_a_code_is_exact_in_bfloat16_and_at_most_80_characters(name, numbers):
    rounded = round_to_bfloat16(numbers)
    if not np.isfinite(rounded).all():  # the largest float32 are beyond bfloat16
        with pytest.raises(FileError, match="not finite"):
            encode_short_code(ShortCode(name, FINGERPRINT, numbers))
        return
    text = encode_short_code(ShortCode(name, FINGERPRINT, numbers))
    read = decode_short_code(text)
    assert (read.name, read.fingerprint) == (name, FINGERPRINT)
    assert read.numbers.tobytes() == rounded.tobytes()
    assert len(text) <= 80
    assert decode_short_code(text.upper()).numbers.tobytes() == rounded.tobytes()


def test_the_longest_code_can_be_decoded():
    """A code of more than some 3,200 numbers was said to be damaged."""
    numbers = np.random.default_rng(2).normal(0, 0.05, NUMBERS_MAX).astype(np.float32)
    text = encode_short_code(ShortCode("a" * NAME_MAX, FINGERPRINT, numbers))
    assert decode_short_code(text).numbers.tobytes() == round_to_bfloat16(numbers).tobytes()


def test_changed_swapped_lost_and_doubled_characters_are_detected():
    """1,000 random changes of one character, in the name and the colons too."""
    rng, start = random.Random(13), CODE.rindex(":") + 1
    damaged = []
    for _ in range(1_000):
        place = rng.randrange(len(CODE))
        damaged.append(CODE[:place] + rng.choice(string.printable) + CODE[place + 1 :])
    for place in range(start, len(CODE) - 1):
        before, first, second, after = CODE[:place], CODE[place], CODE[place + 1], CODE[place + 2 :]
        damaged += (before + text + after for text in (second + first, second, first * 2 + second))
    for code in damaged:
        if code.strip() != CODE:
            with pytest.raises(FileError):
                decode_short_code(code)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("t13:name", "is not a code"),
        ("t13:name:qqqqqqq", "checksum"),
        ("t13:name:bbbbbbb", "is not a code: .* with qpzry9x8gf2tvdw0s3jn54khce6mua7l after the name"),
        ("T13:name:qqqqqqq", "all in lower or all in upper case"),
        ("t13:name:" + "q" * 30_000, "q…' is not a code"),
    ],
)
def test_an_invalid_code_is_refused(text, says):
    assert looks_like_code(text)
    with pytest.raises(FileError, match=says):
        decode_short_code(text)


@pytest.mark.parametrize(("format_", "numbers"), [(7, [1.0, 2.0]), (0, [1.0, np.nan])])
def test_another_format_and_numbers_that_are_not_finite_are_refused(format_, numbers):
    """The checksum matches."""
    raw, prefix = np.array(numbers, "<f4").view("<u2")[1::2].tobytes(), "t13:a"
    symbols = [format_, *map(CHARSET.index, FINGERPRINT), *to_symbols(raw)]
    text = "".join(CHARSET[symbol] for symbol in [*symbols, *bech32m_checksum(prefix, symbols)])
    with pytest.raises(FileError, match="this version"):
        decode_short_code(f"{prefix}:{text}")
