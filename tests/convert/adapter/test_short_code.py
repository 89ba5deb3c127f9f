"""Short codes: exact, at most 80 characters, and no damaged one is ever read."""

import random
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from thirteen.convert.adapter.bech32 import ALPHABET, bech32m_checksum, checksum_holds, to_bytes, to_symbols
from thirteen.convert.adapter.short_code import (
    ShortCode,
    as_bfloat16,
    base_mark,
    decode_short_code,
    encode_short_code,
    looks_like_code,
)
from thirteen.errors import AdapterError

MARK = base_mark("9f" * 32)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,19}", fullmatch=True)
NUMBERS = arrays.arrays(np.float32, 13, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
V = np.random.default_rng(1).normal(0, 0.05, 13).astype(np.float32)
CODES = [encode_short_code(ShortCode("smollm2-135m", MARK, V, exact)) for exact in (False, True)]


def test_the_checksum_is_that_of_bip_350():
    """Its published examples: an own variant of it would have no proven distance."""
    for text in (
        "a1lqfn3a",
        "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
        "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    ):
        label, _, rest = text.rpartition("1")
        symbols = [ALPHABET.index(one) for one in rest]
        assert checksum_holds(label, symbols)
        assert bech32m_checksum(label, symbols[:-6]) == symbols[-6:]


@given(st.binary(max_size=60))
def test_bytes_go_into_symbols_and_back(data):
    assert to_bytes(to_symbols(data)) == data


@given(NAMES, NUMBERS)
def test_a_code_is_exact_in_bfloat16_and_fits_a_message(name, numbers):
    kept = as_bfloat16(numbers)
    if not np.isfinite(kept).all():  # the largest float32 are beyond bfloat16
        return
    text = encode_short_code(ShortCode(name, MARK, numbers))
    read = decode_short_code(text)
    assert (read.name, read.mark, read.exact) == (name, MARK, False)
    assert read.numbers.tobytes() == kept.tobytes()
    assert len(text) <= 80
    assert decode_short_code(text.upper()).numbers.tobytes() == kept.tobytes()


@given(NUMBERS)
def test_a_code_is_exact_in_float32_if_asked(numbers):
    read = decode_short_code(encode_short_code(ShortCode("a", MARK, numbers, exact=True)))
    assert read.exact and read.numbers.tobytes() == numbers.tobytes()


@given(NUMBERS)
@settings(max_examples=30)
def test_rounding_is_torchs(numbers):
    import torch

    expected = torch.from_numpy(numbers.copy()).bfloat16().float().numpy()
    assert as_bfloat16(numbers).tobytes() == expected.tobytes()


@pytest.mark.parametrize("code", CODES, ids=["bfloat16", "float32"])
def test_no_changed_character_goes_unnoticed(code):
    """10,000 random changes of one character anywhere, the name and the colons included."""
    rng = random.Random(13)
    for _ in range(10_000):
        place = rng.randrange(len(code))
        other = rng.choice([one for one in string.printable if one != code[place]])
        changed = code[:place] + other + code[place + 1 :]
        if changed.strip() == code:
            continue
        with pytest.raises(AdapterError):
            decode_short_code(changed)


@pytest.mark.parametrize("code", CODES, ids=["bfloat16", "float32"])
def test_swapped_lost_and_doubled_characters_are_noticed(code):
    start = code.rindex(":") + 1
    for place in range(start, len(code) - 1):
        if code[place] != code[place + 1]:
            with pytest.raises(AdapterError):
                decode_short_code(code[:place] + code[place + 1] + code[place] + code[place + 2 :])
        for wrong in (code[:place] + code[place + 1 :], code[:place] + code[place] + code[place:]):
            with pytest.raises(AdapterError):
                decode_short_code(wrong)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("t13:", "is no code"),
        ("t13:name", "is no code"),
        ("t13:name:", "checksum"),
        ("t13:a b:qqqqqqqqqqqqqqqqqq", "is no code"),
        ("t13:name:bbbbbbb", "no code has the character 'b'"),
        ("T13:name:qqqqqqq", "all lower or all upper"),
        ("t13:name:" + "q" * 10_000, "damaged"),
        ("t13:näme:qqqqqqq", "ASCII"),
    ],
)
def test_what_is_no_code_is_refused(text, says):
    assert looks_like_code(text)
    with pytest.raises(AdapterError, match=says):
        decode_short_code(text)


def test_a_kind_of_a_later_version_is_refused():
    symbols = [7, *map(ALPHABET.index, MARK), *to_symbols(bytes(26))]
    label = "t13:a"
    text = "".join(ALPHABET[one] for one in [*symbols, *bech32m_checksum(label, symbols)])
    with pytest.raises(AdapterError, match="this version"):
        decode_short_code(f"{label}:{text}")


@pytest.mark.parametrize("name", ["", "a" * 21, "A", "a:b", "-a"])
def test_a_name_that_no_code_takes_is_refused(name):
    with pytest.raises(AdapterError, match="a code takes"):
        encode_short_code(ShortCode(name, MARK, V))


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(AdapterError, match="not finite"):
        encode_short_code(ShortCode("a", MARK, np.array([np.inf], np.float32)))
