"""Layers on a GPU answer as the processor does, with a Vulkan build of llama.cpp (`make vulkan`).

Mesa's software driver will do. It says nothing about speed. The two round differently, so a token may differ
where the processor itself finds another one about as likely.
"""

import numpy as np
import pytest
from thirteen.models.embedded import embedded
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.context import log_softmax

pytestmark = pytest.mark.vulkan

KL_MAX = 1e-2  # nats, the mean over positions: as for the ways to compute attention on a processor
NEAR_TIE = 0.3  # of a logit, as between the layouts of weights on a processor
QUESTION = "Tom has 3 boxes of 12 eggs and breaks 5. How many are left?"


@pytest.mark.parametrize("layers", [1, 8, "all"])
def test_tokens_and_logits_are_those_of_the_processor_but_for_rounding(layers):
    with Engine(embedded(), slots=1, gpu_layers=layers) as engine:
        pieces = engine.stream(QUESTION, calculator=False, ignore_end=True, max_tokens=24, logprobs=0)
        answer = [one.token for piece in pieces for one in piece.logprobs]
        tokens = (*engine.request(QUESTION).tokens, *answer)
        there = np.stack([log_softmax(row) for row in engine.logits(tokens)])
    with Engine(embedded(), slots=1, flash_attention=True) as engine:
        here = np.stack([log_softmax(row) for row in engine.logits(tokens)])
        chosen = engine.prompt_logprobs(tokens, top=1)[-len(answer) :]
    kl = float((np.exp(here) * (here - there)).sum(axis=1).mean())
    short = np.array([best - one.logprob for one in chosen for _, best in one.top])
    print(f"{layers} layers: KL {kl:.1e}, {np.mean(short == 0):.0%} same tokens")
    assert kl < KL_MAX and short.max() < NEAR_TIE
