"""How many questions fit into a number of minutes, from a few seconds of sampling."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from time import perf_counter

from ..errors import OptionError
from ..files.processors import multiplies_bf16
from ..runtime.answer import Answer, StopReason
from ..runtime.batch.reproducible_batches import BatchJob, BatchSettings
from ..runtime.engine.engine import Engine
from ..runtime.engine.majority_vote import sample_requests
from ..runtime.options import MAX_TOKENS
from ..stats.intervals import PASSAGES_MIN
from .rollouts import FIRST, SLOTS

# The search of a prompt, in questions of its first round: what the winner has answered, and what is asked.
# Nine candidates, five, three and two answer as many questions, as many, twice and four times as many.
ROUNDS = 4
LAST = 1 << (ROUNDS - 1)
ANSWERS = 9 + 5 + 2 * 3 + 4 * 2
POOL = 24  # questions whose right answers become worked examples
_PROBED_TOKENS = 24
# Of SVAMP with Qwen2.5-Coder-0.5B: solutions take 64 % of 300 tokens, and 46 % of the questions have right
# and wrong ones among the first four.
_LENGTH, _MIXED = 0.64, 0.46
# Seconds of a token's gradient by PyTorch, in those of a sampled one: products of matrices take most of both.
_GRADIENT, _GRADIENT_FLOAT32 = 1.0, 1.8
# Seconds of a pass for a number, in those of a gradient in as many tokens; see solution_scores.py.
PASS_COST = 2.0
_SEARCH = 0.2  # of the time, for the search of a prompt
_FIRST_MIN = 4  # questions of its first round: with fewer it chooses by chance


@dataclass(frozen=True)
class Speed:
    """Speed of a model while many solutions are sampled, in seconds a token, and mean tokens."""

    sampled_s: float
    prompt_s: float
    prompt_tokens: float
    answer_tokens: float

    @property
    def answer_s(self) -> float:
        """Expected seconds for an answer."""
        return self.prompt_tokens * self.prompt_s + self.answer_tokens * self.sampled_s

    @property
    def question_s(self) -> float:
        """Expected seconds to sample solutions to a question, and to compute their gradients."""
        gradients_s = 2 * FIRST * _MIXED * (self.prompt_tokens + self.answer_tokens) * self.gradient_s
        prompt_s = self.prompt_tokens * self.prompt_s  # once for all solutions
        return gradients_s + (1 + _MIXED) * (prompt_s + FIRST * self.answer_tokens * self.sampled_s)

    @property
    def gradient_s(self) -> float:
        """Expected seconds for a token's gradient."""
        return self.sampled_s * (_GRADIENT if multiplies_bf16() else _GRADIENT_FLOAT32)


