"""QR codes of short codes. They are in upper case, for which QR codes have a denser mode."""

from pathlib import Path

import segno

from ...errors import OutputError
from ...files.atomic_write import atomic_write
from ...files.output import check_target

_SUFFIXES = (".svg", ".png")
_ERROR_CORRECTION = "m"  # tolerates 15 % damage
_BLOCKS = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}  # for a dark terminal: light modules are drawn


def _qr_code(code: str) -> segno.QRCode:
    try:
        return segno.make_qr(code.upper(), error=_ERROR_CORRECTION)
    except segno.DataOverflowError:
        raise OutputError(f"a code of {len(code):,} characters is too long for a QR code") from None


def qr_text(code: str) -> str:
    """Draw a QR code with block characters, two rows of modules per line."""
    rows = [list(row) for row in _qr_code(code).matrix_iter(border=4)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return "\n".join("".join(_BLOCKS[bool(a), bool(b)] for a, b in zip(*pair, strict=True)) for pair in pairs)


def check_qr_file(path: Path) -> None:
    """Raise OutputError unless a QR code can be written to `path`."""
    if path.suffix not in _SUFFIXES:
        raise OutputError(f"{path}: the name of a QR code must end in {' or '.join(_SUFFIXES)}")
    check_target(path)


def write_qr(code: str, path: Path) -> None:
    """Write a QR code as an image.

    Raises:
        OutputError: the file cannot be written.
    """
    check_qr_file(path)
    with atomic_write(path) as file:
        _qr_code(code).save(file, kind=path.suffix[1:], scale=8)
