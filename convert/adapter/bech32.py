"""Checksummed text for people to pass on: Bech32m (BIP 173 and 350), the checksum without the money.

Its code over the field of 32 elements catches every change of up to four characters in texts of up to 89, and
every change of up to two in those of up to 1,023.
"""

from collections.abc import Iterable, Sequence

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"  # without 1, b, i and o, which are read as others
CHECKSUM = 6  # symbols
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_FINAL = 0x2BC830A3  # BIP 350's, which also catches a q put in or left out before a final p


def bech32m_checksum(label: str, symbols: Sequence[int]) -> list[int]:
    """The six symbols that close a text of `symbols`, each from 0 to 31, under an ASCII `label`."""
    left = _remainder([*_spread(label), *symbols, *[0] * CHECKSUM]) ^ _FINAL
    return [left >> 5 * (CHECKSUM - 1 - place) & 31 for place in range(CHECKSUM)]


def checksum_holds(label: str, symbols: Sequence[int]) -> bool:
    """Whether symbols end in the checksum of what is before them."""
    return _remainder([*_spread(label), *symbols]) == _FINAL


def _spread(label: str) -> list[int]:
    return [*(ord(one) >> 5 for one in label), 0, *(ord(one) & 31 for one in label)]


def _remainder(symbols: Iterable[int]) -> int:
    left = 1
    for symbol in symbols:
        top, left = left >> 25, (left & 0x1FFFFFF) << 5 ^ symbol
        for bit, generator in enumerate(_GENERATOR):
            left ^= generator * (top >> bit & 1)
    return left


def to_symbols(data: bytes) -> list[int]:
    """Bytes as symbols of five bits, the last one filled up with zeros."""
    count = -(-len(data) * 8 // 5)
    whole = int.from_bytes(data) << (count * 5 - len(data) * 8)
    return [whole >> 5 * (count - 1 - place) & 31 for place in range(count)]


def to_bytes(symbols: Sequence[int]) -> bytes | None:
    """The bytes that to_symbols() made into symbols; None where it would have made others."""
    whole = 0
    for symbol in symbols:
        whole = whole << 5 | symbol
    length = len(symbols) * 5 // 8
    data = (whole >> (len(symbols) * 5 - length * 8)).to_bytes(length)
    return data if to_symbols(data) == list(symbols) else None
