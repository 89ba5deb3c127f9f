"""Adapters by name, with the real library: those that share an engine do not affect each other's answers."""

import pytest
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.options import Options, Request

from ..fakes import FIXED

PROMPTS = [tuple(f"Question {n}: what is {n} and {n + 1}? ".encode()) for n in range(8)]
OPTIONS = FIXED | {"context": 128, "slots": 8, "batch": 512, "prefix_bytes": 0}


def greedy(engine, prompts, adapters, max_tokens=24):
    """The tokens of each request; all start in one step."""
    options = [Options(max_tokens=max_tokens, adapter=adapter, ignore_end=True) for adapter in adapters]
    handles = engine.submit_all(list(map(Request, prompts, options)))
    return [tuple(token for piece in handle for token in piece.tokens) for handle in handles]


@pytest.mark.parametrize("more", [{}, {"slots": 3}, {"prefix_bytes": 1 << 20}], ids=str)
def test_an_adapter_among_others_gives_the_tokens_of_its_own_engine(tiny, loras, more):
    """Whatever else runs, waits or was cached: a random model has no near ties."""
    mixed = ("a", "b", "c", "a", "base", "b", "c", "a")
    files = {name: loras[name] for name in "abc"}
    with Engine(tiny, adapters=files, **OPTIONS | more) as engine:
        together = [greedy(engine, PROMPTS, mixed) for _ in range(2)]
        assert len({*greedy(engine, PROMPTS[:1] * 4, ("base", *files))}) == 4
    assert together[0] == together[1]
    for name in ("base", *files):
        with Engine(tiny, adapter=files.get(name), **OPTIONS) as engine:
            for prompt, adapter, tokens in zip(PROMPTS, mixed, together[0], strict=True):
                assert adapter != name or greedy(engine, [prompt], [None]) == [tokens]


def test_adapters_share_no_prefix_and_the_own_one_is_the_default(tiny, loras):
    with Engine(tiny, adapter=loras["c"], adapters={"a": loras["a"]}, slots=1, **FIXED) as engine:
        assert engine.adapters == ("base", "a", "adapter")
        assert engine.files("a") == (tiny, loras["a"]) and engine.files("base") == (tiny,)
        cached = []
        for name in (None, "base", "a", "adapter", "a", "base"):
            request = Request(PROMPTS[0], Options(adapter=name, max_tokens=1))
            cached.append(engine.submit(request).answer().usage.cached_tokens)
    assert cached == [0, 0, 0, *[len(PROMPTS[0]) - 1] * 3]
