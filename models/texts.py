"""The texts that come along: to calibrate a quantization by, and to measure on, written for this project."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "texts"


def calibration() -> Path:
    """Passages for an importance file, about 18,000 tokens of SmolLM2's.

    Two thirds are mathematical word problems with worked solutions; the rest is prose, code and lists, some
    of it in other languages than English. JSON lines, as runtime.passages reads them.
    """
    return _FOLDER / "calibration.jsonl"


def held_out() -> Path:
    """Other passages of the same kinds, to measure on: about 5,000 tokens, with no text of calibration()."""
    return _FOLDER / "held_out.jsonl"
