"""Files of rollouts whose solutions are tokens of a tokenizer."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from thirteen.learn.examples import prompt_text
from thirteen.learn.rollouts import QuestionRollouts, RolloutFile, Solution
from thirteen.runtime.request import FULL_DISTRIBUTION

# The outcomes of the solutions to each question: "10" has a right and a wrong one.
OUTCOMES = ("10", "1000", "1110", "11", "00", "10", "10", "10")
MIXED = ("10", "1000", "1110", "11", "00", *["10"] * 9)  # enough questions for a natural gradient step


def write_rollouts(
    path: Path,
    tokenizer: Any,
    *,
    outcomes: tuple[str, ...] = OUTCOMES,
    prompt_tokens: int = 0,
    **identity: object,
) -> Path:
    """Write a file; `prompt_tokens` are added to the true number, and `identity` to the first line."""
    common = {"system": None, "calculator": False, "questions": len(outcomes)} | asdict(FULL_DISTRIBUTION)
    with RolloutFile(path, common | identity) as file:
        for number, rights in enumerate(outcomes):
            question = f"What is {number} and {number}?"
            prompt = tokenizer(prompt_text(tokenizer, question), add_special_tokens=False).input_ids
            solutions = []
            for n, right in enumerate(rights):
                value = 2 * number if right == "1" else 77
                text = f"Answer {n} is {number} + {number} = {value}"
                tokens = tuple(tokenizer(text, add_special_tokens=False).input_ids)
                solutions.append(Solution(tokens, True, right == "1"))
            answer, length = str(2 * number), len(prompt) + prompt_tokens
            file.add(QuestionRollouts(number, question, answer, length, tuple(solutions)))
    return path
