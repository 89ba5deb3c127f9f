"""Texts that hold the Python and the browser reader of answers to the same rules.

`python tests/web/arithmetic_vectors.py tests/data/arithmetic.json` writes each text with what Python reads in
it. The tests of both sides read that file. After a change of a rule on one side, change the other side and
write the file again.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

from thirteen.runtime.server.api.answer_api import check_claim
from thirteen.tests.runtime.arithmetic import test_calculator as sums
from thirteen.tests.runtime.arithmetic import test_final_answer as answers

FILE = Path(__file__).parents[1] / "data" / "arithmetic.json"
_MUTANTS = 400
_SCRAPS = (
    *("=", " = ", " is ", "≈", " \\approx ", "about ", "<<3*4=12>>", "...", "…", "%", "$", "€", "1,234.50"),
    *("½", "2 1/2", "\\frac{1}{2}", "\\times", "\u00d7", "\u2212", "\u00f7", " x ", " of ", "(", ")", "{"),
    *("}", "^2", "**", "\n", "\n- ", "\n1. ", "  ", "\u00a0", "step 3 ", "apples", " per ", " and ", "é"),
    *("² ", "🙂 ", ": ", ". "),
)


def texts() -> list[str]:
    """Those of the tests in Python, and mixtures of their pieces, the same each time."""
    read = [text for text, _ in (*answers._labelled(answers.SMOLLM2), *answers._labelled(answers.QWEN))]
    read += [text for text, _ in (*answers.BY_HAND, *sums.STEPS)]
    due = [f"{text}{result or ' 7'} or so." for text, result in (*sums.DUE, *sums.GSM8K)]
    read += due + [f"{text} 12 apples" for text in sums.NOT_DUE]
    read = [text for text in read if len(text) < 2_000]
    chance = random.Random(13)
    return list(dict.fromkeys([*read, *(_mutant(chance, read) for _ in range(_MUTANTS))]))


def _mutant(chance: random.Random, read: list[str]) -> str:
    one, other = chance.choice(read), chance.choice(read)
    text = one[: chance.randint(0, len(one))] + other[chance.randint(0, len(other)) :]
    at = chance.randint(0, len(text))
    return (text[:at] + chance.choice(_SCRAPS) + text[at:])[-400:]


def vectors() -> list[dict[str, Any]]:
    """Each text, its steps, its final value, and whether that is verified."""
    return [{"text": text, **check_claim(text)} for text in texts()]


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(vector, ensure_ascii=False) for vector in vectors())
    Path(sys.argv[1]).write_text(f"[\n{lines}\n]\n", "utf-8")
