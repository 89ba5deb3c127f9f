"""How a search's score ranks random candidates beside their accuracy, and what a candidate costs by each.

A search can find better candidates only if the score puts them first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time

import numpy as np

from ..errors import ThirteenError
from ..files.journal import Entry, Journal
from ..files.output import output_folder
from ..files.progress import Progress, no_progress
from ..models.rows import TrainingRow
from ..stats.bootstrap import ratio_interval
from ..stats.interval import Interval
from ..stats.rank_correlation import spearman
from .cma_search import Numbers
from .objective import EngineObjective
from .tune import TuneJob, open_objective, step_size

CANDIDATES_MIN = 4
_FILE = "candidates.jsonl"
_SCALES = (0.25, 2.0)  # times the step size: candidates near the start, and far from it


@dataclass(frozen=True)
class RankedCandidate:
    """A candidate with its score and its accuracy.

    Attributes:
        numbers: the candidate.
        score: its score on the questions.
        right: number of check rows that it answers right.
        score_s: processor time of the score, in seconds.
        right_s: processor time of the answers, in seconds.
    """

    numbers: tuple[float, ...]
    score: float
    right: int
    score_s: float
    right_s: float


@dataclass(frozen=True)
class ScoreRanking:
    """Random candidates, ranked by a score and by accuracy.

    Attributes:
        score: name of the score.
        questions: questions of the score.
        checks: rows of the accuracy.
        candidates: the candidates, in the order in which they were drawn.
    """

    score: str
    questions: int
    checks: int
    candidates: Sequence[RankedCandidate]

    @property
    def correlation(self) -> Interval:
        """Spearman's rho of score and accuracy."""
        scores, right = (
            np.array([getattr(one, name) for one in self.candidates], float) for name in ("score", "right")
        )
        return spearman(scores, right)

    @property
    def cost_ratio(self) -> Interval:
        """Processor time of a question by accuracy / by the score."""
        times = [[one.right_s / self.checks, one.score_s / self.questions] for one in self.candidates]
        return ratio_interval(np.array(times))


def rank_candidates(job: TuneJob, count: int, progress: Progress = no_progress) -> ScoreRanking:
    """Score random candidates around the start, and have them answer the check rows.

    The records in the output folder let an interrupted run resume. The score `own` samples answers for each
    candidate here, and once a generation in a search.

    Args:
        job: model, rows, score and settings; nothing is searched for.
        count: number of candidates, at least CANDIDATES_MIN.
        progress: called after each candidate.

    Raises:
        ThirteenError: an input is invalid, or the output folder cannot be written or belongs to another run.
    """
    if count < CANDIDATES_MIN:
        raise ThirteenError(f"--rank-candidates {count}: must be at least {CANDIDATES_MIN}")
    rows = job.data.draw(job.search.seed, 0)
    with (
        output_folder(job.out),
        Journal(job.out / _FILE, job.identity(), "ranking").claim() as journal,
        open_objective(job) as objective,
    ):
        found = [_parsed(entry, journal.path) for entry in journal.entries][:count]
        if len(found) < count:
            first = np.zeros(job.search.numbers) if job.start is None else job.start
            sigma = step_size(objective, job)
            if job.contrast:
                objective.scores([first], rows, first)  # what all candidates share is computed once
            for numbers in list(_draw(job, first, sigma, count))[len(found) :]:
                found.append(_rank(objective, numbers, rows, job, first))
                journal.record(asdict(found[-1]))
                progress(len(found), count)
    return ScoreRanking(job.answers.score, len(rows), len(job.data.checks), found)


def _draw(job: TuneJob, start: Numbers, sigma: float, count: int) -> Iterator[Numbers]:
    random = np.random.default_rng(job.search.seed)
    for _ in range(count):
        scale = np.exp(random.uniform(*np.log(_SCALES)))
        yield start + sigma * scale * random.normal(size=len(start))


def _rank(
    objective: EngineObjective, numbers: Numbers, rows: Sequence[TrainingRow], job: TuneJob, start: Numbers
) -> RankedCandidate:
    began = process_time()
    (score,) = objective.scores([numbers], rows, start)
    scored = process_time()
    right = sum(objective.correct(numbers, job.data.checks))
    return RankedCandidate(tuple(numbers.tolist()), score, right, scored - began, process_time() - scored)


def _parsed(entry: Entry, path: Path) -> RankedCandidate:
    try:
        return RankedCandidate(
            tuple(map(float, entry["numbers"])),
            float(entry["score"]),
            int(entry["right"]),
            float(entry["score_s"]),
            float(entry["right_s"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ThirteenError(f"{path}: not the record of a candidate") from None
