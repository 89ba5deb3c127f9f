"""The speeds of two models that take turns: prompt, first token, and the tokens after it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...stats.interval import FloatArray
from ..harness.interleave import LoadEngine, PairedMeasurement, duration, interleave, tokens_per_second
from ..harness.iteration import Iteration, run_iteration
from ..harness.workload import Workload


@dataclass(frozen=True, slots=True)
class ABSpeeds:
    """Both sides, in turns.

    Attributes:
        prefill: prompt tokens a second up to the first token; see Iteration.prefill_s.
        first_token: seconds from a question in text to the first text; see Iteration.first_token_s.
        decode: tokens a second after the first; see Iteration.decode_s.
        question_tokens: what the question of the first turn came to, for base and adapted.
    """

    prefill: PairedMeasurement
    first_token: PairedMeasurement
    decode: PairedMeasurement
    question_tokens: tuple[int, int]

    @property
    def named(self) -> Iterator[tuple[str, PairedMeasurement]]:
        """The measures with their names in words, that of most interest first."""
        yield "decode", self.decode
        yield "first token", self.first_token
        yield "prefill", self.prefill


def compare_speeds(
    base: LoadEngine, adapted: LoadEngine, settings: Workload, rounds: int, tick: Callable[[], None]
) -> ABSpeeds:
    """Have two models go through rounds; see interleave()."""
    (turns,) = interleave((base, adapted), (partial(run_iteration, settings=settings),), rounds, tick)
    return ABSpeeds(
        prefill=tokens_per_second(settings.prompt_tokens, _seconds(turns, "prefill_s")),
        first_token=duration(_seconds(turns, "first_token_s")),
        decode=tokens_per_second(settings.decode_tokens, _seconds(turns, "decode_s")),
        question_tokens=(turns[0][0].question_tokens, turns[1][0].question_tokens),
    )


def _seconds(turns: Sequence[Sequence[Iteration]], name: str) -> FloatArray:
    return np.array([[getattr(turn, name) for turn in side] for side in turns])  # (2, rounds * TURNS)
