"""The choice of a prompt by successive halving: all on few questions, the better half on twice as many.

K. Jamieson and A. Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, 2016
(arXiv 1502.07943). Gains of fine-tuning shrink beside the best prompt, so an adapter is learned on top of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import sqrt
from statistics import fmean
from zlib import crc32

from ..models.rows import JSON, NUMBER, TEXT, TrainingRow
from ..runtime.prompt.prompt_encoder import COMPLETION_STOP
from ..runtime.prompt.question_prompt import PLAIN, QuestionPrompt
from ..stats.intervals import PASSAGES_MIN
from .base_model import Tokenizer, open_tokenizer
from .questions import PLAIN_QUESTION, SEARCH, Candidate, LearnRequest, masked_beginning
from .rollouts import QuestionRollouts, Sampler
from .time_plan import ROUNDS, TimePlan, fitting_questions

_EXAMPLES = (1, 2, 4, 8)
_INSTRUCTIONS = {
    NUMBER: "Solve the problem step by step. Write each calculation as an equation, and use only the numbers "
    "that the question needs. End with one line: The answer is N.",
    TEXT: "Give the final answer alone, exactly in the form that is asked for, without any explanation.",
    JSON: "Answer with one JSON value alone, without any explanation.",
}
STEPS = "Let's think step by step."  # T. Kojima and others, arXiv 2205.11916
_BEGINS = {NUMBER: (STEPS, "The answer is"), TEXT: ("Answer:",), JSON: ("```json",)}


Rows = Sequence[TrainingRow]
# Of each candidate, whether the answers to questions, numbered from and to, are right; None if one does not
# fit the context.
Measure = Callable[[Sequence[Candidate], int, int], Sequence[Sequence[bool] | None]]


def choose_prompt(
    request: LearnRequest, rows: Rows, plan: TimePlan, sampler: Sampler, announce: Callable[[str], None]
) -> tuple[Candidate, Sequence[Candidate], Rows, Rows]:
    """Choose the prompt, if one is searched for and the plan has time for it.

    Returns:
        The prompt; all that were measured, the best first; the rows that this was done on; and the rows to
        learn from, which are fewer with a long prompt, so that they take the same time.
    """
    if not plan.first:
        if request.prompt == SEARCH:
            announce("questions stay plain: there are too few, or too little time, to search for a prompt")
        return request.given_prompt(), [], [], rows
    if request.in_folds:  # whole groups first, so that few are not measured on
        groups = [masked_beginning(row.question) for row in rows]
        rows = sorted(rows, key=lambda row: groups.index(masked_beginning(row.question)))
    searched, others = rows[: plan.searched], rows[plan.searched :]
    best, ranked, prompt_tokens = _measure(searched, plan, sampler, announce)
    announce(f"best prompt: {best.text}")
    fitting = fitting_questions(request.minutes, plan, prompt_tokens, request.numbers)
    shown = {question for question, _ in best.prompt.examples}
    kept = [*others, *searched][: max(fitting, 2 * PASSAGES_MIN)]  # in folds only others are measured on
    return best, ranked, searched, [row for row in kept if row.question not in shown]


def _measure(
    rows: Rows, plan: TimePlan, sampler: Sampler, announce: Callable[[str], None]
) -> tuple[Candidate, Sequence[Candidate], float]:
    """Choose the prompt on rows: returns it, all that were measured, and its mean tokens with a question."""
    pool, asked = rows[: plan.pool], rows[plan.pool :]
    tokens = dict[QuestionPrompt, float]()

    def measure(measured: Sequence[Candidate], start: int, stop: int) -> list[list[bool] | None]:
        prompts = [one.prompt for one in measured]
        key = crc32("".join(prompt.json for prompt in prompts).encode())
        answers = sampler.answer_with_each(asked[start:stop], f"prompts/{start}-{stop}-{key:08x}", prompts)
        right = list[list[bool] | None]()
        for prompt, some in zip(prompts, answers, strict=True):
            tokens[prompt] = fmean(one.prompt_tokens for one in some)
            too_long = prompt != PLAIN and any(one.error for one in some)
            right.append(None if too_long else [one.right > 0 for one in some])
        return right

    if (form := rows[0].form) == NUMBER:
        with open_tokenizer(sampler.plain.model) as tokenizer:
            examples = own_examples(sampler.answer_with_each(pool, "pool", [PLAIN])[0], tokenizer)
    else:
        examples = given_examples(pool)
    best, ranked, long = search_prompt(candidates(examples, form), measure, plan.first)
    if long:
        announce(f"left out, as they do not fit into the context: {', '.join(long)}")
    return best, ranked, tokens[best.prompt]


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
    """Choose a prompt: the first of those found, the plain question, or one that is clearly better.

    The first round has `first` questions; at most LAST times as many are asked. The plain question stays to
    the end, beside the better half of the others.

    Returns:
        The chosen one; all that were measured, the chosen one first; and the names of those that do not fit.
    """
    running, dropped, long = list(found), list[Candidate](), list[str]()
    start, stop = 0, first
    for _ in range(ROUNDS):
        measured = [*zip(running, measure(running, start, stop), strict=True)]
        long += [one.name for one, right in measured if right is None]
        plain, *others = [
            replace(one, right=one.right + sum(right), asked=stop)
            for one, right in measured
            if right is not None
        ]
        if not others:
            break
        others.sort(key=lambda one: -one.right)
        kept = -(-len(others) // 2)
        dropped = others[kept:] + dropped
        running, start, stop = [plain, *others[:kept]], stop, 2 * stop
    # The best of many on few questions is often lucky: beside the plain question, a prompt needs more than a
    # standard error (at most, that of right answers to half of the questions).
    margin = sqrt(plain.asked) / 2
    ahead = [one for one in others if one.right > plain.right + margin]
    behind = others[len(ahead) :]
    ranked = [*ahead, plain, *behind, *dropped]
    return ranked[0], ranked, long
