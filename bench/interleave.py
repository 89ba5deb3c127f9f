"""Measure one model, or two in alternation, and the ratio between them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from typing import TypeVar

import numpy as np

from ..runtime.engine.engine import Engine
from ..stats.arrays import Doubles
from ..stats.interval import Interval
from ..stats.paired_ratio import paired_ratio
from .schedule import alternating_order, take_in_time

ITERATIONS_PER_ROUND = 2  # of each model

EngineLoader = Callable[[], Engine]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One quantity of a model, or of base and adapted model.

    Attributes:
        medians: median of each model's values.
        values: values of each model's iterations, in order of time.
        ratio: adapted/base, of each model's fastest iteration in a round, paired by round. Disturbances only
            ever slow an iteration down, so the fastest one is closest to the model's own speed. The ratio can
            differ from that of the medians. None of a single model.
    """

    medians: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    ratio: Interval | None


def interleave(
    loaders: Sequence[EngineLoader],
    task: Callable[[Engine, int], T],
    rounds: int,
    advance: Callable[[], None] = lambda: None,
    until: float = inf,
) -> list[list[T]]:
    """Run a task on models in alternation, A B B A in each round, with the same iteration numbers.

    In this order each model follows itself in half of its iterations, so warm caches favour neither.

    Each round loads the models again. Their placement in memory alone changes speed by about 1 % for as long
    as they are loaded, which no number of iterations would average out.

    Args:
        loaders: load the models.
        task: called with an idle engine and the number of the iteration.
        rounds: number of rounds.
        advance: called after each iteration, including a warm-up of each model that was loaded.
        until: time of perf_counter() at which the rounds end early, but for the first.

    Returns:
        The results by model and by iteration: ITERATIONS_PER_ROUND of each round.
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
