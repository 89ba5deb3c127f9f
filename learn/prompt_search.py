"""The choice of a prompt by successive halving: all on few questions, the better half on twice as many.

K. Jamieson and A. Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, 2016
(arXiv 1502.07943). Gains of fine-tuning shrink beside the best prompt, so an adapter is learned on top of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..models.near_duplicates import masked_beginning
from ..models.rows import JSON, NUMBER, TEXT, TrainingRow
from ..runtime.prompt.prompt_encoder import COMPLETION_STOP
from ..runtime.prompt.question_prompt import PLAIN, QuestionPrompt
from .rollouts import QuestionRollouts
from .tokenizer import Tokenizer

ROUNDS = 4  # nine candidates, five, three, two: on as many, as many, twice and four times as many questions
LAST = 1 << (ROUNDS - 1)  # questions that the winner has answered, in those of the first round
ANSWERS = 36  # in questions of the first round: 9 + 5 + 2 * 3 + 4 * 2, and LAST for the combination
POOL = 24  # questions whose right answers become worked examples
_EXAMPLES = (1, 2, 4, 8)
_INSTRUCTIONS = {
    NUMBER: "Solve the problem step by step. Write each calculation as an equation, and use only the numbers "
    "that the question needs. End with one line: The answer is N.",
    TEXT: "Give the final answer alone, exactly in the form that is asked for, without any explanation.",
    JSON: "Answer with one JSON value alone, without any explanation.",
}
STEPS = "Let's think step by step."  # T. Kojima and others, arXiv 2205.11916
_BEGINS = {NUMBER: (STEPS, "The answer is"), TEXT: ("Answer:",), JSON: ("```json",)}


@dataclass(frozen=True)
class Candidate:
    """A prompt with a name, and its right answers to the questions that it was measured on."""

    name: str
    prompt: QuestionPrompt
    right: int = 0
    asked: int = 0

    @property
    def text(self) -> str:
        """Its name and its right answers."""
        return f"{self.name} ({self.right} of {self.asked} right)" if self.asked else self.name


PLAIN_QUESTION = Candidate("the plain question", PLAIN)
# Of each candidate, whether the answers to questions, numbered from and to, are right; None if one does not
# fit the context.
Measure = Callable[[Sequence[Candidate], int, int], Sequence[Sequence[bool] | None]]


def candidates(examples: Sequence[tuple[str, str]], form: str = NUMBER) -> list[Candidate]:
    """The candidates for answers of a form, the simplest first: with equal right answers it wins."""
    return [
        PLAIN_QUESTION,
        Candidate("no system prompt", QuestionPrompt(system="")),
        Candidate("an instruction", QuestionPrompt(system=_INSTRUCTIONS[form])),
        *(Candidate(f"answers that begin {text!r}", QuestionPrompt(begin=text)) for text in _BEGINS[form]),
        *(
            Candidate(
                f"{count} worked example{'s' * (count > 1)}", QuestionPrompt(examples=(*examples[:count],))
            )
            for count in _EXAMPLES
            if count <= len(examples)
        ),
    ]


def given_examples(rows: Sequence[TrainingRow]) -> list[tuple[str, str]]:
    """Questions that begin differently with their given answers, as worked examples."""
    by_beginning = {masked_beginning(row.question): (row.question, row.answer) for row in rows}
    return [*by_beginning.values()][: _EXAMPLES[-1]]


def own_examples(answers: Sequence[QuestionRollouts], tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """The shortest right answers to questions that begin differently; without any, the given answers."""
    right = [one for one in answers if one.right]
    if not right:
        return [(one.question, f"The answer is {one.answer}.") for one in answers[: _EXAMPLES[-1]]]
    right.sort(key=lambda one: len(one.solutions[0].tokens))
    by_beginning = {masked_beginning(one.question): one for one in reversed(right)}
    chosen = [one for one in right if by_beginning[masked_beginning(one.question)] is one]
    texts = (tokenizer.text(one.solutions[0].tokens) for one in chosen)
    texts = (text.partition(COMPLETION_STOP)[0].strip() for text in texts)
    return [(one.question, text) for one, text in zip(chosen, texts, strict=True)][: _EXAMPLES[-1]]


def search_prompt(
    found: Sequence[Candidate], measure: Measure, first: int
) -> tuple[Candidate, list[Candidate], list[str]]:
    """Choose a prompt: the winner, or it with the best beginning of an answer if that is still better.

    The first round has `first` questions; at most LAST times as many are asked.

    Returns:
        The best one; all that were measured, the best first; and the names of those that do not fit.
    """
    running, ranked, long = list(found), list[Candidate](), list[str]()
    start, stop = 0, first
    for _ in range(ROUNDS):
        measured = [*zip(running, measure(running, start, stop), strict=True)]
        long += [one.name for one, right in measured if right is None]
        running = [
            replace(one, right=one.right + sum(right), asked=stop)
            for one, right in measured
            if right is not None
        ]
        running.sort(key=lambda one: -one.right)
        kept = -(-len(running) // 2)
        ranked = running[kept:] + ranked
        if stop == first * LAST or len(running) == 1:
            break
        running, start, stop = running[:kept], stop, 2 * stop
    ranked = running[:kept] + ranked
    best, begins = ranked[0], [one for one in ranked if one.prompt.begin]
    others = [one for one in ranked if not one.prompt.begin]
    if begins and others and others[0].prompt != PLAIN:
        prompt = replace(others[0].prompt, begin=begins[0].prompt.begin)
        both = Candidate(f"{others[0].name}, {begins[0].name}", prompt, asked=best.asked)
        if (right := measure([both], 0, best.asked)[0]) is None:
            long.append(both.name)
        else:
            both = replace(both, right=sum(right))
            ranked.insert(0 if both.right > best.right else 1, both)
    return ranked[0], ranked, long
