"""Test helper: byte-level vocabularies. It does not import torch."""


def byte_names() -> list[str]:
    """The characters that stand for the bytes 0 to 255 in byte-level vocabularies."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = (256 + n for n in range(256))
    return [chr(byte) if byte in shown else chr(next(hidden)) for byte in range(256)]
