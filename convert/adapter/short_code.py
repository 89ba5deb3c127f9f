"""Short codes: a TinyLoRA's trained vector as text to paste, send or print, `t13:smollm2-135m:…`.

After the base's name follow, in Bech32's alphabet: a zero for bfloat16, 30 bits of the basis' hash, the
numbers, and a checksum of everything before it. That is Bech32m's (BIP 173 and BIP 350), which detects every
change of up to four characters in texts of up to 89, and of up to two in texts of up to 1,023.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from ...errors import FileError
from ...stats import Floats
from .basis import NAME_MAX, NUMBERS_MAX

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"  # without 1, b, i and o, which are easily misread
CHECKSUM_SYMBOLS = 6
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32M = 0x2BC830A3  # BIP 350's constant, which also detects a q inserted or deleted before a final p
PREFIX = "t13:"
_BF16 = GGMLQuantizationType.BF16
_FINGERPRINT_SYMBOLS = 6
# At most NUMBERS_MAX numbers in bfloat16, at five bits a character: the time to decode a code grows with the
# square of its length.
_BODY_MAX = 1 + _FINGERPRINT_SYMBOLS + ceil(NUMBERS_MAX * 16 / 5) + CHECKSUM_SYMBOLS
_CODE = re.compile(
    rf"{PREFIX}(?P<name>[a-z0-9][a-z0-9.-]{{0,{NAME_MAX - 1}}}):(?P<body>[{CHARSET}]{{1,{_BODY_MAX}}})"
)


@dataclass(frozen=True)
class ShortCode:
    """The content of a code."""

    name: str  # of the base
    fingerprint: str  # start of the basis' hash, from basis_fingerprint()
    numbers: Floats  # the trained vector, (u,)


def looks_like_code(text: str) -> bool:
    """Whether a text starts like a code, valid or not."""
    return text[: len(PREFIX)].lower() == PREFIX


def basis_fingerprint(basis_id: str) -> str:
    """The first 30 bits of a basis' hash, given in hexadecimal, as six symbols."""
    return _encode(_symbols(int(basis_id[:8], 16) >> 2, _FINGERPRINT_SYMBOLS))


def round_to_bfloat16(numbers: Floats) -> Floats:
    """The nearest bfloat16 numbers, ties to even, as float32."""
    rounded: Floats = dequantize(quantize(numbers, _BF16), _BF16)
    return rounded


def encode_short_code(code: ShortCode) -> str:
    """Encode a code, with its numbers rounded to bfloat16. FileError if one is not finite."""
    numbers = round_to_bfloat16(code.numbers)
    if not np.isfinite(numbers).all():
        raise FileError(f"a code for {code.name}: a number is not finite")
    raw = quantize(numbers, _BF16).tobytes()
    symbols = [0, *map(CHARSET.index, code.fingerprint), *to_symbols(raw)]
    prefix = PREFIX + code.name
    return f"{prefix}:{_encode([*symbols, *bech32m_checksum(prefix, symbols)])}"


def decode_short_code(text: str) -> ShortCode:
    """Decode a code in lower or in upper case; FileError if it is none, or damaged."""
    text = text.strip()
    shown = text if len(text) <= 100 else f"{text[:100]}…"
    code = _CODE.fullmatch(text.lower()) if text in (text.lower(), text.upper()) else None
    if code is None:
        raise FileError(
            f"{shown!r} is not a code: thirteen adapter NAME --code writes one as {PREFIX}NAME:… with "
            f"{CHARSET} after the name, all in lower or all in upper case"
        )
    symbols = [CHARSET.index(character) for character in code["body"]]
    if not verify_checksum(PREFIX + code["name"], symbols):
        raise FileError(f"the code {shown!r} is damaged: its checksum does not match")
    raw = to_bytes(symbols[1 + _FINGERPRINT_SYMBOLS : -CHECKSUM_SYMBOLS])
    numbers = None
    if symbols[0] == 0 and raw and not len(raw) % 2:
        numbers = dequantize(np.frombuffer(raw, np.uint8), _BF16)
    if numbers is None or not np.isfinite(numbers).all():
        raise FileError(f"the code {shown!r} has numbers in a format that this version does not support")
    fingerprint = code["body"][1 : 1 + _FINGERPRINT_SYMBOLS]
    return ShortCode(code["name"], fingerprint, numbers)


def _encode(symbols: list[int]) -> str:
    return "".join(CHARSET[symbol] for symbol in symbols)


def bech32m_checksum(prefix: str, symbols: Sequence[int]) -> list[int]:
    """The six checksum symbols of `symbols`, each from 0 to 31, under an ASCII `prefix`."""
    checksum = _polymod(prefix, [*symbols, *[0] * CHECKSUM_SYMBOLS]) ^ _BECH32M
    return _symbols(checksum, CHECKSUM_SYMBOLS)


def verify_checksum(prefix: str, symbols: Sequence[int]) -> bool:
    """Whether symbols end in the checksum of those before it."""
    return _polymod(prefix, symbols) == _BECH32M


def to_symbols(data: bytes) -> list[int]:
    """Bytes as symbols of five bits, the last one padded with zeros."""
    count = -(-len(data) * 8 // 5)
    return _symbols(int.from_bytes(data) << (count * 5 - len(data) * 8), count)


def to_bytes(symbols: Sequence[int]) -> bytes | None:
    """The bytes that to_symbols() encodes as `symbols`; None if there are none."""
    bits = 0
    for symbol in symbols:
        bits = bits << 5 | symbol
    length = len(symbols) * 5 // 8
    data = (bits >> (len(symbols) * 5 - length * 8)).to_bytes(length)
    return data if to_symbols(data) == list(symbols) else None


def _symbols(bits: int, count: int) -> list[int]:
    """The last `count` groups of five bits of a number, the highest first."""
    return [bits >> 5 * place & 31 for place in reversed(range(count))]


def _polymod(prefix: str, symbols: Sequence[int]) -> int:
    """BIP 173's remainder of a prefix and symbols."""
    codes, remainder = prefix.encode(), 1
    for symbol in (*(code >> 5 for code in codes), 0, *(code & 31 for code in codes), *symbols):
        top, remainder = remainder >> 25, (remainder & 0x1FFFFFF) << 5 ^ symbol
        for bit, generator in enumerate(_GENERATOR):
            remainder ^= generator * (top >> bit & 1)
    return remainder
