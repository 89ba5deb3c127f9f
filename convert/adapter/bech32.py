"""Bech32m (BIP 173 and BIP 350): text with a checksum, for people to copy.

The code over the field of 32 elements detects every change of up to four characters in texts of up to 89, and
every change of up to two in texts of up to 1,023.
"""

from collections.abc import Iterable, Sequence

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"  # without 1, b, i and o, which are easily misread
CHECKSUM_SYMBOLS = 6
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32M = 0x2BC830A3  # BIP 350's constant, which also detects a q inserted or deleted before a final p


def bech32m_checksum(prefix: str, symbols: Sequence[int]) -> list[int]:
    """The six checksum symbols of `symbols`, each from 0 to 31, under an ASCII `prefix`."""
    checksum = _polymod([*_expand_prefix(prefix), *symbols, *[0] * CHECKSUM_SYMBOLS]) ^ _BECH32M
    return [checksum >> 5 * (CHECKSUM_SYMBOLS - 1 - i) & 31 for i in range(CHECKSUM_SYMBOLS)]


def verify_checksum(prefix: str, symbols: Sequence[int]) -> bool:
    """Whether symbols end in the checksum of those before it."""
    return _polymod([*_expand_prefix(prefix), *symbols]) == _BECH32M


def to_symbols(data: bytes) -> list[int]:
    """Bytes as symbols of five bits, the last one padded with zeros."""
    count = -(-len(data) * 8 // 5)
    bits = int.from_bytes(data) << (count * 5 - len(data) * 8)
    return [bits >> 5 * (count - 1 - i) & 31 for i in range(count)]


def to_bytes(symbols: Sequence[int]) -> bytes | None:
    """The bytes that to_symbols() encodes as `symbols`; None if there are none."""
    bits = 0
    for symbol in symbols:
        bits = bits << 5 | symbol
    length = len(symbols) * 5 // 8
    data = (bits >> (len(symbols) * 5 - length * 8)).to_bytes(length)
    return data if to_symbols(data) == list(symbols) else None


def _expand_prefix(prefix: str) -> list[int]:
    return [*(ord(character) >> 5 for character in prefix), 0, *(ord(character) & 31 for character in prefix)]


def _polymod(symbols: Iterable[int]) -> int:
    remainder = 1
    for symbol in symbols:
        top, remainder = remainder >> 25, (remainder & 0x1FFFFFF) << 5 ^ symbol
        for bit, generator in enumerate(_GENERATOR):
            remainder ^= generator * (top >> bit & 1)
    return remainder
