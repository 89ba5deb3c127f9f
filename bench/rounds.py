"""Rounds of a measurement: models take turns, until there are enough rounds or no more time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import TypeVar

import numpy as np

from ..files.progress import Progress
from ..runtime.engine.engine import Engine
from ..stats import Doubles
from ..stats.intervals import Interval, paired_ratio

ITERATIONS_PER_ROUND = 2  # of each model

EngineLoader = Callable[[], Engine]
T = TypeVar("T")


class ProgressCounter:
    """Counts completed steps and reports each of them to a progress callback."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, steps: int = 1) -> None:
        self._done += steps
        self._progress(self._done, self._total)


def alternating_order(participants: int, number: int) -> Sequence[int]:
    """The order within a round: reversed in every other one, so that drift affects all alike."""
    return range(participants)[:: -1 if number % 2 else 1]


def in_turns(tasks: Sequence[Callable[[int], T]], rounds: int, advance: Callable[[], None]) -> list[list[T]]:
    """Call each task with the number of each round, in alternating order: results by task and by round."""
    results: list[list[T]] = [[] for _ in tasks]
    for number in range(rounds):
        for at in alternating_order(len(tasks), number):
            results[at].append(tasks[at](number))
            advance()
    return results


def take_in_time(items: Iterable[T], until: float) -> Iterator[T]:
    """Yield an item, and more while another would be done by `until` of perf_counter(), if as slow as any."""
    slowest_s = 0.0
    for number, item in enumerate(items):
        start = perf_counter()
        if number and start + slowest_s > until:
            return
        yield item
        slowest_s = max(slowest_s, perf_counter() - start)


def interleave(
    loaders: Sequence[EngineLoader],
    task: Callable[[Engine, int], T],
    rounds: int,
    advance: Callable[[], None],
    until: float = inf,
) -> list[list[T]]:
    """Run a task on models in alternation, A B B A in each round, with the same iteration numbers.

    Each model follows itself in half of its iterations, so warm caches favor neither. Each round loads the
    models again: their place in memory changes speed by about 1 % for as long as they are loaded.

    Args:
        loaders: load the models.
        task: called with an idle engine and the number of the iteration.
        rounds: number of rounds, of ITERATIONS_PER_ROUND iterations of each model and a warm-up.
        advance: called after each iteration, warm-ups included.
        until: time of perf_counter() at which the rounds end early, but for the first.

    Returns:
        The results by model and by iteration.
    """
    results: list[list[T]] = [[] for _ in loaders]
    for number in take_in_time(range(rounds), until):
        with ExitStack() as loaded:
            order = alternating_order(len(loaders), number)
            engines = {model: loaded.enter_context(loaders[model]()) for model in order}
            for engine in engines.values():
                task(engine, ITERATIONS_PER_ROUND * rounds)  # warm-up, with a number of its own
                advance()
            for iteration in range(ITERATIONS_PER_ROUND * number, ITERATIONS_PER_ROUND * (number + 1)):
                for model in alternating_order(len(loaders), iteration):
                    results[model].append(task(engines[model], iteration))
                    advance()
    return results


def count_iterations(models: int, rounds: int) -> int:
    """Number of iterations that interleave() runs, warm-up included."""
    return models * rounds * (1 + ITERATIONS_PER_ROUND)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One quantity of a model, or of base and adapted model: each one's values in order of time, and medians.

    `ratio` is adapted/base, of each model's fastest iteration in a round, since disturbances only slow an
    iteration down. It can differ from the ratio of the medians, and is None of a single model.
    """

    medians: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    ratio: Interval | None


def summarize(seconds: Doubles, tokens: int = 0) -> Measurement:
    """The seconds of each model's iterations, (models, iterations); of so many tokens, tokens per second."""
    values = tokens / seconds if tokens else seconds
    by_round = values.reshape(len(values), -1, ITERATIONS_PER_ROUND)  # (models, rounds, iterations)
    fastest = by_round.max(axis=2) if tokens else by_round.min(axis=2)  # (models, rounds)
    return Measurement(
        medians=tuple(np.median(values, axis=1).tolist()),
        values=tuple(map(tuple, values.tolist())),
        ratio=paired_ratio(*fastest) if len(fastest) == 2 else None,
    )
