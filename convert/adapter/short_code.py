"""An adapter of a few numbers as a short text: `t13:smollm2-135m:…`, to paste, to send or to print.

After the base's name come, in Bech32's alphabet of 32: the kind of numbers, 30 bits of the basis' hash, the
numbers, and a checksum over all of it.
"""

import re
from dataclasses import dataclass

import numpy as np

from ...errors import AdapterError
from ...files.safetensors import Rows
from .basis import NAME_MAX
from .bech32 import ALPHABET, CHECKSUM, bech32m_checksum, checksum_holds, to_bytes, to_symbols

PREFIX = "t13:"
_NAME = re.compile(rf"[a-z0-9][a-z0-9.-]{{0,{NAME_MAX - 1}}}")
_MARK = 6  # symbols of the basis' hash
_BYTES = (2, 4)  # of a number, by the kind: bfloat16, float32
_LONGEST = 8192  # characters that are read


@dataclass(frozen=True)
class ShortCode:
    """What a code says.

    Attributes:
        name: the base's.
        mark: the beginning of the basis' hash, as the code has it; see base_mark().
        numbers: what was trained, (numbers,).
        exact: whether they are float32 and not bfloat16.
    """

    name: str
    mark: str
    numbers: Rows
    exact: bool = False


def looks_like_code(text: str) -> bool:
    """Whether a text is meant as a code, whatever state it is in."""
    return text[: len(PREFIX)].lower() == PREFIX


def base_mark(basis_id: str) -> str:
    """What a code has of a basis' hash, which is given in hexadecimal."""
    return _text([int(basis_id[:8], 16) >> 2 + 5 * (_MARK - 1 - place) & 31 for place in range(_MARK)])


def as_bfloat16(numbers: Rows) -> Rows:
    """The nearest numbers of bfloat16, ties to even."""
    bits = numbers.astype("<f4").view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return rounded.astype("<u4").view("<f4").astype(np.float32)


def check_name(name: str) -> None:
    """Raise AdapterError if a base cannot have this name in a code."""
    if not _NAME.fullmatch(name):
        raise AdapterError(f"the name {name!r}: a code takes up to {NAME_MAX} of a-z, 0-9, . and -")


def encode_short_code(code: ShortCode) -> str:
    """Write a code; what is not `exact` is rounded to bfloat16.

    Raises:
        AdapterError: the name cannot be in a code, or a number is not finite.
    """
    check_name(code.name)
    numbers = code.numbers if code.exact else as_bfloat16(code.numbers)
    if not np.isfinite(numbers).all():
        raise AdapterError(f"a code for {code.name}: a number is not finite")
    raw = numbers.astype("<f4").view("u1").reshape(-1, 4)[:, -_BYTES[code.exact] :]
    symbols = [int(code.exact), *map(ALPHABET.index, code.mark), *to_symbols(raw.tobytes())]
    label = PREFIX + code.name
    return f"{label}:{_text([*symbols, *bech32m_checksum(label, symbols)])}"


def decode_short_code(text: str) -> ShortCode:
    """Read a code, in lower case or, as a QR code has it, in upper case.

    Raises:
        AdapterError: it is not one, or not as it was written.
    """
    text = text.strip()
    shown = text if len(text) <= 100 else f"{text[:100]}…"
    if len(text) > _LONGEST or not text.isascii() or text not in (text.lower(), text.upper()):
        raise AdapterError(f"the code {shown!r} is damaged: a code is all lower or all upper case ASCII")
    label, colon, rest = text.lower().rpartition(":")
    if not (colon and label.startswith(PREFIX) and _NAME.fullmatch(label.removeprefix(PREFIX))):
        raise AdapterError(
            f"{shown!r} is no code: it would be {PREFIX}NAME:…, as thirteen adapter encode writes it"
        )
    if wrong := next((one for one in rest if one not in ALPHABET), None):
        raise AdapterError(f"the code {shown!r} is damaged: no code has the character {wrong!r}")
    symbols = [ALPHABET.index(one) for one in rest]
    if len(symbols) <= 1 + _MARK + CHECKSUM or not checksum_holds(label, symbols):
        raise AdapterError(f"the code {shown!r} is damaged: its checksum does not hold")
    kind, data = symbols[0], to_bytes(symbols[1 + _MARK : -CHECKSUM])
    if kind >= len(_BYTES) or not data or len(data) % _BYTES[kind]:
        raise AdapterError(f"the code {shown!r} is of a kind that this version does not know")
    return ShortCode(
        label.removeprefix(PREFIX), rest[1 : 1 + _MARK], _numbers(data, _BYTES[kind]), bool(kind)
    )


def _numbers(data: bytes, width: int) -> Rows:
    raw = np.zeros((len(data) // width, 4), np.uint8)
    raw[:, -width:] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return raw.view("<f4").reshape(-1).astype(np.float32)


def _text(symbols: list[int]) -> str:
    return "".join(ALPHABET[symbol] for symbol in symbols)
