"""The first step of a search: as long as it takes to move what the model says, and no longer."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...errors import ThirteenError
from ...runtime.engine.engine import Engine
from ...runtime.request import Request
from ..rows import TrainingRow
from .cma_search import Numbers
from .objective import OWN, EngineObjective

DIVERGENCE = 0.1  # nats a token
_FIRST = 0.02
_DIRECTIONS = 3
_ROUNDS = 2
_TOKENS = 32  # of each text that the divergence is measured on


def initial_sigma(  # noqa: PLR0913 - what a step depends on
    engine: Engine,
    judge: EngineObjective,
    rows: Sequence[TrainingRow],
    *,
    numbers: int,
    seed: int,
    wanted: float = DIVERGENCE,
) -> float:
    """The standard deviation of random numbers at which a token's distribution moves by `wanted` nats.

    The KL divergence from the base is the mean, over texts that the base wrote by its own probabilities, of
    how much likelier the base finds them. It grows with the square of the numbers, while they are small.

    Args:
        engine: which the judge judges by.
        judge: what finds texts likely or not.
        rows: whose questions the texts answer.
        numbers: how many there are.
        seed: of the texts and of the directions.
        wanted: the divergence.

    Raises:
        ThirteenError: the numbers do not move the model at all.
    """
    pairs = _texts(engine, rows, seed)
    tokens = sum(len(after) for _, after in pairs)

    def likelihood(one: Numbers) -> float:
        return sum(map(sum, judge.log_likelihoods(one, pairs)))

    own = likelihood(np.zeros(numbers))
    directions = np.random.default_rng(seed).normal(size=(_DIRECTIONS, numbers))
    sigma = _FIRST
    for _ in range(_ROUNDS):
        moved = [own - likelihood(sigma * one) for one in directions]
        divergence = float(np.mean(moved)) / tokens
        if not np.isfinite(divergence):
            raise ThirteenError(f"steps of {sigma:.3g} make the model compute what is no number")
        # What is measured of a divergence next to nothing is mostly noise: no more than tenfold at a time.
        sigma *= float(np.clip(np.sqrt(wanted / max(divergence, 1e-9)), 0.1, 10.0))
    return sigma


def _texts(
    engine: Engine, rows: Sequence[TrainingRow], seed: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    prompts = [engine.request(row.question).tokens for row in rows]
    sampled = [Request(prompt, _TOKENS, replace(OWN, seed=seed + n)) for n, prompt in enumerate(prompts)]
    handles = engine.submit_all(sampled, wait=True)
    said = [tuple(token for piece in handle for token in piece.tokens) for handle in handles]
    return [(prompt, after) for prompt, after in zip(prompts, said, strict=True) if after]
