"""Learning from questions with known answers, in one run: from a request to an adapter, measured.

The prompt that the base answers best with is chosen first. The model samples solutions. A step of the natural
policy gradient makes the right ones likelier. What it changed is measured on questions that were set aside.
Each part has a journal, from which a run resumes.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..convert.adapter.basis import Basis, write_tinylora_folder
from ..convert.adapter.export import export_adapter
from ..convert.adapter.short_code import ShortCode, basis_fingerprint, encode_short_code, round_to_bfloat16
from ..errors import OptionError, RequestError
from ..files.cache_folder import temporary_folder
from ..files.journal import Journal
from ..files.json_file import from_json
from ..files.output import write_file
from ..files.processors import multiplies_bf16
from ..files.progress import QUIET, Run
from ..files.received_files import PROMPT_FILE, file_sha256
from ..runtime.batch.reproducible_batches import ENGINE, BatchJob
from ..runtime.machine import default_threads
from ..runtime.options import SEED_MAX, Options
from ..runtime.prompt.question_prompt import PLAIN, QuestionPrompt
from ..stats.intervals import PASSAGES_MIN
from .base_model import load_base_model, open_tokenizer
from .examples import encode_sampled
from .learn_result import HeldOutAnswers, LearnedNumbers, LearnResult
from .natural_gradient import KL, NaturalStep, SampledScores, natural_step
from .prompt_search import Rows, choose_prompt
from .questions import DEFAULT, LearnRequest, beginnings, masked_beginning, without_near_duplicates
from .rollouts import FIRST, SLOTS, QuestionRollouts, RolloutSettings, SampledRow, Sampler, advantage_rows
from .solution_scores import solution_scores
from .time_plan import TimePlan, measure_speed, plan_time

LORA_FILE, PLAN_FILE = "adapter.gguf", ".learn.jsonl"
_PROMPT_TOKENS = 512  # at most
_LONGER = 3  # times as many with a prompt around the question


@dataclass(frozen=True)
class LearnBase:
    """The base to learn on.

    Attributes:
        id: its name in the adapter.
        full: its GGUF.
        trimmed: the same with a smaller vocabulary: it is faster, and has the same adapters.
    """

    id: str
    full: Path
    trimmed: Path
    basis: Basis


def learn(
    request: LearnRequest,
    questions: tuple[Rows, Rows],
    base: LearnBase,
    run: Run = QUIET,
    announce: Callable[[str], None] = lambda message: None,
) -> LearnResult:
    """Learn an adapter, measure it, and write it as a PEFT folder and as a GGUF LoRA.

    Where a prompt is a certain gain and leaves too little to learn, it is written alone.

    Args:
        request: what to learn.
        questions: those of the request to learn from, and to measure on.
        base: what to learn on.
        run: how it runs.
        announce: called with lines on what will be done, and how long it takes.

    Raises:
        ThirteenError: too few questions are sometimes right, the output cannot be written, or it belongs to
            another run.
    """
    began = time.monotonic()
    sampler = _sampler(request, base, run, announce)
    plan = _plan(request, questions, base, sampler)
    announce(
        f"{plan.questions} questions to learn from and {plan.held_out} to measure on: about "
        f"{plan.minutes:.0f} minutes, less what an earlier run has done"
    )
    training, held_out = questions[0][: plan.questions], questions[1][: plan.held_out]
    best, ranked, searched, training = choose_prompt(request, training, plan, sampler, announce)
    measured = without_near_duplicates(training, searched) if request.in_folds else held_out
    _check_measured(request, measured, all_fit=plan.questions == len(questions[0]))
    learning = _Learning(request, base, sampler, best.prompt)
    asked = sampler.sample(training, "rollouts", "solutions", best.prompt, request.seed)
    mixed = [question for question in asked if question.sometimes_right]
    never = sum(not question.right for question in asked)
    if beginnings(mixed) < PASSAGES_MIN:
        more = "questions" if plan.questions == len(questions[0]) else "minutes and a new output folder"
        problem = _too_few(request, len(asked), len(mixed), never, more)
        learned, held = None, learning.measure_prompt(measured, best.name, problem)
        announce(problem)
    else:
        learned, held = learning.learn(training, asked, mixed, measured)
    return LearnResult(
        base_id=base.id,
        asked=len(asked),
        sometimes_right=len(mixed),
        never_right=never,
        learned=learned,
        max_tokens=request.max_tokens,
        prompt=replace(best, prompt=sampler.asked(best.prompt)),
        ranked=ranked,
        searched=len(searched),
        in_folds=request.in_folds,
        held_out=held,
        minutes=(time.monotonic() - began) / 60,
    )


def _check_measured(request: LearnRequest, measured: Rows, *, all_fit: bool) -> None:
    if beginnings(measured) < PASSAGES_MIN:
        name, value = ("prompt", request.prompt) if all_fit else ("minutes", request.minutes)
        reason = f"leaves {len(measured)} questions to measure on: too few that begin differently"
        raise OptionError(name, reason, value)


def _sampler(request: LearnRequest, base: LearnBase, run: Run, announce: Callable[[str], None]) -> Sampler:
    with open_tokenizer(base.full) as tokenizer:
        think, completes = False if tokenizer.thinks else None, not tokenizer.encoder.template_source
    if think is False:
        announce("the model can think: it is asked, and learns to answer, without a thought")
    # A base without a chat template is asked after worked examples.
    times = 1 if request.prompt == DEFAULT and not completes else _LONGER
    engine = replace(ENGINE, slots=SLOTS, context=times * _PROMPT_TOKENS + request.max_tokens)
    settings = RolloutSettings(options=Options(max_tokens=request.max_tokens))
    plain = BatchJob(base.trimmed, None, settings, run.threads or default_threads(), engine)
    return Sampler(plain.decided(), request.output, think, run)


def _plan(request: LearnRequest, questions: tuple[Rows, Rows], base: LearnBase, sampler: Sampler) -> TimePlan:
    """Choose the questions by the time they take: once, so that a resumed run has the same ones."""
    training, held_out = questions
    identity = {
        "model_sha256": file_sha256(base.full),
        "questions_sha256": _sha256([*training, *held_out]),
        "numbers": request.numbers,
        "minutes": request.minutes,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "threads": sampler.plain.threads,
        "prompt": request.prompt,
    }
    with Journal(request.output / PLAN_FILE, identity, "learn") as journal:
        if journal.entries:
            return from_json(TimePlan, journal.entries[0], f"{journal.path}: line 2")
        plan = plan_time(
            request.minutes,
            measure_speed(sampler.job(solutions=FIRST), [row.question for row in training]),
            questions=len(training),
            held_out=len(held_out),
            search=request.search_share,
            prompt=request.given_prompt().prompt != PLAIN,
        )
        journal.record(asdict(plan))
        return plan


def _too_few(request: LearnRequest, asked: int, mixed: int, never: int, more: str) -> str:
    advice = "easier questions or longer solutions" if 2 * never > asked else "harder questions"
    return (
        f"{request.questions}: {mixed} of {asked} questions have right and wrong solutions, {never} have no "
        f"right one; at least {PASSAGES_MIN} that begin differently are needed: give more {more}, or {advice}"
    )


@dataclass(frozen=True)
class _Learning:
    request: LearnRequest
    base: LearnBase
    sampler: Sampler
    prompt: QuestionPrompt

    def learn(
        self,
        training: Rows,
        asked: Sequence[QuestionRollouts],
        mixed: Sequence[QuestionRollouts],
        measured: Rows,
    ) -> tuple[LearnedNumbers, HeldOutAnswers]:
        """Write an adapter that was learned from the first solutions and more, and measure it."""
        seed = (self.request.seed + FIRST) % (SEED_MAX + 1)
        again = [training[one.number] for one in mixed]
        more = self.sampler.sample(again, "rollouts-2", "more solutions", self.prompt, seed)
        rows = advantage_rows([*asked, *more])
        scores = self.scores(rows, training)
        step = natural_step(scores, KL, self.request.seed)
        adapter = self.write(step, self.request.output)
        numbers, basis = step.numbers.astype(np.float32), self.base.basis.origin
        code = encode_short_code(ShortCode(basis.name, basis_fingerprint(basis.id), numbers))
        learned = LearnedNumbers(code, basis.id, len(numbers), len(rows), step.damping, step.gain)
        base, prompted = self.without_adapter(measured)
        if self.request.in_folds:
            adapted = self.answer_in_folds(measured, scores)
        else:
            adapted = self.sampler.answer(measured, "adapted", self.prompt, adapter)
        return learned, HeldOutAnswers(base, prompted, adapted)

    def scores(self, rows: Sequence[SampledRow], training: Rows) -> SampledScores:
        """The gradients of the solutions to the questions asked."""
        sampler, threads, bf16 = self.sampler, self.sampler.plain.threads, multiplies_bf16()
        identity = {
            "model_sha256": file_sha256(self.base.trimmed),
            "basis": self.base.basis.origin.id,
            "solutions_sha256": _sha256(rows),
            "bf16": bf16,
            "threads": threads,
        }
        with open_tokenizer(self.base.trimmed, sampler.plain.engine.context or 0) as tokenizer:
            prompt = sampler.asked(self.prompt)
            examples = [encode_sampled(tokenizer, row, prompt) for row in rows]
        with Journal(sampler.journal("scores"), identity, "scores") as journal:
            model = load_base_model(self.base.trimmed, bf16=bf16, threads=threads)
            scores = solution_scores(model, self.base.basis, examples, journal, sampler.run)
        return SampledScores(
            scores=scores,
            advantages=np.array([row.weight for row in rows]),
            groups=np.array([masked_beginning(row.question) for row in rows]),
            tokens=np.array([float(example.answer_tokens) for example in examples]),
            asked=np.array([masked_beginning(row.question) for row in training]),
        )

    def write(self, step: NaturalStep, folder: Path) -> Path:
        """Write an adapter as a PEFT folder with its GGUF LoRA; returns the latter."""
        lora, numbers = folder / LORA_FILE, round_to_bfloat16(step.numbers.astype(np.float32))
        write_tinylora_folder(self.base.basis, numbers, folder, self.base.id)
        self.write_prompt(folder)
        export_adapter(folder, self.base.full, lora, base_id=self.base.id, adapter_id="learned")
        return lora

    def write_prompt(self, folder: Path) -> None:
        """Write how questions are asked, unless they are asked plainly."""
        if (asked := self.sampler.asked(self.prompt)) != PLAIN:
            write_file(folder / PROMPT_FILE, asked.json.encode())

    def measure_prompt(self, rows: Rows, name: str, problem: str) -> HeldOutAnswers:
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
                f"{problem}. The prompt is kept, {name}, but is no certain gain: of {len(rows)} other "
                f"questions the base has {before} right without it and {after} with it"
            )
        return held

    def without_adapter(self, rows: Rows) -> tuple[list[QuestionRollouts], list[QuestionRollouts]]:
        """The base's answers, without and with the prompt."""
        base = self.sampler.answer(rows, "base", PLAIN)
        return base, base if self.prompt == PLAIN else self.sampler.answer(rows, "prompted", self.prompt)

    def answer_in_folds(self, rows: Rows, scores: SampledScores) -> list[QuestionRollouts]:
        """Answer each fifth of the questions with an adapter of the others, without its near-duplicates."""
        adapted = dict[str, QuestionRollouts]()
        measured = np.array([masked_beginning(row.question) for row in rows])
        for number, (part, others) in enumerate(scores.folds(self.request.seed, measured), 1):
            asked = [row for row in rows if masked_beginning(row.question) in part]
            with temporary_folder("fold-") as folder:
                adapter = self.write(natural_step(others, KL, self.request.seed), folder)
                answers = self.sampler.answer(asked, f"adapted-{number}", self.prompt, adapter)
            adapted |= {one.question: one for one in answers}
        return [adapted[row.question] for row in rows]


def _sha256(rows: Sequence[Any]) -> str:
    return hashlib.sha256(repr([astuple(row) for row in rows]).encode()).hexdigest()
