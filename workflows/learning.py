"""Learning from questions with known answers, in one run: from a request to an adapter with its card.

The model samples solutions. A step of the natural policy gradient makes the right ones likelier. What it
changed is measured on questions that were set aside. Each part has a journal, from which a run resumes.
"""

import hashlib
import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..convert.adapter.basis import NUMBERS_MAX, Basis
from ..convert.adapter.export import export_adapter
from ..convert.adapter.short_code import ShortCode, basis_fingerprint, encode_short_code, round_to_bfloat16
from ..convert.adapter.tinylora_folder import write_tinylora_folder
from ..convert.source_ids import SourceIds
from ..errors import OptionError, RequestError
from ..files.hashing import file_sha256
from ..files.journal import Journal
from ..files.output import check_folder
from ..files.processors import multiplies_bf16
from ..files.progress import QUIET, Progress, Run
from ..files.temporary_folder import temporary_folder
from ..learn.base_model import check_packages, load_base_model, pre_tokenizer
from ..learn.cards import check_card, learn_card, refuse_base_folder, write_card
from ..learn.learn_result import HeldOutAnswers, LearnResult
from ..learn.natural_gradient import KL, NaturalStep, SampledScores, natural_step
from ..learn.near_duplicates import masked_beginning, set_aside, without_near_duplicates
from ..learn.rollouts import ROLLOUTS, QuestionRollouts, SampledRow, advantage_rows
from ..learn.sample_rollouts import SLOTS, TEMPERATURE, RolloutSettings, sample_rollouts
from ..learn.time_plan import FIRST, TimePlan, measure_speed, plan_time
from ..models.base import resolve_base
from ..models.basis import find_basis
from ..models.rows import TrainingRow, read_rows, shuffle_rows
from ..runtime.batch.reproducible_batches import ENGINE, BatchJob
from ..runtime.machine.threads import default_threads
from ..runtime.plan.options import EngineOptions
from ..runtime.request import SEED_MAX, Sampling
from ..stats.arrays import Doubles
from ..stats.bootstrap import PASSAGES_MIN
from .converted_models import trimmed_model
from .default_model import NAME
from .model_files import resolve

ALL = "all"
LORA_FILE, PLAN_FILE = "adapter.gguf", ".learn.jsonl"
_PROMPT_TOKENS = 512  # at most


@dataclass(frozen=True, kw_only=True)
class LearnRequest:
    """Options of a run.

    Attributes:
        model: GGUF, folder of safetensors, catalogue name, hub id, or `embedded`.
        questions: JSON lines with question and answer, a number.
        output: adapter folder to write. It also holds the journals from which an interrupted run resumes.
        numbers: trained numbers.
        minutes: limit of the expected time; of long files only as many questions are used as fit.
        held_out: share of the questions to set aside, or a file of others to measure on; with `all`, each
            fifth of the questions is answered by numbers that were learned from the other four.
        max_tokens: maximum tokens of a solution.
        seed: seed of the split and of the samples.
    """

    model: str
    questions: Path
    output: Path
    numbers: int = 13
    minutes: float = 60
    held_out: str = "0.3"
    max_tokens: int = 300
    seed: int = 0

    def check(self) -> None:
        """Raise RequestError if a value is out of range."""
        if not 1 <= self.numbers <= NUMBERS_MAX:
            raise OptionError("numbers", f"must be from 1 to {NUMBERS_MAX}", self.numbers)
        if not 0 < self.minutes <= 1e6:
            raise OptionError("minutes", "must be above 0 and at most 1000000", self.minutes)
        if not 0 <= self.seed <= SEED_MAX:
            raise OptionError("seed", f"must be from 0 to {SEED_MAX}", self.seed)
        if self.share is not None and not 0 < self.share < 1:
            raise OptionError("held_out", "must be a share between 0 and 1, a file, or all", self.held_out)

    @property
    def share(self) -> float | None:
        """The share of the questions to set aside; None if a file is given, or `all`."""
        try:
            return float(self.held_out)
        except ValueError:
            return None

    def read_questions(self) -> tuple[list[TrainingRow], list[TrainingRow]]:
        """The questions to learn from and to measure on, shuffled.

        No near-duplicates are on both sides, unless all are on both; see _Learning.measure_in_folds().

        Raises:
            RequestError: a file or a row is invalid, or there are too few questions.
        """
        rows = _distinct_rows(self.questions)
        if self.held_out == ALL:
            training = held_out = shuffle_rows(rows, self.seed)
        elif self.share is not None:
            training, held_out = set_aside(rows, self.share, self.seed)
        else:
            held_out = shuffle_rows(_distinct_rows(Path(self.held_out)), self.seed)
            training = without_near_duplicates(shuffle_rows(rows, self.seed), held_out)
        kinds, held_out_kinds = _beginnings(training), _beginnings(held_out)
        if min(kinds, held_out_kinds) < PASSAGES_MIN:
            raise RequestError(
                f"{self.questions}: of {len(rows)} different questions, {len(training)} with {kinds} "
                f"different beginnings are left to learn from and {len(held_out)} with {held_out_kinds} to "
                f"measure on; at least {PASSAGES_MIN} beginnings each are needed"
            )
        return training, held_out


