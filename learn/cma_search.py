"""CMA-ES over a few numbers, with restarts and early stopping.

The search is deterministic: its settings and the scores determine every next step. Replaying the scores of a
journal therefore restores its state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ThirteenError, install_hint
from ..stats.interval import Interval
from ..stats.wilson import wilson_interval

Numbers = NDArray[np.float64]
# Numbers up to which the search learns how all pairs of them depend on each other. With more it learns their
# scales only, which takes fewer generations: sep-CMA-ES (R. Ros and N. Hansen, 2008).
_FULL_MAX = 100


@dataclass(frozen=True)
class SearchSettings:
    """Everything that determines a search, given the scores.

    Attributes:
        numbers: dimension of the search space.
        sigma: initial step size.
        population: candidates per generation.
        generations: maximum number of generations, over all restarts.
        check_every: generations between two checks of the mean on separate rows.
        patience: consecutive checks without improvement before a restart, or the end.
        restarts: maximum number of restarts, each from the best mean with the initial step size.
        seed: seed of the candidates and of each generation's rows.
    """

    numbers: int = 13
    sigma: float = 0.04
    population: int = 12
    generations: int = 60
    check_every: int = 5
    patience: int = 4
    restarts: int = 1
    seed: int = 13

    def __post_init__(self) -> None:
        minima = {"population": 4, "restarts": 0, "seed": 0}
        for name, value in vars(self).items():
            minimum = minima.get(name, 1)
            if name != "sigma" and (type(value) is not int or value < minimum):
                raise ThirteenError(f"tune: {name} must be an integer of at least {minimum}, not {value!r}")
        if not 0 < self.sigma < 1e3:
            raise ThirteenError(f"tune: sigma must be above 0 and below 1000, not {self.sigma!r}")


@dataclass(frozen=True)
class CheckScore:
    """The score of some numbers on the check rows; higher is better."""

    score: float
    right: int
    rows: int

    @property
    def accuracy(self) -> Interval:
        """The fraction of right answers, with its Wilson interval."""
        return wilson_interval(self.right, self.rows)


@dataclass(frozen=True)
class BestMean:
    """The numbers with the highest check score, and the generation they are from."""

    numbers: Numbers  # (numbers,)
    generation: int
    check: CheckScore


class CmaSearch:
    """A search, one generation at a time.

    Attributes:
        settings: the settings.
        generation: generations scored so far.
        restarts: restarts so far.
        best: numbers with the highest check score; initially the start.
        stopped: whether the search ended early, for lack of progress.
    """

    def __init__(self, settings: SearchSettings, start: Numbers, check: CheckScore) -> None:
        """Start at `start`, whose check score is `check`."""
        self.settings = settings
        self.generation = self.restarts = self._stale_checks = 0
        self.best = BestMean(start, 0, check)
        self.stopped = False
        self._restart()

    def _restart(self) -> None:
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.restarts])
        options = {
            "popsize": settings.population,
            "seed": np.nan,  # cma would seed numpy for the whole process
            "randn": lambda *shape: rng.standard_normal(shape),
            "verbose": -9,
            "CMA_diagonal": settings.numbers > _FULL_MAX,
        }
        try:
            import cma  # noqa: PLC0415 - it comes with an extra
        except ImportError:
            raise ThirteenError(f"tune needs cma: {install_hint('tune')}") from None
        self._evolution: Any = cma.CMAEvolutionStrategy(self.best.numbers, settings.sigma, options)
        self._candidates: list[Numbers] | None = None

    @property
    def done(self) -> bool:
        """Whether there is no next generation."""
        return self.stopped or self.generation >= self.settings.generations

    @property
    def candidates(self) -> list[Numbers]:
        """The next generation; the same until its scores are told."""
        if self._candidates is None:
            self._candidates = [np.asarray(candidate) for candidate in self._evolution.ask()]
        return self._candidates

    @property
    def mean(self) -> Numbers:
        """The mean of the search distribution, (numbers,)."""
        return np.array(self._evolution.mean)

    @property
    def sigma(self) -> float:
        """The current step size."""
        return float(self._evolution.sigma)

    @property
    def check_due(self) -> bool:
        """Whether the mean must be checked after the last generation."""
        return (
            self.generation % self.settings.check_every == 0 or self.generation == self.settings.generations
        )

    def tell(self, scores: Sequence[float]) -> None:
        """Update the search with the scores of the candidates, in order; higher is better.

        One that is NaN or infinite counts as the worst of the others.

        Raises:
            ThirteenError: all are.
        """
        finite = [score for score in scores if np.isfinite(score)]
        if not finite:
            raise ThirteenError(f"generation {self.generation + 1}: every score is NaN or infinite")
        losses = [-(score if np.isfinite(score) else min(finite)) for score in scores]
        self._evolution.tell(self.candidates, losses)
        self._candidates = None
        self.generation += 1

    def record_check(self, check: CheckScore) -> None:
        """Record the check of the mean; restart or stop when patience runs out."""
        if check.score > self.best.check.score:
            self.best, self._stale_checks = BestMean(self.mean, self.generation, check), 0
            return
        self._stale_checks += 1
        if self._stale_checks >= self.settings.patience:
            self._stale_checks = 0
            self.stopped = self.restarts >= self.settings.restarts
            if not self.stopped:
                self.restarts += 1
                self._restart()
