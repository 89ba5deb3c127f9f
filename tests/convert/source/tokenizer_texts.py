"""Seeded random texts for tests of tokenizers. They depend only on the seed and the Python version.

The material is handwritten samples, the sources of Python's standard library, and all of Unicode.
"""

# ruff: noqa: RUF001 - a tokenizer must distinguish characters that look alike

import json
import random
import sys
import sysconfig
import unicodedata
from collections.abc import Callable, Sequence
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

Generator = Callable[[random.Random], str]


def lines(count: int, seed: int = 13) -> list[str]:
    """Return `count` texts from the generators in turn; a text may contain line ends."""
    rng = random.Random(seed)
    return [GENERATORS[i % len(GENERATORS)](rng) for i in range(count)]


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


def _draw(rng: random.Random, texts: Sequence[str], max_count: int) -> list[str]:
    return [rng.choice(texts) for _ in range(rng.randint(1, max_count))]


def _prose(rng: random.Random) -> str:
    return rng.choice(SPACES[:4]).join(_draw(rng, PROSE, 3))


def _code(rng: random.Random) -> str:
    """A few lines of source code, with one or several kinds of line ends."""
    start = rng.randrange(len(_source()) - 4)
    ends = rng.choice((("\n",), ("\r\n",), ("\n", "\r\n", "\r"), ("\n\n", "\n \n", "\t\n")))
    return "".join(line + rng.choice(ends) for line in _source()[start : start + rng.randint(1, 4)])


def _contractions(rng: random.Random) -> str:
    """Contractions in upper and lower case, with straight and curly apostrophes, in words and alone."""
    cases = (str.lower, str.upper, str.title)
    words = [rng.choice(WORDS) + rng.choice(cases)(end) for end in _draw(rng, CONTRACTIONS, 8)]
    return rng.choice((" ", "", "\n")).join(words).replace("'", rng.choice(("'", "'", "’", "''")))


def _spaces(rng: random.Random) -> str:
    runs = [space * rng.randint(1, 5) for space in _draw(rng, SPACES, 9)]
    return "".join(run + rng.choice(("", "a", "1", ".", "é")) for run in runs)


def _numbers(rng: random.Random) -> str:
    separators = ("", " ", ",", ".", "-", " + ", "x", "$", "%", "\n")
    integers = [str(rng.randrange(10 ** rng.randint(1, 20))) for _ in range(9)]
    return "".join(number + rng.choice(separators) for number in _draw(rng, (*NUMBERS, *integers), 9))


def _emoji(rng: random.Random) -> str:
    return "".join(emoji + rng.choice(("", "", " ", "a", "!", "\u200d")) for emoji in _draw(rng, EMOJI, 8))


def _combining(rng: random.Random) -> str:
    """Composed, decomposed and compatibility forms, and marks on letters that have no composed form."""
    marks = ["", "", *(chr(rng.randrange(0x300, 0x370)) * rng.randint(1, 3) for _ in range(3))]
    marked = "".join(letter + rng.choice(marks) for letter in rng.choice(PROSE[:2]))
    texts = [*_draw(rng, (*COMPOSED, *PROSE[2:8]), 4), marked]
    return " ".join(unicodedata.normalize(rng.choice(FORMS), text) for text in texts)


def _control(rng: random.Random) -> str:
    """Control characters, including NUL."""
    controls = [chr(code) for code in (*range(32), *range(127, 160))]
    return "".join(_draw(rng, (*controls, *INVISIBLE, "ab", " 1"), 20))


def _long_word(rng: random.Random) -> str:
    """One word of 50 to 600 letters that no rule splits."""
    letters = rng.choice(("ab", "etaoinshrdlu", "аеиоу", "汉字中文", "é", "_", "=-", "\u0e01\u0e32"))
    return "".join(rng.choice(letters) for _ in range(rng.randint(50, 600)))


def _anywhere(rng: random.Random) -> str:
    """Characters from all of Unicode, alone and between others."""
    return "".join(c + rng.choice(("", "", " ", "a", "1", ".", "\n")) for c in _draw(rng, _assigned(), 12))


def _mixture(rng: random.Random) -> str:
    words = [word for text in PROSE for word in text.split()]
    parts = (*words, *EMOJI, *SPACES, *INVISIBLE, *PUNCTUATION, *SYMBOLS, *COMPOSED, *NUMBERS, *CONTRACTIONS)
    return rng.choice(("", "", " ")).join(_draw(rng, parts, 16))


GENERATORS: tuple[Generator, ...] = (
    *(_prose, _code, _contractions, _spaces, _numbers, _emoji, _combining),
    *(_control, _long_word, _anywhere, _mixture),
)
