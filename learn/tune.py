"""Gradient-free tuning of an adapter's numbers on the quantized model; each candidate is a run-time adapter.

All candidates of a generation are scored on the same questions; each generation draws new ones. Every few
generations the mean of the search is checked on separate rows. The result is the mean with the best check;
held-out rows, on which nothing was selected, measure it.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter

import numpy as np

from ..convert.adapter.basis import Basis
from ..convert.adapter.candidate_lora import CandidateLora
from ..convert.adapter.short_code import round_to_bfloat16
from ..convert.adapter.tinylora_folder import write_tinylora_folder
from ..convert.source.checkpoint import open_checkpoint
from ..errors import ThirteenError
from ..files.hashing import file_sha256
from ..files.output import output_folder
from ..files.temporary_folder import temporary_folder
from ..models.rows import TrainingRow
from ..runtime.engine.engine import Engine
from ..runtime.profile import Profile
from ..runtime.versions import answer_versions
from ..stats.interval import Interval
from ..stats.paired_difference import paired_difference
from .cma_search import BestMean, CheckScore, CmaSearch, Numbers, SearchSettings
from .objective import AnswerSettings, Cost, EngineObjective, Objective, initial_sigma
from .tuning_journal import GenerationRecord, HeldOutCache, TuningJournal

_BATCH = 512
_SIGMA_ROWS = 16  # questions from which the initial sigma is measured


@dataclass(frozen=True)
class TuneData:
    """The rows of a run; the three parts are disjoint.

    Attributes:
        pool: rows that the generations' questions are drawn from.
        checks: rows on which means are checked.
        held_out: rows on which the result is measured.
        questions: questions per generation.
    """

    pool: Sequence[TrainingRow]
    checks: Sequence[TrainingRow]
    held_out: Sequence[TrainingRow]
    questions: int = 64

    def __post_init__(self) -> None:
        if not (self.checks and self.held_out and 1 <= self.questions <= len(self.pool)):
            raise ThirteenError(
                f"--questions {self.questions}: {len(self.pool)} rows are left to draw from, after "
                f"{len(self.checks)} for checks and {len(self.held_out)} held out"
            )

    def draw(self, seed: int, generation: int) -> list[TrainingRow]:
        """Draw the questions of a generation."""
        return random.Random(f"{seed} {generation}").sample(self.pool, self.questions)  # noqa: S311


@dataclass(frozen=True)
class TuneProgress:
    """The state of a run after a generation.

    Attributes:
        search: the search.
        record: record of the generation.
        start: check of the start.
        resumed: whether the record was read from the journal.
    """

    search: CmaSearch
    record: GenerationRecord
    start: CheckScore
    resumed: bool


OnProgress = Callable[[TuneProgress], None]


@dataclass(frozen=True)
class EngineSettings:
    """Threads, concurrent answers, and the maximum tokens of a question and its answer."""

    threads: int | None = None
    slots: int = 16
    context: int = 384

    @property
    def profile(self) -> Profile:
        """The engine's profile, without a prefix cache. Nothing is measured: a resumed run scores alike."""
        return Profile(
            self.context,
            self.slots,
            _BATCH,
            "f16",
            repack=True,
            prefix_bytes=0,
            flash_attention=True,
            micro_batch=_BATCH,
        )