@dataclass(frozen=True)
class TimePlan:
    """The questions of a run; on `first` of them each prompt is measured first, 0 without a search."""

    speed: Speed
    questions: int
    held_out: int
    minutes: float
    first: int = 0

    @property
    def pool(self) -> int:
        """Number of the questions whose right answers become worked examples."""
        return min(POOL, self.questions // 4) if self.first else 0

    @property
    def searched(self) -> int:
        """Number of the questions that the prompt is chosen on, the pool included: the first ones."""
        return self.pool + self.first * LAST


def measure_speed(job: BatchJob, questions: Sequence[str]) -> Speed:
    """Compute some prompts, then sample the beginnings of solutions to them.

    Raises:
        ThirteenError: the model cannot be loaded, or no question can be asked.
    """
    asked = sorted(questions, key=len)[: SLOTS // job.settings.rule.answers]
    with job.load_engine() as engine:
        prompts_s, first = _ask(engine, _limited(job.settings, 1), asked)
        prompt_s = prompts_s / _computed(first)
        elapsed_s, answers = _ask(engine, _limited(job.settings, _PROBED_TOKENS), asked)
    # Most prompts are in the prefix cache now. The first ones also waited for the weights from disk.
    answers_s = max(elapsed_s - _computed(answers) * prompt_s, elapsed_s / 2)
    tokens = sum(answer.usage.completion_tokens for answer in answers)
    ended = sum(answer.stop_reason is not StopReason.LENGTH for answer in answers)
    prompt_tokens = fmean(answer.usage.prompt_tokens for answer in answers)
    prompt_tokens *= fmean(map(len, questions)) / fmean(map(len, asked))  # of questions of mean length
    answer_tokens = min(tokens / max(ended, 1), _LENGTH * (job.settings.options.max_tokens or MAX_TOKENS))
    return Speed(answers_s / tokens, prompt_s, prompt_tokens, answer_tokens)


def _ask(engine: Engine, settings: BatchSettings, questions: Sequence[str]) -> tuple[float, list[Answer]]:
    """Ask all at once; the seconds that it took, and the answers."""
    asking = [settings.request(engine, text) for text in questions]
    requests = [one for request in asking for one in sample_requests(request, settings.rule)]
    began = perf_counter()
    answers = [handle.answer() for handle in engine.submit_all(requests, wait=True)]
    return perf_counter() - began, answers


def _limited(settings: BatchSettings, max_tokens: int) -> BatchSettings:
    return replace(settings, options=replace(settings.options, max_tokens=max_tokens))


def _computed(answers: Sequence[Answer]) -> int:
    return sum(answer.usage.prompt_tokens - answer.usage.cached_tokens for answer in answers)


def fitting_questions(minutes: float, plan: TimePlan, longer: float, numbers: int) -> int:
    """How many of the planned questions fit into the same limit with a longer prompt, of so many tokens.

    The added tokens are computed once for each of the numbers, or else again for each solution.
    """
    speed = plan.speed
    added = max(longer - speed.prompt_tokens, 0)
    left_s = minutes * 60 * (1 - _SEARCH) - 3 * plan.held_out * speed.answer_s
    again = left_s / replace(speed, prompt_tokens=speed.prompt_tokens + added).question_s
    once = (left_s - numbers * added * PASS_COST * speed.gradient_s) / speed.question_s
    return min(plan.questions, round(max(again, once)))


def plan_time(  # noqa: PLR0913 - the last two are of a prompt
    minutes: float, speed: Speed, *, questions: int, held_out: int, search: float = 0, prompt: bool = False
) -> TimePlan:
    """Plan a run that takes so many minutes at most: of both kinds of questions the same share.

    Args:
        minutes: the limit.
        speed: of the model.
        questions: number of questions to learn from.
        held_out: number of questions to measure on.
        search: share of the questions to learn from that a prompt may be chosen on; 0 for no search.
        prompt: whether one is given.

    Raises:
        OptionError: fewer than 10 questions of a kind fit.
    """
    answers = 3 if search or prompt else 2  # to a question that is held out
    needed = (questions * speed.question_s + answers * held_out * speed.answer_s) / 60
    left = 1 - _SEARCH * bool(search)  # of the time, by the search of a prompt
    share = min(1.0, minutes * left / needed)
    least = PASSAGES_MIN / min(questions, held_out)
    if share < least:
        reason = f"{PASSAGES_MIN} questions of each kind take about {needed * least / left:.1f} minutes"
        raise OptionError("minutes", f"too few for this machine: {reason}", f"{minutes:g}")
    plan = TimePlan(speed, round(questions * share), round(held_out * share), needed * share)
    if not search:
        return plan
    in_time = minutes * 60 * _SEARCH / speed.answer_s  # answers
    spare = plan.questions * search - min(POOL, plan.questions // 4)
    first = min(int((in_time - POOL) / ANSWERS), int(spare / LAST))
    if first < _FIRST_MIN:
        return plan
    plan = replace(plan, first=first)
    search_s = (first * ANSWERS + plan.pool) * speed.answer_s
    return replace(plan, minutes=plan.minutes + search_s / 60)
