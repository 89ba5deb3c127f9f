"""Short codes of adapters, as they are and with a checksum that matches."""

import numpy as np
from thirteen.convert.adapter.short_code import (
    CHARSET,
    CHECKSUM_SYMBOLS,
    bech32m_checksum,
    decode_short_code,
    encode_short_code,
)

from ..target import Target, accepts


def check(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    accepted = [accepts(_decode, text), accepts(_decode, _with_checksum(text))]
    return any(accepted)


def _decode(text: str) -> None:
    code = decode_short_code(text)
    assert code.numbers.size and np.isfinite(code.numbers).all()
    assert encode_short_code(code) == text.strip().lower(), "a code has one spelling"


def _with_checksum(text: str) -> str:
    prefix, colon, body = text.lower().rpartition(":")
    symbols = [CHARSET.index(character) for character in body if character in CHARSET][:-CHECKSUM_SYMBOLS]
    if not prefix.isascii():
        return text
    return prefix + colon + "".join(CHARSET[n] for n in (*symbols, *bech32m_checksum(prefix, symbols)))


TARGET = Target(check, max_bytes=512, words=("t13:", "T13:", "smollm2-135m"))