@dataclass(frozen=True)
class TuneJob:
    """One adapter to tune.

    Attributes:
        model: GGUF that answers the questions.
        basis: basis of the base that the model was made from.
        data: rows of the run.
        out: PEFT folder to write. It also holds the journal, from which an interrupted run resumes.
        search: settings of the search.
        answers: settings of the prompts and the answers.
        engine: settings of the engine.
        measure_sigma: measure the initial step size on the model; `search.sigma` is then ignored.
        start: numbers to start from; by default zeros, the base itself.
        base_id: name of the base to record in the adapter; by default that of the basis.
    """

    model: Path
    basis: Basis
    data: TuneData
    out: Path
    search: SearchSettings = field(default_factory=SearchSettings)
    answers: AnswerSettings = field(default_factory=AnswerSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    measure_sigma: bool = False
    start: Numbers | None = None
    base_id: str = ""

    @cached_property
    def answer_identity(self) -> dict[str, object]:
        """All that the answers of given numbers to given questions depend on. Hashes the model."""
        return {
            "model": file_sha256(self.model),
            "basis": self.basis.origin.id,
            **asdict(self.answers),
            "context": self.engine.context,
            **answer_versions(),
        }

    def identity(self) -> dict[str, object]:
        """All that the scores in a journal depend on; a resumed run may have more generations."""
        parts = (self.data.pool, self.data.checks)
        rows = [[(row.question, row.solution, row.answer) for row in part] for part in parts]
        search = asdict(self.search) | ({"sigma": "by divergence"} if self.measure_sigma else {})
        del search["generations"]
        return {
            **self.answer_identity,
            "rows": hashlib.sha256(repr(rows).encode()).hexdigest(),
            "questions": self.data.questions,
            **search,
            **({} if self.start is None else {"start": self.start.tolist()}),
        }


@dataclass(frozen=True)
class PairedAccuracy:
    """Correctness on the same questions before and after tuning; each tuple has one entry per question."""

    before: tuple[bool, ...]
    after: tuple[bool, ...]

    @property
    def accuracy(self) -> tuple[float, float]:
        """The fraction of right answers, before and after."""
        return sum(self.before) / len(self.before), sum(self.after) / len(self.after)

    @property
    def gained(self) -> int:
        """The number of questions that are right only after."""
        return sum(after and not before for before, after in zip(self.before, self.after, strict=True))

    @property
    def lost(self) -> int:
        """The number of questions that are right only before."""
        return sum(before and not after for before, after in zip(self.before, self.after, strict=True))

    @property
    def difference(self) -> Interval:
        """The difference in accuracy, with its interval over questions."""
        pairs = Counter(zip(self.before, self.after, strict=True))
        return paired_difference(
            both=pairs[True, True],
            gained=pairs[False, True],
            lost=pairs[True, False],
            neither=pairs[False, False],
        )


@dataclass(frozen=True)
class TuneResult:
    """The outcome of a run.

    Attributes:
        search: the search at its end.
        best: best numbers, rounded to bfloat16.
        held_out: held-out accuracy of the base and of the best numbers.
        seconds: duration of all generations, including those before a resume.
        model_s: part of that time in which the model computed.
        questions: questions answered in all generations, counted once per candidate.
        cost: time and tokens since the last resume.
    """

    search: CmaSearch
    best: BestMean
    held_out: PairedAccuracy
    seconds: float
    model_s: float
    questions: int
    cost: Cost

    @property
    def model_share(self) -> float:
        """The fraction of the time in which the model computed."""
        return self.model_s / self.seconds if self.seconds else 0.0

    @property
    def improved(self) -> bool:
        """Whether a check was better than that of the start."""
        return self.best.generation > 0


def tune_adapter(job: TuneJob, on_progress: OnProgress = lambda progress: None) -> TuneResult:
    """Search for the numbers of an adapter, and save the best ones as a PEFT folder.

    Args:
        job: model, rows, settings and output folder.
        on_progress: called after each generation.

    Raises:
        ThirteenError: an input is invalid, or the output folder cannot be written or belongs to another run.
    """
    with (
        output_folder(job.out),
        TuningJournal(job.out, job.identity()).claim() as journal,
        HeldOutCache(job.out, job.answer_identity) as cache,
        _open_objective(job) as objective,
    ):
        settings = replace(job.search, sigma=_sigma(journal, objective, job))
        search = run_search(
            objective,
            job.data,
            settings,
            journal,
            start=job.start,
            on_progress=on_progress,
        )
        best = _rounded(search.best)
        before, after = (
            tuple(cache.correct(objective.correct, numbers, job.data.held_out))
            for numbers in (np.zeros(settings.numbers), best.numbers)
        )
    base_id = job.base_id or job.basis.origin.name
    write_tinylora_folder(job.basis, best.numbers.astype(np.float32), job.out, base_id)
    return TuneResult(
        search=search,
        best=best,
        held_out=PairedAccuracy(before, after),
        seconds=sum(record.seconds for record in journal.generations),
        model_s=sum(record.tokens_s for record in journal.generations),
        questions=search.generation * settings.population * job.data.questions,
        cost=objective.cost,
    )


@contextmanager
def _open_objective(job: TuneJob) -> Iterator[EngineObjective]:
    """The objective of a run, on an engine that is open in the `with` block. The output folder must exist.

    Raises:
        ThirteenError: the model or a row does not fit the run.
    """
    data = job.data
    with (
        Engine(job.model, profile=job.engine.profile, threads=job.engine.threads, queue=1 << 16) as engine,
        temporary_folder(".candidate-", job.out) as folder,
        CandidateLora(job.basis, open_checkpoint(job.model), folder / "candidate.gguf") as lora,
    ):
        objective = EngineObjective(engine, lora, job.answers)
        objective.check_lengths([*data.pool, *data.checks, *data.held_out])
        yield objective


def _sigma(journal: TuningJournal, objective: EngineObjective, job: TuneJob) -> float:
    """The initial step size: from the journal, from the settings, or measured on the model."""
    if journal.generations and journal.generations[0].sigma:
        return journal.generations[0].sigma
    if not job.measure_sigma:
        return job.search.sigma
    rows, settings = job.data.draw(job.search.seed, -1)[:_SIGMA_ROWS], job.search
    return float(f"{initial_sigma(objective, rows, numbers=settings.numbers, seed=settings.seed):.2g}")


def _rounded(best: BestMean) -> BestMean:
    return replace(best, numbers=round_to_bfloat16(best.numbers.astype(np.float32)).astype(np.float64))


def run_search(  # noqa: PLR0913 - the inputs of a search
    objective: Objective,
    data: TuneData,
    settings: SearchSettings,
    journal: TuningJournal,
    *,
    start: Numbers | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> CmaSearch:
    """Run a search to its end, after replaying the generations in the journal.

    Args:
        objective: what the search maximizes.
        data: rows of the run.
        settings: settings of the search.
        journal: receives a record after each generation.
        start: numbers to start from; by default zeros, the base itself.
        on_progress: called after each generation.

    Raises:
        ThirteenError: the journal cannot be written, or does not match the search.
    """
    start = np.zeros(settings.numbers) if start is None else start
    if not journal.generations:
        journal.add(_record(objective, lambda: ((), _check(objective, start, data)), settings.sigma))
    check = journal.generations[0].check
    if check is None:
        raise ThirteenError(f"{journal.path}: the check of the start is missing")
    search = CmaSearch(settings, start, check)
    for record in journal.generations[1:]:
        if search.generation == settings.generations:
            done = len(journal.generations) - 1
            raise ThirteenError(f"{journal.path}: --generations {search.generation}: {done} are done")
        if search.done or len(record.scores) != len(search.candidates):
            raise ThirteenError(f"{journal.path}: the generations do not match this search")
        search.tell(record.scores)
        if record.check and search.check_due:  # not so after the last generation of a run that is extended
            search.record_check(record.check)
        on_progress(TuneProgress(search, record, check, resumed=True))
    while not search.done:
        record = _record(objective, lambda: _next_generation(objective, search, data))
        journal.add(record)
        on_progress(TuneProgress(search, record, check, resumed=False))
    return search


_Outcome = tuple[tuple[float, ...], CheckScore | None]


def _next_generation(objective: Objective, search: CmaSearch, data: TuneData) -> _Outcome:
    """Score a generation, update the search, and check its mean if due."""
    rows = data.draw(search.settings.seed, search.generation)
    scores = tuple(objective.scores(search.candidates, rows))
    search.tell(scores)
    check = _check(objective, search.mean, data) if search.check_due else None
    if check:
        search.record_check(check)
    return scores, check


def _check(objective: Objective, numbers: Numbers, data: TuneData) -> CheckScore:
    correct = objective.correct(numbers, data.checks)
    return CheckScore(sum(correct) / len(correct), sum(correct), len(correct))


def _record(objective: Objective, compute: Callable[[], _Outcome], sigma: float = 0.0) -> GenerationRecord:
    """Compute an outcome and record it with its duration."""
    start, model_s = perf_counter(), objective.cost.model_s
    scores, check = compute()
    return GenerationRecord(scores, check, perf_counter() - start, objective.cost.model_s - model_s, sigma)
