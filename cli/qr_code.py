"""A short code as a QR code. It is written in upper case, for which a QR code has a denser mode."""

from pathlib import Path

import segno

from ..errors import OutputError
from ..files.output import check_target, output_errors

_KINDS = (".svg", ".png")
_LEVEL = "m"  # up to 15 % of it may be unreadable


def _made(code: str) -> segno.QRCode:
    return segno.make_qr(code.upper(), error=_LEVEL)


def qr_text(code: str) -> str:
    """The QR code of a short code in block characters, two rows to a line, dark on light."""
    rows = [list(row) for row in _made(code).matrix_iter(border=4)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    blocks = {
        (0, 0): "█",
        (0, 1): "▀",
        (1, 0): "▄",
        (1, 1): " ",
    }  # a terminal is dark: light is what is drawn
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return "\n".join("".join(blocks[bool(a), bool(b)] for a, b in zip(*pair, strict=True)) for pair in pairs)


def check_qr_file(path: Path) -> None:
    """Raise OutputError if no QR code can be written to `path`."""
    if path.suffix not in _KINDS:
        raise OutputError(f"{path}: a QR code is written as {' or '.join(_KINDS)}")
    check_target(path)


def write_qr(code: str, path: Path) -> None:
    """Write the QR code of a short code as a picture.

    Raises:
        OutputError: it cannot be written.
    """
    check_qr_file(path)
    with output_errors(path):
        _made(code).save(str(path), scale=8)
