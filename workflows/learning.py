"""Learning from questions with known answers, in one run: from a request to an adapter with its card.

The prompt that the base answers best with is chosen first. The model samples solutions. A step of the natural
policy gradient makes the right ones likelier. What it
changed is measured on questions that were set aside. Each part has a journal, from which a run resumes.
"""

import hashlib
import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any
from zlib import crc32

import numpy as np

from ..convert.adapter.adapter import WEIGHTS_FILE
from ..convert.adapter.basis import Basis
from ..convert.adapter.export import export_adapter
from ..convert.adapter.short_code import ShortCode, basis_fingerprint, encode_short_code, round_to_bfloat16
from ..convert.adapter.tinylora_folder import write_tinylora_folder
from ..convert.source_ids import SourceIds
from ..errors import OptionError, RequestError
from ..files.atomic_write import write_file
from ..files.hashing import file_sha256
from ..files.journal import Journal
from ..files.output import check_folder
from ..files.processors import multiplies_bf16
from ..files.progress import QUIET, Run
from ..files.received_files import PROMPT_FILE
from ..files.temporary_folder import temporary_folder
from ..learn.base_model import check_base, check_packages, load_base_model
from ..learn.cards import check_card, learn_card, refuse_base_folder, write_card
from ..learn.examples import encode_sampled
from ..learn.learn_result import HeldOutAnswers, LearnedNumbers, LearnResult
from ..learn.natural_gradient import KL, NaturalStep, SampledScores, natural_step
from ..learn.prompt_search import Candidate, candidates, given_examples, own_examples, search_prompt
from ..learn.rollouts import ROLLOUTS, QuestionRollouts, SampledRow, advantage_rows
from ..learn.sample_rollouts import SLOTS, TEMPERATURE, RolloutSettings, sample_rollouts
from ..learn.solution_scores import solution_scores
from ..learn.time_plan import FIRST, Speed, TimePlan, fitting_questions, measure_speed, plan_time
from ..learn.tokenizer import open_tokenizer
from ..learn.vote_labels import label_by_votes
from ..models.base import resolve_base
from ..models.basis import find_basis
from ..models.near_duplicates import masked_beginning, without_near_duplicates
from ..models.rows import NUMBER, TrainingRow
from ..runtime.batch.reproducible_batches import ENGINE, BatchJob, GenerationSettings
from ..runtime.effort import Effort
from ..runtime.machine.threads import default_threads
from ..runtime.plan.options import EngineOptions
from ..runtime.prompt.question_prompt import PLAIN, QuestionPrompt
from ..runtime.request import SEED_MAX, Sampling
from ..stats.bootstrap import PASSAGES_MIN
from .converted_models import trimmed_model
from .default_model import NAME
from .learn_request import ALL, DEFAULT, SEARCH, LearnRequest, beginnings
from .model_files import resolve

VOTES_SHARE = 0.25  # of the time, where votes take the place of answers
LORA_FILE, PLAN_FILE = "adapter.gguf", ".learn.jsonl"
_PROMPT_TOKENS = 512  # at most
_LONGER = 3  # times as many with a prompt around the question