def _beginnings(rows: Sequence[TrainingRow | QuestionRollouts]) -> int:
    """The number of questions that are no near-duplicates of each other."""
    return len({masked_beginning(row.question) for row in rows})


def _distinct_rows(path: Path) -> list[TrainingRow]:
    """The rows of a file; of a question that is repeated the last."""
    return [*{row.question: row for row in read_rows(path, ("answer",))}.values()]


def run_learn(
    request: LearnRequest,
    command: str = "",
    run: Run = QUIET,
    announce: Callable[[str], None] = lambda message: None,
) -> LearnResult:
    """Learn an adapter, measure it, and write it with its card and as a GGUF LoRA.

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
    check_packages()
    check_folder(request.output)
    check_card(request.output, PLAN_FILE)
    training, held_out = request.read_questions()
    model = NAME if request.model == "embedded" else request.model  # not with its adapter
    full = resolve(model, run=run, announce=announce).model
    refuse_base_folder(request.output, full)
    pre_tokenizer(full)
    base = resolve_base(request.model, original=True)
    basis = find_basis(base, run, numbers=request.numbers)
    learning = _Learning(request, base.trained_id, full, trimmed_model(full, run), basis, run)
    plan = learning.plan(training, held_out)
    announce(
        f"{plan.questions} questions to learn from and {plan.held_out} to measure on: about "
        f"{plan.minutes:.0f} minutes, less what an earlier run has done"
    )
    training, held_out = training[: plan.questions], held_out[: plan.held_out]
    questions = learning.sample(training)
    mixed = [question for question in questions if question.sometimes_right]
    if _beginnings(mixed) < PASSAGES_MIN:
        raise RequestError(_too_few(request, questions, len(mixed)))
    rows = advantage_rows([*questions, *learning.sample_more(training, mixed)])
    scores = learning.scores(rows, training)
    step = natural_step(scores, KL, request.seed)
    adapter = learning.write(step, request.output)
    numbers = step.numbers.astype(np.float32)
    in_folds = request.held_out == ALL
    result = LearnResult(
        code=encode_short_code(ShortCode(basis.origin.name, basis_fingerprint(basis.origin.id), numbers)),
        base_id=base.trained_id,
        basis=basis.origin.id,
        numbers=len(numbers),
        asked=len(training),
        sometimes_right=len(mixed),
        solutions=len(rows),
        max_tokens=request.max_tokens,
        damping=step.damping,
        expected=step.gain,
        in_folds=in_folds,
        held_out=learning.measure_in_folds(training, scores)
        if in_folds
        else learning.measure(held_out, adapter),
        minutes=(time.monotonic() - began) / 60,
    )
    write_card(
        request.output,
        learn_card(result, request.model, request.output.resolve().name, command, request.questions.name),
    )
    return result


def _too_few(request: LearnRequest, questions: Sequence[QuestionRollouts], mixed: int) -> str:
    never = sum(not question.right for question in questions)
    advice = "easier questions or longer solutions" if 2 * never > len(questions) else "harder questions"
    return (
        f"{request.questions}: {mixed} of {len(questions)} questions have right and wrong solutions, {never} "
        f"have no right one; at least {PASSAGES_MIN} that begin differently are needed: give more questions, "
        f"or {advice}"
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

    @property
    def threads(self) -> int:
        """Number of threads that compute."""
        return self.run.threads or default_threads()

    def job(self, samples: int, seed: int = 0, adapter: Path | None = None) -> BatchJob:
        """Several samples a question, or a greedy answer."""
        settings = RolloutSettings(
            solutions=samples,
            sampling=Sampling(TEMPERATURE, seed=seed) if samples > 1 else Sampling(),
            max_tokens=self.request.max_tokens,
        )
        context = _PROMPT_TOKENS + self.request.max_tokens
        engine = ENGINE | EngineOptions(slots=SLOTS, context=context)
        return BatchJob(self.model, adapter, settings, self.threads, engine)

    def journal(self, name: str) -> Path:
        """A journal in the output folder."""
        return self.request.output / f".{name}.jsonl"

    def plan(self, training: Sequence[TrainingRow], held_out: Sequence[TrainingRow]) -> TimePlan:
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
        }
        with Journal(self.request.output / PLAN_FILE, identity, "learn") as journal:
            if not journal.entries:
                speed = measure_speed(self.job(FIRST), [row.question for row in training])
                plan = plan_time(
                    request.minutes,
                    questions=len(training),
                    held_out=len(held_out),
                    speed=speed,
                    max_tokens=request.max_tokens,
                )
                journal.record({"plan": astuple(plan)})
                return plan
            return _read_plan(journal)

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
        job = self.job(FIRST)
        identity = {
            "model_sha256": file_sha256(self.model),
            "basis": self.basis.origin.id,
            "solutions_sha256": _sha256([astuple(row) for row in rows]),
            "bf16": multiplies_bf16(),
            "threads": self.threads,
        }
        with Journal(self.journal("scores"), identity, "scores") as journal:
            scores, tokens = _scores(job, self.basis, rows, journal, self.run.stage("gradients"))
        return SampledScores(
            scores=scores,
            advantages=np.array([row.weight for row in rows]),
            groups=np.array([masked_beginning(row.question) for row in rows]),
            tokens=tokens,
            asked=np.array([masked_beginning(row.question) for row in asked]),
        )

    def write(self, step: NaturalStep, folder: Path) -> Path:
        """Write an adapter as a PEFT folder with its GGUF LoRA; returns the latter."""
        lora, numbers = folder / LORA_FILE, round_to_bfloat16(step.numbers.astype(np.float32))
        write_tinylora_folder(self.basis, numbers, folder, self.base_id)
        export_adapter(folder, self.full, lora, ids=SourceIds(self.base_id, "learned"))
        return lora

    def measure(self, rows: Sequence[TrainingRow], adapter: Path) -> HeldOutAnswers:
        """Answer the questions that were set aside with the base and with the adapter."""
        return HeldOutAnswers(self.answers(rows, "base"), self.answers(rows, "adapted", adapter))

    def measure_in_folds(self, rows: Sequence[TrainingRow], scores: SampledScores) -> HeldOutAnswers:
        """Answer all questions with the base and with adapters of other questions.

        Each fifth is answered with an adapter that was learned from the other four, in which nothing is a
        near-duplicate of it.
        """
        base, adapted = self.answers(rows, "base"), dict[str, QuestionRollouts]()
        for number, (part, others) in enumerate(scores.folds(self.request.seed), 1):
            asked = [row for row in rows if masked_beginning(row.question) in part]
            with temporary_folder("fold-") as folder:
                adapter = self.write(natural_step(others, KL, self.request.seed), folder)
                answers = self.answers(asked, f"adapted-{number}", adapter)
            adapted |= {one.question: one for one in answers}
        return HeldOutAnswers(base, [adapted[row.question] for row in rows])

    def answers(
        self, rows: Sequence[TrainingRow], name: str, adapter: Path | None = None
    ) -> list[QuestionRollouts]:
        """Greedy answers, with the same settings as those of the base."""
        job = self.job(1, adapter=adapter).decided(self.journal("base"), ROLLOUTS)
        return sample_rollouts(job, rows, self.journal(name), self.run.stage(name))


def _read_plan(journal: Journal) -> TimePlan:
    """The plan of an earlier run."""
    try:
        questions, held_out, minutes = journal.entries[0]["plan"]
        return TimePlan(operator.index(questions), operator.index(held_out), float(minutes))
    except (KeyError, TypeError, ValueError):
        raise RequestError(f"{journal.path}: line 2: not a plan") from None


def _scores(
    job: BatchJob, basis: Basis, rows: Sequence[SampledRow], journal: Journal, progress: Progress
) -> tuple[Doubles, Doubles]:
    """The scores of solutions, (solutions, numbers), and their sampled tokens, (solutions,)."""
    import torch  # noqa: PLC0415 - see base_model.py

    from ..learn.examples import encode_sampled  # noqa: PLC0415
    from ..learn.solution_scores import solution_scores  # noqa: PLC0415

    model, tokenizer = load_base_model(job.model, bf16=multiplies_bf16())
    torch.set_num_threads(job.threads)
    examples = [encode_sampled(tokenizer, row, calculator=job.settings.calculator) for row in rows]
    scores = solution_scores(model, basis, examples, journal, progress)
    return scores, np.array([float(example.answer_tokens) for example in examples])


def _sha256(rows: Sequence[tuple[Any, ...]]) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()
