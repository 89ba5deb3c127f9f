r"""The grammar's tables, notation.json, which the web page's JavaScript reads too.

The file has the limits, words, operators and patterns; this package and the page have only the engine. A
pattern is a list of alternatives, where `{letter}` stands for the fragment of that name. It is in the syntax
that Python and JavaScript share, with `(?P<name>…)` for groups and with `\s` and `\w` only in brackets. All
patterns take linear time; the tests measure it in both languages, and check the form of the file.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).with_name("notation.json")

_ANSWERS = re.ASCII | re.IGNORECASE


@dataclass(frozen=True, slots=True)
class Notation:
    """The tables of notation.json.

    Attributes:
        limits: counts of characters, digits and other things.
        texts: of the operators, vulgar fractions and fragments, which are expanded.
        words: lists of words in lower case, by name.
        values: of number words.
        patterns: of prose and answers, by name; "lexeme" has a group for each kind of lexeme.
        cues: patterns whose group captures the text that states an answer, the most explicit first.
        normalizations: patterns of answers with their replacements, in order.
    """

    limits: Mapping[str, int]
    texts: Mapping[str, Mapping[str, str]]
    words: Mapping[str, frozenset[str]]
    values: Mapping[str, list[str]]
    patterns: Mapping[str, re.Pattern[str]]
    cues: tuple[re.Pattern[str], ...]
    normalizations: tuple[tuple[re.Pattern[str], str], ...]


def _load() -> Notation:
    content = json.loads(PATH.read_text("utf-8"))
    signs = "".join(sign for sign in content["operators"] if not sign.isascii())
    fragments = {"vulgar": "".join(content["vulgar_fractions"]), "signs": signs}

    def expand(pattern: str) -> str:
        return re.sub(r"\{([a-z_]+)\}", lambda match: fragments[match[1]], pattern)

    def compiled(alternatives: list[str], flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
        return re.compile(expand("|".join(alternatives)), flags)

    for name, text in content["fragments"].items():
        fragments[name] = expand(text)  # each may contain the ones before
    kinds = [f"(?P<{kind}>{'|'.join(texts)})" for kind, texts in content["lexemes"].items()]
    prose = {name: compiled(texts) for name, texts in content["prose"].items()}
    answers = {name: compiled(texts, _ANSWERS) for name, texts in content["answers"].items()}
    replacements = content["normalizations"].items()
    return Notation(
        limits=content["limits"],
        texts={name: content[name] for name in ("operators", "vulgar_fractions")} | {"fragments": fragments},
        words={name: frozenset(" ".join(lines).split()) for name, lines in content["words"].items()},
        values=content["values"],
        patterns=prose | answers | {"lexeme": compiled(kinds)},
        cues=tuple(compiled(texts, _ANSWERS) for texts in content["cues"].values()),
        normalizations=tuple((compiled([old], _ANSWERS), new) for old, new in replacements),
    )


NOTATION = _load()
