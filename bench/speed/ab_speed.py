"""A/B comparison of two models' speeds: prefill, first token and decode."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...stats.interval import FloatArray
from ..harness.interleave import EngineLoader, PairedMeasurement, duration, interleave, throughput
from ..harness.iteration import Iteration, run_iteration
from ..harness.workload import Workload


@dataclass(frozen=True, slots=True)
class ABSpeeds:
    """Speeds of base and adapted model, measured in alternation.

    Attributes:
        prefill: prompt tokens per second; see Iteration.prefill_s.
        first_token: seconds from a question in text to the first text; see Iteration.first_token_s.
        decode: tokens per second after the first; see Iteration.decode_s.
        question_tokens: tokens of the first iteration's question, for base and adapted.
    """

    prefill: PairedMeasurement
    first_token: PairedMeasurement
    decode: PairedMeasurement
    question_tokens: tuple[int, int]

    @property
    def by_name(self) -> Iterator[tuple[str, PairedMeasurement]]:
        """Measurements with their names in words, decode first."""
        yield "decode", self.decode
        yield "first token", self.first_token
        yield "prefill", self.prefill


def compare_speeds(
    loaders: Sequence[EngineLoader], workload: Workload, rounds: int, advance: Callable[[], None]
) -> ABSpeeds:
    """Measure base and adapted model in rounds; see interleave()."""
    (results,) = interleave(loaders, [partial(run_iteration, workload=workload)], rounds, advance)
    return ABSpeeds(
        prefill=throughput(workload.prompt_tokens, _seconds(results, "prefill_s")),
        first_token=duration(_seconds(results, "first_token_s")),
        decode=throughput(workload.decode_tokens, _seconds(results, "decode_s")),
        question_tokens=(results[0][0].question_tokens, results[1][0].question_tokens),
    )


def _seconds(results: Sequence[Sequence[Iteration]], name: str) -> FloatArray:
    return np.array(
        [[getattr(iteration, name) for iteration in model] for model in results]
    )  # (2, iterations)
