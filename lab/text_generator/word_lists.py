"""The word lists as texts: each word as it begins a line, within a line, and after a sign."""

from collections.abc import Iterator

from thirteen.convert.vocabulary.token_kinds import LATEX_COMMANDS
from thirteen.lab.text_generator.words import plural, read_words, verb_forms
from thirteen.runtime.corpus.passages import Passage

_NAMES = ("names", "surnames", "places")
_NOUNS = ("things", "mass", "people", "units")
_OTHERS = ("adjectives", "abstract", "adverbs", "everyday", "abbreviations")
_PER_PASSAGE = 20


def word_list_passages() -> list[Passage]:
    """Write all lists as passages of twenty words each, in the order of the lists."""
    lines = [*_lines()]
    return [
        Passage("\n".join(lines[start : start + _PER_PASSAGE]))
        for start in range(0, len(lines), _PER_PASSAGE)
    ]


def _lines() -> Iterator[str]:
    for name in _NAMES:
        yield from (f"{word}'s {word}" for word in read_words(name))
    for name in _NOUNS:
        for noun in read_words(name):
            many = plural(noun)
            yield f"{many.capitalize()}, {many}: {noun}, 5-{noun} $2/{noun} *{many}"
    for name in _OTHERS:
        yield from (f"{word[0].upper()}{word[1:]} {word}" for word in read_words(name))
    for entry in read_words("verbs"):
        verb, *others = verb_forms(entry)
        yield f"{verb.capitalize()} {verb} {' '.join(others)} {others[-1].capitalize()}"
    for word in LATEX_COMMANDS:
        yield f"\\{word} $\\{word}{{x}}$ \\[\\{word}\\] (\\{word})"
