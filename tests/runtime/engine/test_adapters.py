"""Adapters by name, with the real library: those that share an engine do not affect each other's answers."""

import numpy as np
import pytest
from thirteen.errors import RequestError
from thirteen.runtime.engine import engine as engine_module
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import Request

from ..fixed_settings import FIXED
from ..gguf_adapters import write_lora, write_tinylora

pytestmark = pytest.mark.slow

NAMES = ("a", "b", "c")
PROMPTS = [tuple(f"Question {n}: what is {n} and {n + 1}? ".encode()) for n in range(8)]
# Submitted in this order, each adapter's requests get neighbouring slots, as they do without the others. Only
# then are they computed together, and rounding depends on the shape of a batch.
GROUPED = ("a", "a", "a", "b", "b", "b", "c", "c")
MIXED = ("a", "b", "c", "a", "base", "b", "c", "a")
OPTIONS = FIXED | {"context": 128, "slots": 8, "batch": 512, "prefix_bytes": 0}


@pytest.fixture(scope="module", params=[write_lora, write_tinylora], ids=["rank 2", "13 numbers"])
def loras(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return {name: request.param(folder / f"{name}.gguf", seed) for seed, name in enumerate(NAMES)}


def greedy(engine, prompts, adapters, max_tokens=24):
    """The tokens of each request; all start in one step."""
    pairs = zip(prompts, adapters, strict=True)
    requests = [Request(prompt, max_tokens, adapter=adapter, ignore_end=True) for prompt, adapter in pairs]
    handles = engine.submit_all(requests)
    return [[token for piece in handle for token in piece.tokens] for handle in handles]


def test_each_adapter_gives_other_tokens(tiny, loras):
    with Engine(tiny, adapters=loras, **OPTIONS) as engine:
        outputs = greedy(engine, PROMPTS[:1] * 4, ("base", *NAMES))
    assert len(set(map(tuple, outputs))) == 4


def test_a_group_gives_the_same_tokens_without_the_others(tiny, loras):
    """Batch shapes are the same: every batch has one adapter, whose requests have the same places in it."""
    with Engine(tiny, adapters=loras, **OPTIONS) as engine:
        together = greedy(engine, PROMPTS, GROUPED)
        for name in NAMES:
            members = [at for at, adapter in enumerate(GROUPED) if adapter == name]
            alone = greedy(engine, [PROMPTS[at] for at in members], [name] * len(members))
            assert alone == [together[at] for at in members]


@pytest.mark.parametrize("adapters", [GROUPED, MIXED])
@pytest.mark.parametrize("more", [{}, {"slots": 3}, {"prefix_bytes": 1 << 20}])
def test_an_adapter_among_others_gives_the_tokens_of_its_own_engine(tiny, loras, adapters, more):
    """Whatever else runs, waits or was cached: a random model has no near ties."""
    with Engine(tiny, adapters=loras, **OPTIONS | more) as engine:
        together = [greedy(engine, PROMPTS, adapters) for _ in range(2)]
    assert together[0] == together[1]
    for name in set(adapters):
        own = loras.get(name)
        with Engine(tiny, adapter=own, **OPTIONS) as engine:
            for at, adapter in enumerate(adapters):
                if adapter == name:
                    assert greedy(engine, [PROMPTS[at]], [None]) == [together[0][at]]


def test_a_name_that_was_taken_meanwhile_is_not_swapped(tiny, loras, monkeypatch):
    """The prefix cache would hold what was computed under the first adapter."""
    with Engine(tiny, **OPTIONS | {"prefix_bytes": 1 << 20}) as engine:

        def other_thread(*_args, **_options):
            monkeypatch.undo()
            engine.swap("new", loras["a"])

        monkeypatch.setattr(engine_module, "probe_model_files", other_thread)
        with pytest.raises(RequestError, match="the name must be new"):
            engine.swap("new", loras["b"])
        assert engine.files("new")[-1] == loras["a"]


def test_logits_are_those_of_the_adapter_that_was_swapped_in(tiny, loras):
    """They were computed with the one that had been freed."""
    tokens = PROMPTS[0]
    with Engine(tiny, adapter=loras["a"], **OPTIONS) as engine:
        before = engine.logits(tokens)
        engine.swap("adapter", loras["b"])
        after = engine.logits(tokens)
    with Engine(tiny, adapter=loras["b"], **OPTIONS) as engine:
        expected = engine.logits(tokens)
    assert np.array_equal(after, expected) and not np.array_equal(after, before)


def test_a_swap_that_would_mix_adapters_is_refused(tiny, loras):
    with Engine(tiny, **OPTIONS | {"prefix_bytes": 1 << 20}) as engine:
        engine.swap("new", loras["a"])  # nothing in the prefix cache is of this name
        with pytest.raises(RequestError, match=r"swap: 'new' .* must be new"):
            engine.swap("new", loras["b"])
    with Engine(tiny, **OPTIONS) as engine:
        with pytest.raises(RequestError, match="the name 'base' is reserved"):
            engine.swap("base", loras["a"])
        # So many that the last still waits when the adapter is loaded, however slow the disk.
        handles = engine.submit_all([Request(PROMPTS[0], 100, ignore_end=True)] * 60)
        with pytest.raises(RequestError, match=r"swap: \d+ requests are running or waiting"):
            engine.swap("new", loras["a"])
        for handle in handles:
            handle.abort()
