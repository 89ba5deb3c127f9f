"""The speeds of two loaded models that take turns: prompt, first token, and the tokens after it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..runtime.engine import Engine
from .measure import TURNS, Measure, duration, interleave, speed
from .ratio import Array
from .rounds import Ticker
from .settings import Settings
from .turn import Turn, take_turn


@dataclass(frozen=True, slots=True)
class Speeds:
    """Both sides, in turns.

    Attributes:
        prefill: prompt tokens a second up to the first token; see Turn.prefill_s.
        first_token: seconds from a question in text to the first text; see Turn.first_token_s.
        decode: tokens a second after the first; see Turn.decode_s.
        question_tokens: what the question of the first turn came to, for base and adapted.
    """

    prefill: Measure
    first_token: Measure
    decode: Measure
    question_tokens: tuple[int, int]

    @property
    def named(self) -> Iterator[tuple[str, Measure]]:
        """The measures with their names in words, that of most interest first."""
        yield "decode", self.decode
        yield "first token", self.first_token
        yield "prefill", self.prefill


def warm_up(engines: Sequence[Engine], settings: Settings, rounds: int, tick: Ticker) -> None:
    """Have each take a turn that does not count, with a number that no turn of so many rounds has."""
    for engine in engines:
        take_turn(engine, TURNS * rounds, settings)
        tick()


def compare(base: Engine, adapted: Engine, settings: Settings, rounds: int, tick: Ticker) -> Speeds:
    """Have two idle engines go through rounds; both are idle again afterwards."""

    def turn(engine: Engine, number: int) -> Turn:
        taken = take_turn(engine, number, settings)
        tick()
        return taken

    turns = interleave(partial(turn, base), partial(turn, adapted), rounds)
    return Speeds(
        prefill=speed(settings.prompt_tokens, _seconds(turns, "prefill_s")),
        first_token=duration(_seconds(turns, "first_token_s")),
        decode=speed(settings.decode_tokens, _seconds(turns, "decode_s")),
        question_tokens=(turns[0][0].question_tokens, turns[1][0].question_tokens),
    )


def _seconds(turns: tuple[Sequence[Turn], Sequence[Turn]], name: str) -> Array:
    return np.array([[getattr(turn, name) for turn in side] for side in turns])  # (2, rounds * TURNS)
