"""Lists of everyday English words, written for this project, and their inflected forms.

Published lists were not used. Those in light packages with a free licence rank the words of films and of
passwords, lack many everyday things, and change with their packages.
"""

import random
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "lists"
_SINGULAR_PLURAL = """
calf calves child children deer deer elf elves fish fish fisherman fishermen fireman firemen foot feet goose
geese knife knives leaf leaves loaf loaves man men mouse mice person people salmon salmon salesman salesmen
scarf scarves sheep sheep shelf shelves shorts shorts shrimp shrimp snowman snowmen tooth teeth trout trout
wife wives wolf wolves woman women hertz hertz pants pants scissors scissors analysis analyses axis axes
basis bases hypothesis hypotheses half halves life lives cactus cacti potato potatoes tomato tomatoes hero
heroes echo echoes mango mangoes vertex vertices matrix matrices
"""
_IRREGULAR_PLURALS = dict(zip(_SINGULAR_PLURAL.split()[::2], _SINGULAR_PLURAL.split()[1::2], strict=True))
_VOWELS = "aeiou"


@cache
def read_words(name: str) -> tuple[str, ...]:
    """Read the list `lists/NAME.txt`: words in its order, each once."""
    return tuple(dict.fromkeys((_FOLDER / f"{name}.txt").read_text("utf-8").split()))


def plural(noun: str) -> str:
    """The plural of a noun, which is also the third person of a verb."""
    if noun in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[noun]
    if noun.endswith(("s", "x", "z", "ch", "sh")) or noun in ("go", "do", "undergo"):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in _VOWELS:
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def verb_forms(entry: str) -> tuple[str, str, str, str, str]:
    """Infinitive, third person, past, participle and -ing form of `verb` or `verb/past/participle`."""
    verb, *irregular = entry.split("/")
    past = irregular[0] if irregular else _with_ending(verb, "ed")
    third = "has" if verb == "have" else plural(verb)
    return verb, third, past, irregular[-1] if irregular else past, _with_ending(verb, "ing")


def _with_ending(verb: str, ending: str) -> str:
    if verb.endswith("ie"):
        return f"{verb[:-2]}ying" if ending == "ing" else f"{verb}d"
    if verb.endswith("e") and not verb.endswith(("ee", "ye")):
        return verb[:-1] + ending
    if verb.endswith("ee"):
        return verb + ("d" if ending == "ed" else ending)
    if verb.endswith("y") and verb[-2] not in _VOWELS and ending == "ed":
        return f"{verb[:-1]}ied"
    if _doubles(verb):
        return verb + verb[-1] + ending
    return verb + ending


def _doubles(verb: str) -> bool:
    """Whether the last consonant doubles: one syllable, or one of a few stressed on the last."""
    if verb in ("admit", "begin", "commit", "forget", "occur", "prefer", "refer", "babysit", "transfer"):
        return True
    single = sum(letter in _VOWELS for letter in verb) == 1 and len(verb) >= 3
    return single and verb[-1] not in "wxyaeiou" and verb[-2] in _VOWELS


class Deck:
    """Words in a random order, each drawn once before any is drawn again."""

    def __init__(self, words: tuple[str, ...], rng: random.Random) -> None:
        """Use the words and the source of randomness."""
        self._words, self._rng, self._left = words, rng, list[str]()

    def draw(self) -> str:
        """Draw the next word."""
        if not self._left:
            self._left = self._rng.sample(self._words, len(self._words))
        return self._left.pop()
