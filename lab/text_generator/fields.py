"""The fields of a template: words drawn from decks, and numbers."""

import random
from collections.abc import Iterator, Mapping

from thirteen.convert.vocabulary.token_kinds import LATEX_COMMANDS
from thirteen.lab.text_generator.words import Deck, plural, read_words, verb_forms

_FORMS = ("verb", "verbs", "verbed", "verbdone", "verbing")
# Field in a template -> list of words
_LISTS = {
    "name": "names",
    "surname": "surnames",
    "place": "places",
    "thing": "things",
    "mass": "mass",
    "person": "people",
    "unit": "units",
    "adj": "adjectives",
    "idea": "abstract",
    "adverb": "adverbs",
}
_PLURALS = {"things": "thing", "persons": "person", "units": "unit", "ideas": "idea"}


class WordDecks:
    """A deck for each kind of word and each of its forms."""

    def __init__(self, rng: random.Random) -> None:
        """Make the decks."""
        lists = {field: read_words(name) for field, name in _LISTS.items()}
        lists |= {field: tuple(map(plural, lists[one])) for field, one in _PLURALS.items()}
        lists["latex"] = LATEX_COMMANDS
        forms = zip(*map(verb_forms, read_words("verbs")), strict=True)
        lists |= dict(zip(_FORMS, forms, strict=True))
        self._decks = {field: Deck(words, rng) for field, words in lists.items()}
        self._capitals = {field: Deck(words, rng) for field, words in lists.items()}

    def draw(self, field: str) -> str:
        """Draw a word; a field that begins with a capital gives a capital, from a deck of its own."""
        kind = field.rstrip("0123456789")
        if kind[0].isupper():
            word = self._capitals[kind.lower()].draw()
            return word[0].upper() + word[1:]
        return self._decks[kind].draw()


class Fields(Mapping[str, object]):
    """Values for `str.format_map`: numbers as given, words drawn when first used and then repeated.

    `{name}` and `{name2}` are two names, `{Things}` is a plural with a capital.
    """

    def __init__(self, decks: WordDecks, numbers: Mapping[str, object]) -> None:
        """Use decks, and numbers by name."""
        self._decks, self._values = decks, dict(numbers)

    def __getitem__(self, field: str) -> object:
        """The value of a field."""
        if field not in self._values:
            self._values[field] = self._decks.draw(field)
        return self._values[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
