"""The bundled texts for calibration, held-out measurements and vocabularies, written for this project."""

import gzip
import json
from pathlib import Path

from .passages import Passage

_FOLDER = Path(__file__).parent / "texts"
# The calibration set for importance files: JSON lines that `passages.py` reads, about 18,000
# tokens in SmolLM2's tokenizer. Two thirds are math word problems with worked solutions; the rest is prose,
# code and lists, some of it in languages other than English.
CALIBRATION = _FOLDER / "calibration.jsonl"
# The held-out set: the same kinds of text, about 5,000 tokens, disjoint from the calibration set.
HELD_OUT = _FOLDER / "held_out.jsonl"
# 48 one-step word problems by lab/sums.py, on which no shipped adapter was trained.
HELD_OUT_SUMS = _FOLDER / "sums.jsonl"


def vocabulary_passages() -> tuple[Passage, ...]:
    """Passages to choose a vocabulary on: word problems, prose, the calibration set and lists of words."""
    with gzip.open(_FOLDER / "vocabulary.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return tuple(Passage(row.get("solution", row.get("text")), row.get("question")) for row in rows)
