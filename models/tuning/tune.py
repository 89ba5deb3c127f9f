"""Thirteen numbers learned by forward passes of the quantized model: each candidate is a run-time adapter.

A generation of candidates is scored on the same questions, the next one on others. Every few generations
their mean is checked on rows that none is drawn from; the best of these means is what a run gives, and what
it is worth is told by rows that nothing was chosen on.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from ...convert.adapter.basis import Basis
from ...convert.adapter.candidate_lora import CandidateLora
from ...convert.adapter.short_code import round_to_bfloat16
from ...convert.adapter.tinylora_folder import write_tinylora_folder
from ...convert.source.checkpoint import open_checkpoint
from ...errors import ThirteenError
from ...files.hashing import file_sha256
from ...files.output import make_folder
from ...runtime.engine.engine import Engine
from ...runtime.profile import Profile
from ..rows import TrainingRow
from .cma_search import Best, CheckScore, CmaSearch, Numbers, SearchSettings
from .heldout_cache import HeldOutCache
from .initial_sigma import initial_sigma
from .objective import AnswerSettings, Cost, EngineObjective, Objective
from .paired_accuracy import PairedAccuracy
from .tuning_journal import GenerationRecord, TuningJournal

_BATCH = 512
_STEP_ROWS = 16  # whose answers tell how far a step moves the model
_WORK = ".candidate.gguf"


@dataclass(frozen=True)
class TuneData:
    """The rows of a run, each in one part only.

    Attributes:
        pool: what generations draw their questions from.
        checks: what means are checked on.
        held_out: what the result is measured on.
        questions: how many a generation draws.
    """

    pool: Sequence[TrainingRow]
    checks: Sequence[TrainingRow]
    held_out: Sequence[TrainingRow]
    questions: int = 64

    def __post_init__(self) -> None:
        if not (self.checks and self.held_out and 1 <= self.questions <= len(self.pool)):
            raise ThirteenError(
                f"--questions {self.questions}: {len(self.pool)} rows are left to draw them from, besides "
                f"{len(self.checks)} for checks and {len(self.held_out)} held out"
            )

    def drawn(self, seed: int, generation: int) -> list[TrainingRow]:
        """The questions of a generation."""
        return random.Random(f"{seed} {generation}").sample(self.pool, self.questions)  # noqa: S311


@dataclass(frozen=True)
class TuneProgress:
    """How a run stands after a generation."""

    search: CmaSearch
    last: GenerationRecord
    start: CheckScore
    resumed: bool  # whether the generation was on record already


@dataclass(frozen=True)
class EngineSettings:
    """What runs the model: threads, answers at once, and the most tokens of question and answer."""

    threads: int | None = None
    slots: int = 16
    context: int = 384


@dataclass(frozen=True)
class TuneResult:
    """What a run found, and what it is worth.

    Attributes:
        best: the numbers, as bfloat16 has them.
        sigma: the first step's size.
        generations: that were run.
        restarts: of the search.
        held_out: the base and the numbers on rows that nothing was chosen on.
        seconds: of all generations, over all sittings.
        model_s: of these, those in which the model computed.
        questions: that were put in all generations, each to each candidate.
        spent: of this sitting.
    """

    best: Best
    sigma: float
    generations: int
    restarts: int
    held_out: PairedAccuracy
    seconds: float
    model_s: float
    questions: int
    spent: Cost

    @property
    def model_share(self) -> float:
        """The part of the time in which the model computed."""
        return self.model_s / self.seconds if self.seconds else 0.0

    @property
    def found(self) -> bool:
        """Whether there are any better numbers than those of the start."""
        return self.best.generation > 0


OnProgress = Callable[[TuneProgress], None]


def run_search(  # noqa: PLR0913 - each is a thing of its own
    judge: Objective,
    data: TuneData,
    settings: SearchSettings,
    journal: TuningJournal,
    told: OnProgress,
    *,
    start: Numbers | None = None,
) -> CmaSearch:
    """Go through the generations, those on record first.

    Args:
        judge: what tells good numbers from worse ones.
        data: the rows.
        settings: what decides the search.
        journal: where each generation is on record as it ends.
        told: called after each.
        start: where it begins; by default at zero, the base itself.

    Returns:
        The search at its end.

    Raises:
        ThirteenError: the journal cannot be written, or is not of this search.
    """
    start = np.zeros(settings.numbers) if start is None else start
    if not journal.generations:
        began, before = perf_counter(), judge.spent.model_s
        check = _checked(judge, start, data)
        seconds, model_s = perf_counter() - began, judge.spent.model_s - before
        journal.add(GenerationRecord((), check, seconds, model_s, settings.sigma))
    first = journal.generations[0].check
    if first is None:
        raise ThirteenError(f"{journal.path}: the check of the start is missing")
    search = CmaSearch(settings, start, first)
    for generation in journal.generations[1:]:
        _advance(search, generation)
        told(TuneProgress(search, generation, first, resumed=True))
    while not search.done:
        generation = _run(judge, search, data)
        journal.add(generation)
        told(TuneProgress(search, generation, first, resumed=False))
    return search


def _run(judge: Objective, search: CmaSearch, data: TuneData) -> GenerationRecord:
    """Score a generation, tell the search, and check its mean if that is due."""
    start, before = perf_counter(), judge.spent.model_s
    rows = data.drawn(search.settings.seed, search.generation)
    scores = tuple(judge.scores(search.candidates, rows, search.mean))
    search.tell(scores)
    check = _checked(judge, search.mean, data) if search.check_due else None
    if check:
        search.checked(check)
    return GenerationRecord(scores, check, perf_counter() - start, judge.spent.model_s - before)


def _advance(search: CmaSearch, generation: GenerationRecord) -> None:
    """Tell the search what is on record."""
    if search.done or len(generation.scores) != len(search.candidates):
        raise ThirteenError("the journal has generations that this search cannot have had")
    search.tell(generation.scores)
    if generation.check:
        search.checked(generation.check)


def _checked(judge: Objective, numbers: Numbers, data: TuneData) -> CheckScore:
    right = judge.right(numbers, data.checks)
    return CheckScore(sum(right) / len(right), sum(right), len(right))


def tune(  # noqa: PLR0913 - each is a thing of its own
    model: Path,
    basis: Basis,
    data: TuneData,
    out: Path,
    *,
    settings: SearchSettings,
    asking: AnswerSettings,
    machine: EngineSettings,
    step: bool = False,
    start: Numbers | None = None,
    base_id: str = "",
    told: OnProgress = lambda progress: None,
) -> TuneResult:
    """Search for the numbers of an adapter over `basis`, and save the best as a PEFT folder at `out`.

    Args:
        model: the GGUF that answers.
        basis: of the base that the model was made from.
        data: the rows.
        out: the folder, in which an interrupted run goes on.
        settings: what decides the search.
        asking: how questions are put and scored.
        machine: what runs the model.
        step: whether the first step's size is found by how far it moves the model, whatever `settings` say.
        start: the numbers that it begins with; by default zeros, the base itself.
        base_id: the base's name to record in the adapter; else that of the basis.
        told: called after each generation.

    Raises:
        ThirteenError: one of its kinds, for whatever is wrong with an input.
    """
    profile = Profile(machine.context, machine.slots, _BATCH, "f16", repack=True, prefix_bytes=0)
    out_part = out / _WORK
    chosen = asdict(settings) | ({"sigma": "by divergence"} if step else {})
    chosen |= {} if start is None else {"start": start.tolist()}
    make_folder(out)
    with (
        TuningJournal(out, _told(model, basis, data, asking, chosen)) as journal,
        HeldOutCache(out) as heldout,
        Engine(model, profile=profile, threads=machine.threads, queue=1 << 16) as engine,
        CandidateLora(basis, open_checkpoint(model), out_part) as file,
    ):
        judge = EngineObjective(engine, file, asking)
        on_record = journal.generations[0].sigma if journal.generations else 0.0
        if on_record:
            settings = replace(settings, sigma=on_record)
        elif step:
            rows = data.drawn(settings.seed, -1)[:_STEP_ROWS]
            sigma = initial_sigma(engine, judge, rows, numbers=settings.numbers, seed=settings.seed)
            settings = replace(settings, sigma=float(f"{sigma:.2g}"))
        search = run_search(judge, data, settings, journal, told, start=start)
        best = _rounded(search.best)
        before = heldout.right(judge.right, np.zeros(settings.numbers), data.held_out)
        after = heldout.right(judge.right, best.numbers, data.held_out)
    write_tinylora_folder(basis, best.numbers.astype(np.float32), out, base_id or basis.origin.name)
    return TuneResult(
        best=best,
        sigma=settings.sigma,
        generations=search.generation,
        restarts=search.restart,
        held_out=PairedAccuracy(tuple(before), tuple(after)),
        seconds=sum(generation.seconds for generation in journal.generations),
        model_s=sum(generation.tokens_s for generation in journal.generations),
        questions=search.generation * settings.population * data.questions,
        spent=judge.spent,
    )


def _rounded(best: Best) -> Best:
    return replace(best, numbers=round_to_bfloat16(best.numbers.astype(np.float32)).astype(np.float64))


def _told(
    model: Path, basis: Basis, data: TuneData, asking: AnswerSettings, settings: dict[str, object]
) -> dict[str, object]:
    """All that decides a run: with any of it changed, its journal is another's."""
    rows = [[(row.question, row.solution, row.answer) for row in part] for part in (data.pool, data.checks)]
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()
    return {
        "model": file_sha256(model),
        "basis": basis.origin.id,
        "rows": digest,
        "questions": data.questions,
        **{key: value for key, value in settings.items() if key != "generations"},  # it may be made longer
        **asdict(asking),
    }
