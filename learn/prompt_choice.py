"""The prompt that a base answers best with, among some that are measured on questions to learn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from zlib import crc32

from ..models.near_duplicates import masked_beginning
from ..models.rows import NUMBER, TrainingRow
from ..runtime.prompt.question_prompt import PLAIN, QuestionPrompt
from ..stats.intervals import PASSAGES_MIN
from .prompt_search import Candidate, candidates, given_examples, own_examples, search_prompt
from .questions import SEARCH, LearnRequest
from .rollouts import Sampler
from .time_plan import TimePlan, fitting_questions
from .tokenizer import open_tokenizer


@dataclass(frozen=True)
class PromptChoice:
    """A prompt, and what is left to learn with it.

    Attributes:
        ranked: all prompts that were measured, the best first; empty without a search.
        searched: the rows that this was done on.
        training: the rows to learn from: fewer with a long prompt, so that they take the same time.
    """

    best: Candidate
    ranked: Sequence[Candidate]
    searched: Sequence[TrainingRow]
    training: Sequence[TrainingRow]


def choose_prompt(
    request: LearnRequest,
    rows: Sequence[TrainingRow],
    plan: TimePlan,
    sampler: Sampler,
    announce: Callable[[str], None],
) -> PromptChoice:
    """Choose the prompt, if one is searched for and the plan has time for it."""
    if not plan.first:
        if request.prompt == SEARCH:
            announce("questions stay plain: there are too few, or too little time, to search for a prompt")
        return PromptChoice(request.given_prompt(), [], [], rows)
    if request.in_folds:  # whole groups first, so that few are not measured on
        groups = [masked_beginning(row.question) for row in rows]
        rows = sorted(rows, key=lambda row: groups.index(masked_beginning(row.question)))
    searched, others = rows[: plan.searched], rows[plan.searched :]
    best, ranked, prompt_tokens = _measure(searched, plan, sampler, announce)
    announce(f"best prompt: {best.text}")
    fitting = fitting_questions(request.minutes, plan, prompt_tokens, request.numbers)
    shown = {question for question, _ in best.prompt.examples}
    kept = [*others, *searched][: max(fitting, 2 * PASSAGES_MIN)]  # in folds only others are measured on
    return PromptChoice(best, ranked, searched, [row for row in kept if row.question not in shown])


def _measure(
    rows: Sequence[TrainingRow], plan: TimePlan, sampler: Sampler, announce: Callable[[str], None]
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
        with open_tokenizer(sampler.model) as tokenizer:
            examples = own_examples(sampler.answer_with_each(pool, "pool", [PLAIN])[0], tokenizer)
    else:
        examples = given_examples(pool)
    best, ranked, long = search_prompt(candidates(examples, form), measure, plan.first)
    if long:
        announce(f"left out, as they do not fit into the context: {', '.join(long)}")
    return best, ranked, tokens[best.prompt]