def run_learn(
    request: LearnRequest,
    command: str = "",
    run: Run = QUIET,
    announce: Callable[[str], None] = lambda message: None,
) -> LearnResult:
    """Learn an adapter, measure it, and write it with its card and as a GGUF LoRA.

    Where a prompt is a certain gain and leaves too little to learn, it is written with a card alone.

    Args:
        request: what to learn.
        command: the command line, for the card.
        run: how it runs.
        announce: called with lines on what will be done, and how long it takes.

    Raises:
        ThirteenError: an input is invalid, too few questions are sometimes right, the output cannot be
            written, or it belongs to another run.
    """
    began = time.monotonic()
    request.check()
    prompt = request.given_prompt()
    check_packages()
    check_folder(request.output)
    check_card(request.output, PLAN_FILE)
    training, held_out = request.read_questions()
    learning = _set_up(request, prompt.prompt, run, announce)
    plan, speed = learning.plan(training, held_out)
    announce(
        f"{plan.questions} questions to learn from and {plan.held_out} to measure on: about "
        f"{plan.minutes:.0f} minutes, less what an earlier run has done"
    )
    more = "questions" if plan.questions == len(training) else "minutes"
    training, held_out = training[: plan.questions], held_out[: plan.held_out]
    if request.without_answers:
        training, held_out = learning.label(training, held_out)
        announce(f"the votes agree on {len(training)} questions to learn from, {len(held_out)} to measure on")
        plan = plan.limited(len(training), request.search_share)
    in_folds = request.held_out == ALL
    prompt, ranked, searched, training = learning.choose_prompt(prompt, training, (plan, speed), announce)
    learning = replace(learning, prompt=prompt.prompt)
    prompt = replace(prompt, prompt=learning.asked)
    measured = without_near_duplicates(training, searched) if in_folds else held_out
    if beginnings(measured) < PASSAGES_MIN:
        reason = f"leaves {len(measured)} questions to measure on: too few that begin differently"
        raise OptionError("prompt", reason, request.prompt)
    questions = learning.sample(training)
    mixed = [question for question in questions if question.sometimes_right]
    never = sum(not question.right for question in questions)
    if beginnings(mixed) < PASSAGES_MIN:
        problem = _too_few(request, len(questions), len(mixed), never, more)
        learned, held = None, learning.measure_prompt(prompt, measured, problem)
        announce(problem)
    else:
        learned, held = learning.learn(training, questions, mixed, measured)
    result = LearnResult(
        base_id=learning.base_id,
        asked=len(training),
        sometimes_right=len(mixed),
        never_right=never,
        learned=learned,
        max_tokens=request.max_tokens,
        prompt=prompt,
        ranked=ranked,
        searched=len(searched),
        votes=request.without_answers,
        votes_measure=request.without_answers and (in_folds or request.share is not None),
        in_folds=in_folds,
        held_out=held,
        minutes=(time.monotonic() - began) / 60,
    )
    _refuse_fall(request, result)
    write_card(
        request.output,
        learn_card(result, request.model, request.output.resolve().name, command, request.questions.name),
    )
    return result


def _set_up(
    request: LearnRequest, prompt: QuestionPrompt, run: Run, announce: Callable[[str], None]
) -> "_Learning":
    """Find the base with its basis and its smaller vocabulary, and how it is asked.

    Raises:
        ThirteenError: the base cannot be learned on.
    """
    model = NAME if request.model == "embedded" else request.model  # not with its adapter
    full = resolve(model, run=run, announce=announce).model
    refuse_base_folder(request.output, full)
    check_base(full)
    base = resolve_base(request.model, original=True)
    basis = find_basis(base, run, numbers=request.numbers)
    with open_tokenizer(full) as tokenizer:
        think, completes = False if tokenizer.thinks else None, not tokenizer.encoder.template_source
    if think is False:
        announce("the model can think: it is asked, and learns to answer, without a thought")
    trimmed = trimmed_model(full, run)
    return _Learning(request, base.trained_id, full, trimmed, basis, run, prompt, think, completes)


def _refuse_fall(request: LearnRequest, result: LearnResult) -> None:
    """Keep no adapter that learned from votes with fewer right answers than the base.

    Raises:
        RequestError: it has.
    """
    _, before, after = result.held_out.right
    if not result.votes or result.votes_measure or after >= before:
        return
    for name in (LORA_FILE, WEIGHTS_FILE):
        (request.output / name).unlink(missing_ok=True)
    raise RequestError(
        f"learning from votes stopped: of {len(result.held_out.base)} questions with answers {before} were "
        f"right before the step and {after} after it; no adapter is kept"
    )


def _too_few(request: LearnRequest, asked: int, mixed: int, never: int, more: str) -> str:
    advice = "easier questions or longer solutions" if 2 * never > asked else "harder questions"
    return (
        f"{request.questions}: {mixed} of {asked} questions have right and wrong solutions, {never} have no "
        f"right one; at least {PASSAGES_MIN} that begin differently are needed: give more {more}, or {advice}"
    )


