"""The texts that come along: to calibrate a quantization by, and to measure on, written for this project."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "texts"


def calibration_texts() -> Path:
    """Passages for an importance file, about 18,000 tokens of SmolLM2's.

    Two thirds are mathematical word problems with worked solutions; the rest is prose, code and lists, some
    of it in other languages than English. JSON lines, as runtime.passages reads them.
    """
    return _FOLDER / "calibration.jsonl"


def held_out_texts() -> Path:
    """Held-out passages of the same kinds, about 5,000 tokens, none of them in calibration_texts()."""
    return _FOLDER / "held_out.jsonl"
