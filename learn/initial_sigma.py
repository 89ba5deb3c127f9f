"""Initial step size of a search, measured by how far random steps move the model's distribution."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import ThirteenError
from ..models.rows import TrainingRow
from ..runtime.request import FULL_DISTRIBUTION, Request
from .cma_search import Numbers
from .objective import EngineObjective, Pair, collect_output

TARGET_KL = 0.1  # nats per token
# At 0.1 nats most probabilities change by more than the clip of the score by contrast, so they count no more.
CONTRAST_KL = 0.01
_FIRST_SIGMA = 0.02
_DIRECTIONS = 3
_ROUNDS = 2
_TEXT_TOKENS = 32


def initial_sigma(
    objective: EngineObjective,
    rows: Sequence[TrainingRow],
    *,
    numbers: int,
    seed: int,
    target_kl: float = TARGET_KL,
) -> float:
    """Find the standard deviation of random numbers that moves the model by `target_kl` nats per token.

    The KL divergence from the base is estimated on texts sampled from the base, as the mean drop in their
    log-likelihood per token. It grows with the square of the numbers while they are small.

    Args:
        objective: objective of the search.
        rows: rows whose questions are the prompts of the sampled texts.
        numbers: size of the trained vector.
        seed: seed of the texts and of the directions.
        target_kl: KL divergence to reach.

    Raises:
        ThirteenError: the model computes NaN or infinity, or says nothing to any question.
    """
    pairs = _sample_texts(objective, rows, seed)
    if not pairs:
        raise ThirteenError(f"the model ends its answers to {len(rows)} questions at once: give --sigma")
    tokens = sum(len(text) for _, text in pairs)

    def log_likelihood(candidate: Numbers) -> float:
        return sum(map(sum, objective.log_likelihoods(candidate, pairs)))

    base = log_likelihood(np.zeros(numbers))
    directions = np.random.default_rng(seed).normal(size=(_DIRECTIONS, numbers))
    sigma = _FIRST_SIGMA
    for _ in range(_ROUNDS):
        drops = [base - log_likelihood(sigma * direction) for direction in directions]
        divergence = float(np.mean(drops)) / tokens
        if not np.isfinite(divergence):
            raise ThirteenError(f"the model computes NaN or infinity at steps of size {sigma:.3g}")
        # A very small divergence is mostly noise, so sigma changes at most tenfold per round.
        sigma *= float(np.clip(np.sqrt(target_kl / max(divergence, 1e-9)), 0.1, 10.0))
    return sigma


def _sample_texts(objective: EngineObjective, rows: Sequence[TrainingRow], seed: int) -> list[Pair]:
    """Sample a short text from the base for each question; empty ones are dropped."""
    prompts = [objective.request(row).tokens for row in rows]
    samplings = replace(FULL_DISTRIBUTION, seed=seed).with_seeds(len(prompts))
    requests = [Request(prompt, _TEXT_TOKENS, one) for prompt, one in zip(prompts, samplings, strict=True)]
    texts = [collect_output(handle)[0] for handle in objective.engine.submit_all(requests, wait=True)]
    return [(prompt, text) for prompt, text in zip(prompts, texts, strict=True) if text]
