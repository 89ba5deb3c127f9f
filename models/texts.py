"""Paths of the bundled texts for calibration and for held-out measurements, written for this project."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "texts"


def calibration_texts() -> Path:
    """The calibration set for importance files: about 18,000 tokens in SmolLM2's tokenizer.

    Two thirds are math word problems with worked solutions; the rest is prose, code and lists, some of it in
    languages other than English. The format is the JSON lines that `runtime/calibration/corpus.py` reads.
    """
    return _FOLDER / "calibration.jsonl"


def held_out_texts() -> Path:
    """The held-out set: the same kinds of text, about 5,000 tokens, disjoint from the calibration set."""
    return _FOLDER / "held_out.jsonl"
