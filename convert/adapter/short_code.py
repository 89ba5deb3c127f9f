"""Short codes: a TinyLoRA's trained vector as text to paste, send or print, `t13:smollm2-135m:…`.

After the base's name follow, in Bech32's alphabet: the number format, 30 bits of the basis' hash, the
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
from ...stats.arrays import Floats
from .basis import NAME_MAX, NUMBERS_MAX

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"  # without 1, b, i and o, which are easily misread
CHECKSUM_SYMBOLS = 6
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32M = 0x2BC830A3  # BIP 350's constant, which also detects a q inserted or deleted before a final p
PREFIX = "t13:"
_BF16 = GGMLQuantizationType.BF16
_NAME = re.compile(rf"[a-z0-9][a-z0-9.-]{{0,{NAME_MAX - 1}}}")
_FINGERPRINT_SYMBOLS = 6
_NUMBER_BYTES = (2, 4)  # by format: bfloat16, float32
_HEAD = len(PREFIX) + NAME_MAX + len(":") + 1 + _FINGERPRINT_SYMBOLS  # characters before the numbers
# Characters of a code that is decoded: NUMBERS_MAX numbers in float32, at five bits a character. Longer ones
# are no code, and the time to decode one grows with the square of its length.
LENGTH_MAX = _HEAD + ceil(NUMBERS_MAX * 32 / 5) + CHECKSUM_SYMBOLS


@dataclass(frozen=True)
class ShortCode:
    """The content of a code.

    Attributes:
        name: name of the base.
        fingerprint: start of the basis' hash, from basis_fingerprint().
        numbers: the trained vector, (u,).
        exact: whether the numbers are float32 instead of bfloat16.
    """

    name: str
    fingerprint: str
    numbers: Floats
    exact: bool = False


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
    """Encode a code; numbers are rounded to bfloat16 unless it is `exact`.

    Raises:
        FileError: the name does not fit a code, or a number is not finite.
    """
    if not _NAME.fullmatch(code.name):
        raise FileError(f"{code.name!r} does not fit a code: up to {NAME_MAX} of a-z, 0-9, . and -")
    numbers = code.numbers if code.exact else round_to_bfloat16(code.numbers)
    if not np.isfinite(numbers).all():
        raise FileError(f"a code for {code.name}: a number is not finite")
    raw = numbers.astype("<f4").view("u1").reshape(-1, 4)[:, -_NUMBER_BYTES[code.exact] :]
    symbols = [int(code.exact), *map(CHARSET.index, code.fingerprint), *to_symbols(raw.tobytes())]
    prefix = PREFIX + code.name
    return f"{prefix}:{_encode([*symbols, *bech32m_checksum(prefix, symbols)])}"


def decode_short_code(text: str) -> ShortCode:
    """Decode a code in lower or in upper case.

    Raises:
        FileError: the text is not a code, or a damaged one.
    """
    text = text.strip()
    shown = text if len(text) <= 100 else f"{text[:100]}…"
    if len(text) > LENGTH_MAX:
        raise FileError(f"the code {shown!r} has {len(text):,} characters; no code has over {LENGTH_MAX:,}")
    if not text.isascii() or text not in (text.lower(), text.upper()):
        raise FileError(f"the code {shown!r} is damaged: a code is all lower or all upper case ASCII")
    prefix, colon, body = text.lower().rpartition(":")
    if not (colon and prefix.startswith(PREFIX) and _NAME.fullmatch(prefix.removeprefix(PREFIX))):
        raise FileError(f"{shown!r} is not a code: thirteen adapter NAME --code writes one as {PREFIX}NAME:…")
    if invalid := next((character for character in body if character not in CHARSET), None):
        raise FileError(f"the code {shown!r} is damaged: no code has the character {invalid!r}")
    symbols = [CHARSET.index(character) for character in body]
    if len(symbols) <= 1 + _FINGERPRINT_SYMBOLS + CHECKSUM_SYMBOLS or not verify_checksum(prefix, symbols):
        raise FileError(f"the code {shown!r} is damaged: its checksum does not match")
    fingerprint, data = body[1 : 1 + _FINGERPRINT_SYMBOLS], symbols[1 + _FINGERPRINT_SYMBOLS :]
    format_, raw = symbols[0], to_bytes(data[:-CHECKSUM_SYMBOLS])
    if format_ >= len(_NUMBER_BYTES) or not raw or len(raw) % _NUMBER_BYTES[format_]:
        raise FileError(f"the code {shown!r} has a format that this version does not support")
    numbers = _decode_numbers(raw, _NUMBER_BYTES[format_])
    if not np.isfinite(numbers).all():
        raise FileError(f"the code {shown!r} has a number that is not finite")
    return ShortCode(prefix.removeprefix(PREFIX), fingerprint, numbers, exact=bool(format_))


def _decode_numbers(data: bytes, width: int) -> Floats:
    raw = np.zeros((len(data) // width, 4), np.uint8)
    raw[:, -width:] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return raw.view("<f4").reshape(-1).astype(np.float32)


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
