"""The texts that a vocabulary is chosen on, the same on every machine.

python lab/text_generator/generate.py [OUTPUT.jsonl.gz]

They are generated word problems and prose, the calibration texts, and the word lists. The default output is
`models/texts/vocabulary.jsonl.gz`, which the package reads.
"""

import gzip
import json
import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from thirteen.lab.text_generator.fields import Fields, WordDecks
from thirteen.lab.text_generator.problems import PROBLEMS
from thirteen.lab.text_generator.prose import SENTENCES
from thirteen.lab.text_generator.word_lists import word_list_passages
from thirteen.models.texts import CALIBRATION
from thirteen.runtime.corpus.passages import Passage, read_passages

GENERATED = 6_000  # passages
SENTENCES_EACH = 4  # of a passage of prose
OUTPUT = Path(__file__).parents[2] / "models" / "texts" / "vocabulary.jsonl.gz"


def generate_passages(rng: random.Random) -> Iterator[Passage]:
    """Generate word problems with solutions and passages of prose, in turn.

    Of the words of a list in one form, such as the plural, each is drawn once before any is drawn again. The
    lists are all but `everyday` and `abbreviations`, and the commands of LaTeX.
    """
    decks = WordDecks(rng)
    while True:
        for problem in rng.sample(PROBLEMS, len(PROBLEMS)):
            fields = Fields(decks, problem.numbers(rng))
            question = problem.question.format_map(fields)
            yield Passage(problem.solution.format_map(fields), question)
            sentences = rng.sample(SENTENCES, SENTENCES_EACH)
            yield Passage(" ".join(sentence.format_map(Fields(decks, {})) for sentence in sentences))


def main(output: Path) -> None:
    """Write all passages as JSON lines."""
    generated = islice(generate_passages(random.Random("texts 13")), GENERATED)
    lines = [
        json.dumps(
            {"text": passage.text}
            if passage.question is None
            else {"question": passage.question, "solution": passage.text},
            ensure_ascii=False,
        )
        for passage in (*generated, *read_passages(CALIBRATION), *word_list_passages())
    ]
    output.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))
    print(f"{output}: {len(lines):,} passages")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
