"""An adapter beside the best prompt: right answers, plain and after worked examples, without and with it.

python lab/beside_prompt.py MODEL ADAPTER.gguf --training FILE --held-out FILE [--output FILE.json]

Prompts are measured on the first 100 questions of the training file. Worked examples are the model's own
shortest right answers to its questions from the 101st to the 140th. All answers are greedy. The output has a
digit for each held-out question: 1 if its answer is right.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

from thirteen.learn.learn_result import AnswerPairs
from thirteen.learn.prompt_search import STEPS, Candidate, candidates
from thirteen.learn.rollouts import QuestionRollouts, Solution
from thirteen.learn.sample_rollouts import is_correct
from thirteen.models.rows import TrainingRow, read_rows
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.prompt.question_prompt import PLAIN, QuestionPrompt

MEASURED = {
    *("the plain question", "1 worked example", "2 worked examples", "4 worked examples"),
    f"answers that begin {STEPS!r}",
}


class Asker:
    """Asks a model with and without an adapter."""

    def __init__(self, engine: Engine, max_tokens: int) -> None:
        self._engine, self._max_tokens = engine, max_tokens
        self.texts: dict[str, str] = {}

    def answers(
        self, rows: Sequence[TrainingRow], prompt: QuestionPrompt, adapter: str = "base"
    ) -> list[QuestionRollouts]:
        """Greedy answers, with as many tokens as they have."""
        asked = [
            self._engine.request(row.question, prompt=prompt, adapter=adapter, max_tokens=self._max_tokens)
            for row in rows
        ]
        found = []
        for row, handle in zip(rows, self._engine.submit_all(asked, wait=True), strict=True):
            answer = handle.answer()
            self.texts[row.question] = answer.text
            tokens = (0,) * answer.usage.completion_tokens
            solution = Solution(tokens, is_correct(answer, row))
            found.append(QuestionRollouts(0, row.question, row.answer, 0, (solution,)))
        return found


def right(answers: Sequence[QuestionRollouts]) -> str:
    """A digit for each answer."""
    return "".join(str(one.right) for one in answers)


def best_prompt(ask: Asker, rows: Sequence[TrainingRow]) -> Candidate:
    """The best prompt other than the plain question; all are printed."""
    shown = [one.question for one in ask.answers(rows[100:140], PLAIN) if one.right]
    shortest = sorted(shown, key=lambda question: len(ask.texts[question]))[:16]
    random.Random(0).shuffle(shortest)
    examples = [(question, ask.texts[question]) for question in shortest]
    measured = [one for one in candidates(examples) if one.name in MEASURED]
    counts = {one.name: right(ask.answers(rows[:100], one.prompt)).count("1") for one in measured}
    print(counts)
    return max(measured[1:], key=lambda one: counts[one.name])


def main() -> None:
    """Choose the prompt, and measure it and the adapter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--training", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    training, held_out = (read_rows(path, ("answer",)) for path in (given.training, given.held_out))
    with Engine(given.model, adapters={"adapted": given.adapter}, slots=16, context=3072) as engine:
        ask = Asker(engine, given.max_tokens)
        best = best_prompt(ask, training)
        found = {
            f"{name}, {adapter}": ask.answers(held_out, prompt, adapter)
            for adapter in ("base", "adapted")
            for name, prompt in (("plain", PLAIN), (best.name, best.prompt))
        }
    base, *_ = found.values()
    for name, answers in found.items():
        tokens = sum(len(one.solutions[0].tokens) for one in answers) / len(answers)
        beside = AnswerPairs(base, answers).difference.text(1, 100)
        print(
            f"{name}: {right(answers).count('1')} of {len(answers)} in {tokens:.0f} tokens; {beside} points"
        )
    prompted = found[f"{best.name}, base"]
    for name in (f"{best.name}, adapted", "plain, adapted"):
        print(f"{name}, beside the prompt: {AnswerPairs(prompted, found[name]).difference.text(1, 100)}")
    if given.output:
        given.output.write_text(json.dumps({name: right(answers) for name, answers in found.items()}) + "\n")


if __name__ == "__main__":
    main()
