"""The generated texts, the same on every machine."""

import random
from collections.abc import Iterator

from ...errors import ThirteenError
from ...runtime.calibration.corpus import Passage
from .fields import Fields, WordDecks
from .problems import PROBLEMS
from .prose import SENTENCES

TEXTS_MAX = 1_000_000
_SENTENCES = 4  # sentences of a passage of prose


def generate_passages(count: int, seed: int = 13) -> list[Passage]:
    """Generate word problems with solutions and passages of prose, in turn.

    Of the words of a list in one form, such as the plural, each is drawn once before any is drawn again. The
    lists are those of `texts/words` but `everyday` and `abbreviations`, and the commands of LaTeX.

    Args:
        count: number of passages.
        seed: random seed; equal seeds give equal texts on every machine.

    Raises:
        ThirteenError: `count` is out of range.
    """
    if not 1 <= count <= TEXTS_MAX:
        raise ThirteenError(f"{count} texts: must be from 1 to {TEXTS_MAX}")
    passages = _generate(random.Random(f"texts {seed}"))  # noqa: S311 - it must be repeatable
    return [next(passages) for _ in range(count)]


def _generate(rng: random.Random) -> Iterator[Passage]:
    decks = WordDecks(rng)
    while True:
        for problem in rng.sample(PROBLEMS, len(PROBLEMS)):
            fields = Fields(decks, problem.numbers(rng))
            question = problem.question.format_map(fields)
            yield Passage(problem.solution.format_map(fields), question)
            sentences = rng.sample(SENTENCES, _SENTENCES)
            yield Passage(" ".join(sentence.format_map(Fields(decks, {})) for sentence in sentences))
