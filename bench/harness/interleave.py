"""Measure two models in alternation, and the ratio between them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from typing import TypeVar

import numpy as np

from ...quality.schedule import alternating_order, take_in_time
from ...runtime.engine.engine import Engine
from ...stats.arrays import Doubles
from ...stats.interval import Interval
from ...stats.paired_ratio import paired_ratio

SECONDS = "s"
ITERATIONS_PER_ROUND = 2  # of each model
_ROUNDS_LEAST = 3  # in any time: the interval of a ratio from fewer says nothing

EngineLoader = Callable[[], Engine]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PairedMeasurement:
    """One quantity of two models.

    Attributes:
        unit: "tokens/s" or "s".
        base: values of the base's iterations, in order of time.
        adapted: values of the adapted model's iterations.
        base_median: median of the base's values.
        adapted_median: median of the adapted model's values.
        ratio: adapted/base, of each model's fastest iteration in a round, paired by round. Disturbances only
            ever slow an iteration down, so the fastest one is closest to the model's own speed. The ratio can
            differ from that of the medians.
    """

    unit: str
    base: tuple[float, ...]
    adapted: tuple[float, ...]
    base_median: float
    adapted_median: float
    ratio: Interval


def interleave(
    loaders: Sequence[EngineLoader],
    tasks: Sequence[Callable[[Engine, int], T]],
    rounds: int,
    advance: Callable[[], None] = lambda: None,
    until: float = inf,
) -> list[list[list[T]]]:
    """Run tasks on models in alternation, A B B A in each round, with the same iteration numbers.

    In this order each model follows itself in half of its iterations, so warm caches favour neither. With
    three models the middle one never would: a copy of the base in the middle position measured 1.5 % slower
    in prefill.

    Each round loads the models again. Their placement in memory alone changes speed by about 1 % for as long
    as they are loaded, which no number of iterations would average out.

    Args:
        loaders: load the models.
        tasks: called with an idle engine and the number of the iteration.
        rounds: number of rounds.
        advance: called after each iteration, including a warm-up of each model that was loaded.
        until: time of perf_counter() at which the rounds end early, but for the first three.

    Returns:
        The results by task, by model and by iteration: ITERATIONS_PER_ROUND of each round.
    """
    results: list[list[list[T]]] = [[[] for _ in loaders] for _ in tasks]
    for number in take_in_time(range(rounds), until, _ROUNDS_LEAST):
        with ExitStack() as loaded:
            order = alternating_order(len(loaders), number)
            engines = {model: loaded.enter_context(loaders[model]()) for model in order}
            for engine in engines.values():
                tasks[0](engine, ITERATIONS_PER_ROUND * rounds)  # warm-up, with a number of its own
                advance()
            for task, by_model in zip(tasks, results, strict=True):
                for iteration in range(ITERATIONS_PER_ROUND * number, ITERATIONS_PER_ROUND * (number + 1)):
                    for model in alternating_order(len(loaders), iteration):
                        by_model[model].append(task(engines[model], iteration))
                        advance()
    return results


def count_iterations(models: int, tasks: int, rounds: int) -> int:
    """Number of iterations that interleave() runs, warm-up included."""
    return models * rounds * (1 + ITERATIONS_PER_ROUND * tasks) if tasks else 0


def compare(seconds: Doubles, tokens: int = 0) -> PairedMeasurement:
    """The seconds of each iteration of both models, (2, iterations); of so many tokens, tokens per second."""
    values = tokens / seconds if tokens else seconds
    by_round = values.reshape(2, -1, ITERATIONS_PER_ROUND)  # (2, rounds, iterations)
    fastest = by_round.max(axis=2) if tokens else by_round.min(axis=2)  # (2, rounds)
    base_median, adapted_median = np.median(values, axis=1).tolist()
    return PairedMeasurement(
        unit="tokens/s" if tokens else SECONDS,
        base=tuple(values[0].tolist()),
        adapted=tuple(values[1].tolist()),
        base_median=base_median,
        adapted_median=adapted_median,
        ratio=paired_ratio(*fastest),
    )
