"""Test vectors that keep the Python and the JavaScript reading of answers in agreement."""

import os
import random
from dataclasses import asdict
from typing import Any

from thirteen.runtime.answer import read_value
from thirteen.runtime.arithmetic.grounding import is_grounded
from thirteen.tests.runtime.arithmetic import cases
from thirteen.tests.runtime.arithmetic.claims import PIECES, draw_false, draw_plain, draw_true

QUESTION = "Tom has 12 gizmos and 4 green eggs."
_MIXTURES = 20_000 if os.environ.get("EXHAUSTIVE") else 1_000


def texts() -> list[str]:
    """Return the texts of the Python tests, and random mixtures of them with a fixed seed."""
    sources = [case[0] for case in (*cases.FINAL_ANSWERS, *cases.RIGHT, *cases.WRONG)] + cases.UNREAD
    sources += [f"{text}{result}. Or so" for text, result in cases.PENDING]
    sources += [f"{text} 7" for text in cases.NOT_PENDING]
    rng = random.Random(13)
    sources += [draw(rng) for draw in (draw_false, draw_true, draw_plain, draw_plain) for _ in range(100)]
    sources = [text for text in sources if len(text) < 2_000]
    return list(dict.fromkeys([*sources, *(_mixture(rng, sources) for _ in range(_MIXTURES))]))


def _mixture(rng: random.Random, sources: list[str]) -> str:
    first, second = rng.choice(sources), rng.choice(sources)
    text = first[: rng.randint(0, len(first))] + second[rng.randint(0, len(second)) :]
    position = rng.randint(0, len(text))
    return (text[:position] + rng.choice(PIECES) + text[position:])[-400:]


def vectors() -> list[dict[str, Any]]:
    """Return each text with its steps, its final value, and whether the value is verified and grounded."""
    labelled = [_vector(row["text"], row["question"]) for row in cases.STATED_VALUES]
    return labelled + [_vector(text, QUESTION) for text in texts()]


def _vector(text: str, question: str) -> dict[str, Any]:
    value, steps, verified = read_value(text, question)
    grounded = verified and is_grounded(steps, question)
    found = [asdict(step) for step in steps]
    return {
        "text": text,
        "question": question,
        "steps": found,
        "value": value,
        "verified": verified,
        "grounded": grounded,
    }
