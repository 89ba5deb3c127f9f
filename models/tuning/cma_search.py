"""The search for a few numbers by forward passes only: CMA-ES, restarts, early stop, told by a journal.

What a search does next depends on its settings and on the scores it was told, nothing else. So a journal of
the scores is its whole state: whoever tells them again has the same search.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ThirteenError
from ...stats.interval import Interval
from ...stats.wilson import wilson_interval

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class SearchSettings:
    """What decides a search, given the scores.

    Attributes:
        numbers: how many are searched for.
        sigma: the first step's size.
        population: candidates in a generation.
        generations: the most of them, over all restarts.
        check_every: after how many generations the mean is checked on rows that no generation is drawn from.
        patience: how many checks in a row may bring nothing better before a restart, or the end.
        restarts: how often to begin again, from the best mean there was, with the first step's size.
        seed: of the candidates and of the rows.
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
        least = {"population": 4, "restarts": 0, "seed": 0}
        for name, value in vars(self).items():
            if name != "sigma" and (type(value) is not int or value < least.get(name, 1)):
                raise ThirteenError(
                    f"tune: {name} must be a whole number from {least.get(name, 1)}, not {value!r}"
                )
        if not 0 < self.sigma < 1e3:
            raise ThirteenError(f"tune: sigma must be above 0 and finite, not {self.sigma!r}")


@dataclass(frozen=True)
class CheckScore:
    """How good some numbers are on the rows that checks are made on: higher is better."""

    score: float
    right: int
    rows: int

    @property
    def accuracy(self) -> Interval:
        """The share of right answers, with Wilson's interval."""
        return wilson_interval(self.right, self.rows)


@dataclass(frozen=True)
class Best:
    """The numbers that did best in a check, and when."""

    numbers: Numbers  # (numbers,)
    generation: int
    check: CheckScore


class CmaSearch:
    """One search, generation by generation.

    Attributes:
        settings: what decides it.
        generation: how many have been told of.
        restart: how many restarts there have been.
        best: the numbers that did best in a check; at first those that it begins with.
        over: whether it has ended before all generations, for want of progress.
    """

    def __init__(self, settings: SearchSettings, start: Numbers, check: CheckScore) -> None:
        """Begin at `start`, which did as well as `check` says."""
        self.settings = settings
        self.generation = self.restart = self._stale = 0
        self.best = Best(start, 0, check)
        self.over = False
        self._begin()

    def _begin(self) -> None:
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.restart])
        options = {
            "popsize": settings.population,
            "seed": np.nan,  # cma would seed numpy for the whole process
            "randn": lambda *shape: rng.standard_normal(shape),
            "verbose": -9,
        }
        try:
            import cma  # noqa: PLC0415 - it comes with an extra
        except ImportError:
            raise ThirteenError("tune needs cma: pip install 'thirteen[tune]'") from None
        self._evolution: Any = cma.CMAEvolutionStrategy(self.best.numbers, settings.sigma, options)
        self._asked: list[Numbers] | None = None

    @property
    def done(self) -> bool:
        """Whether there is no next generation."""
        return self.over or self.generation >= self.settings.generations

    @property
    def candidates(self) -> list[Numbers]:
        """The next generation, the same however often it is asked for."""
        if self._asked is None:
            self._asked = [np.asarray(one) for one in self._evolution.ask()]
        return self._asked

    @property
    def mean(self) -> Numbers:
        """Where the search is, (numbers,)."""
        return np.array(self._evolution.mean)

    @property
    def sigma(self) -> float:
        """The size of its steps."""
        return float(self._evolution.sigma)

    @property
    def check_due(self) -> bool:
        """Whether the mean is to be checked after the generation that was told last."""
        return (
            self.generation % self.settings.check_every == 0 or self.generation == self.settings.generations
        )

    def tell(self, scores: Sequence[float]) -> None:
        """Take in the scores of the candidates, in their order; higher is better."""
        self._evolution.tell(self.candidates, [-score for score in scores])
        self._asked = None
        self.generation += 1

    def checked(self, check: CheckScore) -> None:
        """Take in the check that was due."""
        if check.score > self.best.check.score:
            self.best, self._stale = Best(self.mean, self.generation, check), 0
            return
        self._stale += 1
        if self._stale >= self.settings.patience:
            self._stale = 0
            self.over = self.restart >= self.settings.restarts
            if not self.over:
                self.restart += 1
                self._begin()