@dataclass(frozen=True)
class _Learning:
    """The parts of a run; each has a journal in the output folder."""

    request: LearnRequest
    base_id: str
    full: Path
    model: Path  # with a smaller vocabulary: it is faster, and has the same adapters
    basis: Basis
    run: Run
    prompt: QuestionPrompt
    think: bool | None = None  # False for a model that can: a thought takes all the tokens of a solution
    completes: bool = False  # a base without a chat template is asked after worked examples

    @property
    def asked(self) -> QuestionPrompt:
        """How questions are asked."""
        return replace(self.prompt, think=self.think)

    @property
    def minutes(self) -> float:
        """The limit, without the votes."""
        return self.request.minutes * (1 - VOTES_SHARE * self.request.without_answers)

    @property
    def threads(self) -> int:
        """Number of threads that compute."""
        return self.run.threads or default_threads()

    @property
    def context(self) -> int:
        """Tokens of the context of an answer: the same without a prompt as with one."""
        plain = self.request.prompt == DEFAULT and not self.completes
        return _PROMPT_TOKENS * (1 if plain else _LONGER) + self.request.max_tokens

    def job(
        self,
        samples: int,
        seed: int = 0,
        adapter: Path | None = None,
        prompts: Sequence[QuestionPrompt] | None = None,
    ) -> BatchJob:
        """Several samples a question, or a greedy answer; after other prompts in turn."""
        settings = RolloutSettings(
            solutions=samples,
            sampling=Sampling(TEMPERATURE, seed=seed) if samples > 1 else Sampling(),
            max_tokens=self.request.max_tokens,
            prompts=tuple(replace(prompt, think=self.think) for prompt in prompts or [self.prompt]),
        )
        engine = ENGINE | EngineOptions(slots=SLOTS, context=self.context)
        return BatchJob(self.model, adapter, settings, self.threads, engine)

    def journal(self, name: str) -> Path:
        """A journal in the output folder."""
        return self.request.output / f".{name}.jsonl"

    def plan(
        self, training: Sequence[TrainingRow], held_out: Sequence[TrainingRow]
    ) -> tuple[TimePlan, Speed]:
        """Choose the questions by the time they take: once, so that a resumed run has the same ones."""
        request = self.request
        identity = {
            "model_sha256": file_sha256(self.full),
            "questions_sha256": _sha256([astuple(row) for row in (*training, *held_out)]),
            "numbers": request.numbers,
            "minutes": request.minutes,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
            "threads": self.threads,
            **({} if request.prompt == DEFAULT else {"prompt": request.prompt}),
            **({"without_answers": True} if request.without_answers else {}),
        }
        with Journal(self.request.output / PLAN_FILE, identity, "learn") as journal:
            if not journal.entries:
                speed = measure_speed(self.job(FIRST), [row.question for row in training])
                plan = plan_time(
                    self.minutes,
                    questions=len(training),
                    held_out=len(held_out),
                    speed=speed,
                    search=request.search_share,
                    prompt=self.prompt != PLAIN,
                )
                journal.record({"plan": astuple(plan), "speed": astuple(speed)})
                return plan, speed
            return _read_plan(journal)

    def choose_prompt(
        self,
        given: Candidate,
        rows: Sequence[TrainingRow],
        planned: tuple[TimePlan, Speed],
        announce: Callable[[str], None],
    ) -> tuple[Candidate, list[Candidate], list[TrainingRow], list[TrainingRow]]:
        """Choose the prompt, if one is searched for.

        Returns:
            The prompt, all that were measured, the rows that this was done on, and those to learn from: fewer
            with a long prompt, so that they take the same time.
        """
        (plan, speed), request = planned, self.request
        if not plan.first:
            if request.prompt == SEARCH:
                announce(
                    "questions stay plain: there are too few, or too little time, to search for a prompt"
                )
            return given, [], [], [*rows]
        if request.held_out == ALL:  # whole groups first, so that few are not measured on
            groups = [masked_beginning(row.question) for row in rows]
            rows = sorted(rows, key=lambda row: groups.index(masked_beginning(row.question)))
        best, ranked, prompt_tokens = self.search_prompt(rows[: plan.searched], plan, announce)
        announce(f"best prompt: {best.text}")
        fitting = fitting_questions(self.minutes, plan, speed, prompt_tokens, request.numbers)
        shown = {question for question, _ in best.prompt.examples}
        later_first = [*rows[plan.searched :], *rows[: plan.searched]]  # in folds only those are measured on
        kept = later_first[: max(fitting, 2 * PASSAGES_MIN)]
        training = [row for row in kept if row.question not in shown]
        return best, ranked, [*rows[: plan.searched]], training

    def search_prompt(
        self, rows: Sequence[TrainingRow], plan: TimePlan, announce: Callable[[str], None]
    ) -> tuple[Candidate, list[Candidate], float]:
        """Choose the prompt on rows: returns it, all that were measured, and the mean tokens with it."""
        pool, asked = rows[: plan.pool], rows[plan.pool :]
        tokens = dict[QuestionPrompt, float]()

        def answers(
            name: str, prompts: Sequence[QuestionPrompt], some: Sequence[TrainingRow]
        ) -> list[QuestionRollouts]:
            repeated = [row for row in some for _ in prompts]
            stage = self.run.stage(f"{len(prompts)} prompt{'s' * (len(prompts) > 1)}")
            job = self.job(1, prompts=prompts)
            return sample_rollouts(job, repeated, self.journal(name), stage, optional=True)

        def measure(measured: Sequence[Candidate], start: int, stop: int) -> list[list[bool] | None]:
            prompts = [one.prompt for one in measured]
            names = "".join(prompt.json for prompt in prompts)
            name = f"prompts/{start}-{stop}-{crc32(names.encode()):08x}"
            answered = answers(name, prompts, asked[start:stop])
            right = list[list[bool] | None]()
            for number, prompt in enumerate(prompts):
                some = answered[number :: len(prompts)]
                tokens[prompt] = fmean(one.prompt_tokens for one in some)
                too_long = prompt != PLAIN and any(one.error for one in some)
                right.append(None if too_long else [one.right > 0 for one in some])
            return right

        if (form := rows[0].form) == NUMBER:
            with open_tokenizer(self.model) as tokenizer:
                examples = own_examples(answers("pool", [PLAIN], pool), tokenizer)
        else:
            examples = given_examples(pool)
        best, ranked, long = search_prompt(candidates(examples, form), measure, plan.first)
        if long:
            announce(f"left out, as they do not fit into the context: {', '.join(long)}")
        return best, ranked, tokens[best.prompt]

    def label(
        self, training: Sequence[TrainingRow], held_out: Sequence[TrainingRow]
    ) -> tuple[list[TrainingRow], list[TrainingRow]]:
        """The questions on whose answer votes agree, with it; those of a file to measure on keep theirs.

        Raises:
            RequestError: there are too few.
        """
        job = self.job(1, self.request.seed)
        settings = GenerationSettings(
            effort=Effort.HIGH,
            max_tokens=self.request.max_tokens,
            sampling=Sampling(seed=self.request.seed),
            think=self.think,
        )
        engine = job.engine | EngineOptions(context=_PROMPT_TOKENS * _LONGER + self.request.max_tokens)
        job, stage = replace(job, settings=settings, engine=engine), self.run.stage("votes")
        kept = label_by_votes(job, training, self.journal("votes"), stage)
        held = [*held_out]
        if self.request.held_out == ALL:
            held = kept
        elif self.request.share is not None:
            held = label_by_votes(job, held_out, self.journal("votes-held-out"), stage)
        if min(map(beginnings, (kept, held))) < PASSAGES_MIN:
            raise RequestError(
                f"{self.request.questions}: votes agree on {len(kept)} of {len(training)} questions to learn "
                f"from and {len(held)} of {len(held_out)} to measure on; at least {PASSAGES_MIN} each that "
                "begin differently are needed: give more questions, or easier ones"
            )
        return kept, held

    def learn(
        self,
        training: Sequence[TrainingRow],
        questions: Sequence[QuestionRollouts],
        mixed: Sequence[QuestionRollouts],
        measured: Sequence[TrainingRow],
    ) -> tuple[LearnedNumbers, HeldOutAnswers]:
        """Write an adapter that was learned from questions with their first solutions, and measure it.

        More solutions are sampled to `mixed`, the questions that have right and wrong ones.
        """
        rows = advantage_rows([*questions, *self.sample_more(training, mixed)])
        scores = self.scores(rows, training)
        step = natural_step(scores, KL, self.request.seed)
        adapter = self.write(step, self.request.output)
        numbers, basis = step.numbers.astype(np.float32), self.basis.origin
        code = encode_short_code(ShortCode(basis.name, basis_fingerprint(basis.id), numbers))
        learned = LearnedNumbers(code, basis.id, len(numbers), len(rows), step.damping, step.gain)
        if self.request.held_out == ALL:
            return learned, self.measure_in_folds(measured, scores)
        return learned, HeldOutAnswers(
            *self.without_adapter(measured), self.answers(measured, "adapted", adapter)
        )

    def sample(self, rows: Sequence[TrainingRow]) -> list[QuestionRollouts]:
        """Sample the first solutions."""
        job = self.job(FIRST, self.request.seed)
        return sample_rollouts(job, rows, self.journal("rollouts"), self.run.stage("solutions"))

    def sample_more(
        self, rows: Sequence[TrainingRow], mixed: Sequence[QuestionRollouts]
    ) -> list[QuestionRollouts]:
        """Sample more solutions to the questions that have right and wrong ones."""
        seed = (self.request.seed + FIRST) % (SEED_MAX + 1)
        job = self.job(FIRST, seed).decided(self.journal("rollouts"), ROLLOUTS)
        asked = [rows[one.number] for one in mixed]
        return sample_rollouts(job, asked, self.journal("rollouts-2"), self.run.stage("more solutions"))

    def scores(self, rows: Sequence[SampledRow], asked: Sequence[TrainingRow]) -> SampledScores:
        """The gradients of the solutions to the questions asked."""
        identity = {
            "model_sha256": file_sha256(self.model),
            "basis": self.basis.origin.id,
            "solutions_sha256": _sha256([astuple(row) for row in rows]),
            "bf16": multiplies_bf16(),
            "threads": self.threads,
        }
        calculator = self.job(FIRST).settings.calculator
        with open_tokenizer(self.model, self.context) as tokenizer:
            examples = [encode_sampled(tokenizer, row, self.asked, calculator=calculator) for row in rows]
        with Journal(self.journal("scores"), identity, "scores") as journal:
            model = load_base_model(self.model, bf16=multiplies_bf16(), threads=self.threads)
            scores = solution_scores(model, self.basis, examples, journal, self.run)
        return SampledScores(
            scores=scores,
            advantages=np.array([row.weight for row in rows]),
            groups=np.array([masked_beginning(row.question) for row in rows]),
            tokens=np.array([float(example.answer_tokens) for example in examples]),
            asked=np.array([masked_beginning(row.question) for row in asked]),
        )

    def write(self, step: NaturalStep, folder: Path) -> Path:
        """Write an adapter as a PEFT folder with its GGUF LoRA; returns the latter."""
        lora, numbers = folder / LORA_FILE, round_to_bfloat16(step.numbers.astype(np.float32))
        write_tinylora_folder(self.basis, numbers, folder, self.base_id)
        self.write_prompt(folder)
        export_adapter(folder, self.full, lora, ids=SourceIds(self.base_id, "learned"))
        return lora

    def write_prompt(self, folder: Path) -> None:
        """Write how questions are asked, unless they are asked plainly."""
        if self.asked != PLAIN:
            write_file(folder / PROMPT_FILE, self.asked.json.encode())

    def measure_prompt(self, prompt: Candidate, rows: Sequence[TrainingRow], problem: str) -> HeldOutAnswers:
        """Keep a prompt that leaves too little to learn, and measure it.

        Raises:
            RequestError: the problem, if the prompt is no certain gain.
        """
        if self.prompt == PLAIN:
            raise RequestError(problem)
        base, prompted = self.without_adapter(rows)
        held = HeldOutAnswers(base, prompted, prompted)
        self.write_prompt(self.request.output)
        if held.of_prompt.difference.low <= 0:
            before, after, _ = held.right
            raise RequestError(
                f"{problem}. The prompt is kept, {prompt.name}, but is no certain gain: of {len(rows)} other "
                f"questions the base has {before} right without it and {after} with it"
            )
        return held

    def without_adapter(
        self, rows: Sequence[TrainingRow]
    ) -> tuple[list[QuestionRollouts], list[QuestionRollouts]]:
        """The base's answers, without and with the prompt."""
        base = replace(self, prompt=PLAIN).answers(rows, "base")
        return base, base if self.prompt == PLAIN else self.answers(rows, "prompted")

    def measure_in_folds(self, rows: Sequence[TrainingRow], scores: SampledScores) -> HeldOutAnswers:
        """Answer all questions with the base and with adapters of other questions.

        Each fifth is answered with an adapter that was learned from the other four, in which nothing is a
        near-duplicate of it.
        """
        without, adapted = self.without_adapter(rows), dict[str, QuestionRollouts]()
        measured = np.array([masked_beginning(row.question) for row in rows])
        for number, (part, others) in enumerate(scores.folds(self.request.seed, measured), 1):
            asked = [row for row in rows if masked_beginning(row.question) in part]
            with temporary_folder("fold-") as folder:
                adapter = self.write(natural_step(others, KL, self.request.seed), folder)
                answers = self.answers(asked, f"adapted-{number}", adapter)
            adapted |= {one.question: one for one in answers}
        return HeldOutAnswers(*without, [adapted[row.question] for row in rows])

    def answers(
        self, rows: Sequence[TrainingRow], name: str, adapter: Path | None = None
    ) -> list[QuestionRollouts]:
        """Greedy answers, with the same settings as those of the base."""
        job = self.job(1, adapter=adapter).decided(self.journal("base"), ROLLOUTS)
        return sample_rollouts(job, rows, self.journal(name), self.run.stage(name))


def _read_plan(journal: Journal) -> tuple[TimePlan, Speed]:
    """The plan of an earlier run, and its speed."""
    try:
        questions, held_out, minutes, first = journal.entries[0]["plan"]
        questions, held_out, first = map(operator.index, (questions, held_out, first))
        speed = Speed(*map(float, journal.entries[0]["speed"]))
        return TimePlan(questions, held_out, float(minutes), first), speed
    except (KeyError, TypeError, ValueError):
        raise RequestError(f"{journal.path}: line 2: not a plan") from None


def _sha256(rows: Sequence[tuple[Any, ...]]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()
