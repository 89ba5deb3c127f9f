"""Layers on a GPU answer as the processor does, with a Vulkan build of llama.cpp (`make vulkan`).

Mesa's software driver will do. It says nothing about speed. The two round differently, so a token may differ
where the processor itself finds another one about as likely.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from thirteen.models.embedded import embedded
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.context import Context, Span, log_softmax
from thirteen.runtime.llama.llama_cpp_library import gpu_found
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.settings import GpuLayers, Settings
from thirteen.stats import Floats

pytestmark = pytest.mark.vulkan

COUNT = 24  # greedy tokens
KL_MAX = 1e-2  # nats, the mean over positions: as for the ways to compute attention on a processor
NEAR_TIE = 0.3  # of a logit, as between the layouts of weights on a processor
LAYERS: tuple[GpuLayers, ...] = (1, 8, "all")
QUESTION = "Tom has 3 boxes of 12 eggs and breaks 5. How many are left?"


@pytest.fixture(scope="module")
def model():
    assert gpu_found(), "no Vulkan device: is mesa-vulkan-drivers installed?"
    return embedded()


@pytest.fixture(scope="module")
def prompt(model):
    with Engine(model, slots=1, flash_attention=True) as engine:
        return engine.request(QUESTION).tokens


@pytest.fixture(scope="module")
def on_processor(model, prompt):
    """Greedy tokens of the processor, and its logits along them."""
    return _greedy(model, prompt, 0)


def _greedy(
    path: Path, prompt: Sequence[int], layers: GpuLayers, forced: Sequence[int] | None = None
) -> tuple[list[int], Floats]:
    """The most likely token after the prompt and after each next one, and the logits, (tokens, vocabulary).

    The next token is the one of `forced` if given, or else the most likely one.
    """
    params = Settings(
        256, 1, 256, threads=2, outputs=1, flash_attention=None if layers else True, gpu_layers=layers
    )
    tokens: list[int] = []
    logits: list[Floats] = []
    with Model(path, gpu_layers=layers) as model, Context(model, params) as context:
        batch, start = tuple(prompt), 0
        for step in range(COUNT):
            (row,) = context.decode([Span(0, start, batch, rows=1)])
            logits.append(context.logits_row(row).copy())
            tokens.append(int(logits[-1].argmax()))
            start += len(batch)
            batch = (tokens[-1] if forced is None else forced[step],)
    return tokens, np.stack(logits)


@pytest.mark.parametrize("layers", LAYERS)
def test_logits_and_tokens_are_those_of_the_processor_but_for_rounding(layers, model, prompt, on_processor):
    expected, logits = on_processor
    chosen, on_gpu = _greedy(model, prompt, layers, forced=expected)
    here, there = (np.stack([log_softmax(row) for row in rows]) for rows in (logits, on_gpu))
    kl = float((np.exp(here) * (here - there)).sum(axis=1).mean())
    short = logits.max(axis=1) - logits[range(COUNT), chosen]
    print(f"{layers} layers: KL {kl:.1e}, {np.mean(short == 0):.0%} same tokens")
    assert kl < KL_MAX and short.max() < NEAR_TIE
