"""Seeded random texts for tests of tokenizers. They depend only on the seed and the Python version.

The material is handwritten samples, the sources of Python's standard library, and all of Unicode.
"""

# ruff: noqa: RUF001 - a tokenizer must distinguish characters that look alike

import json
import random
import sys
import sysconfig
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

_SAMPLES: dict[str, list[str]] = json.loads(
    (Path(__file__).parents[2] / "data" / "tokenizer_texts.json").read_text("utf-8")
)
PROSE, EMOJI, CONTRACTIONS, WORDS, SPACES, INVISIBLE, PUNCTUATION, SYMBOLS, COMPOSED, NUMBERS = (
    _SAMPLES.values()
)
FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")
# New digits of Unicode 16. llama.cpp's tables are older and treat them as symbols.
NEW_DIGITS = (
    *(*range(0x10D40, 0x10D4A), *range(0x116D0, 0x116E4), *range(0x11BF0, 0x11BFA), *range(0x16130, 0x1613A)),
    *(*range(0x16D70, 0x16D7A), *range(0x1CCF0, 0x1CCFA), *range(0x1E5F1, 0x1E5FB)),
)
_SURROGATES = range(0xD800, 0xE000)


def lines(count: int, seed: int = 13) -> list[str]:
    """Return `count` texts of all kinds in turn; a text may contain line ends."""
    rng, kinds = random.Random(seed), _kinds()
    return [_joined(rng, *kinds[i % len(kinds)]) for i in range(count)]


def _joined(rng: random.Random, texts: Sequence[str], separators: Sequence[str], most: int) -> str:
    return "".join(rng.choice(texts) + rng.choice(separators) for _ in range(rng.randint(1, most)))


@cache
def _kinds() -> tuple[tuple[Sequence[str], Sequence[str], int], ...]:
    """What texts are made of, what may stand after each part, and how many parts there are at most."""
    contractions = [
        word + change(end).replace("'", mark)
        for word in WORDS
        for end in CONTRACTIONS
        for change in (str.lower, str.upper, str.title)
        for mark in ("'", "’", "''")
    ]
    runs = [space * count for space in SPACES for count in range(1, 6)]
    numbers = [*NUMBERS, *(str(7**n) for n in range(23))]
    forms = [unicodedata.normalize(form, text) for form in FORMS for text in (*COMPOSED, *PROSE[2:8])]
    marks = [chr(code) for code in range(0x300, 0x370)]
    controls = [chr(code) for code in (*range(32), *range(127, 160))]
    letters = [*"etaoinshrdlu", *"аеиоу", *"汉字中文", "é", "_", "=-", "\u0e01\u0e32"]
    words = [word for text in PROSE for word in text.split()]
    parts = (*words, *EMOJI, *SPACES, *INVISIBLE, *PUNCTUATION, *SYMBOLS, *COMPOSED, *NUMBERS, *CONTRACTIONS)
    return (
        (PROSE, SPACES[:4], 3),
        (_source(), ("\n", "\r\n", "\r", "\n\n", "\n \n", "\t\n"), 4),
        (contractions, (" ", "", "\n"), 8),
        (runs, ("", "a", "1", ".", "é"), 9),
        (numbers, ("", " ", ",", ".", "-", " + ", "x", "$", "%", "\n"), 9),
        (EMOJI, ("", "", " ", "a", "!", "\u200d"), 8),
        ((*forms, *PROSE[0]), ("", " ", *marks), 12),
        ((*controls, *INVISIBLE, "ab", " 1"), ("",), 20),
        (letters, ("",), 600),
        (_assigned(), ("", "", " ", "a", "1", ".", "\n"), 12),
        (parts, ("", "", " "), 16),
    )


@cache
def _source() -> tuple[str, ...]:
    """Lines of Python's standard library, in the order of file names."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py"))
    texts = (file.read_text("utf-8", "replace") for file in files)
    return tuple(line for text in texts for line in text.splitlines() if line.strip())


@cache
def _assigned() -> tuple[str, ...]:
    """All characters assigned in this Python's Unicode, except private use and NEW_DIGITS."""
    excluded = {*_SURROGATES, *NEW_DIGITS}
    characters = (chr(code) for code in range(sys.maxunicode + 1) if code not in excluded)
    return tuple(c for c in characters if unicodedata.category(c) not in ("Cn", "Co"))
