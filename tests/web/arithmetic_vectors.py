"""Test vectors that keep the Python and the JavaScript answer parser in agreement.

`python tests/web/arithmetic_vectors.py tests/data/arithmetic.json` writes texts with the Python parser's
results. The tests of both parsers read this file. Their tables are one, runtime/arithmetic/notation.json;
after a change to one engine, change the other. Then regenerate the file.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

from thirteen.runtime.arithmetic.calculator import check_steps
from thirteen.runtime.arithmetic.grounding import is_grounded
from thirteen.server.api.answer_api import check_claim
from thirteen.tests.runtime.arithmetic.calculator_cases import GSM8K, NOT_PENDING, PENDING, STEPS
from thirteen.tests.runtime.arithmetic.final_answer_cases import FINAL_ANSWERS

FILE = Path(__file__).parents[1] / "data" / "arithmetic.json"
_MIXTURES = 400
_INSERTIONS = (
    *("=", " = ", " is ", "≈", " \\approx ", "about ", "<<3*4=12>>", "...", "…", "%", "$", "€", "1,234.50"),
    *("½", "2 1/2", "\\frac{1}{2}", "\\times", "\u00d7", "\u2212", "\u00f7", " x ", " of ", "(", ")", "{"),
    *("}", "^2", "**", "\n", "\n- ", "\n1. ", "  ", "\u00a0", "step 3 ", "apples", " per ", " and ", "é"),
    *("² ", "🙂 ", ": ", ". "),
)


def texts() -> list[str]:
    """Return the texts of the Python tests, and random mixtures of them with a fixed seed."""
    sources = [text for text, _ in (*FINAL_ANSWERS, *STEPS)]
    sources += [f"{text}{result or ' 7'} or so." for text, result in (*PENDING, *GSM8K)]
    sources += [f"{text} 12 apples" for text in NOT_PENDING]
    sources = [text for text in sources if len(text) < 2_000]
    rng = random.Random(13)
    return list(dict.fromkeys([*sources, *(_mixture(rng, sources) for _ in range(_MIXTURES))]))


def _mixture(rng: random.Random, sources: list[str]) -> str:
    first, second = rng.choice(sources), rng.choice(sources)
    text = first[: rng.randint(0, len(first))] + second[rng.randint(0, len(second)) :]
    position = rng.randint(0, len(text))
    return (text[:position] + rng.choice(_INSERTIONS) + text[position:])[-400:]


def vectors() -> list[dict[str, Any]]:
    """Return each text with its steps, its final value, and whether the value is verified and grounded.

    As a question stands the text itself, in which some numbers differ.
    """
    return [{"text": text, **check_claim(text), "grounded": _is_grounded(text)} for text in texts()]


def _is_grounded(text: str) -> bool:
    return check_claim(text)["verified"] and is_grounded(check_steps(text), text.replace("3", "4"))


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(vector, ensure_ascii=False) for vector in vectors())
    Path(sys.argv[1]).write_text(f"[\n{lines}\n]\n", "utf-8")
