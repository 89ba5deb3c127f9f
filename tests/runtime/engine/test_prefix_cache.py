"""Prefix cache: it finds the longest prefix, keeps to its capacity, and changes no tokens."""

from hashlib import sha256
from itertools import takewhile
from operator import eq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.prefix_cache import PREFIX_TOKENS_MIN, PrefixCache
from thirteen.runtime.options import Options, Request

from ..fakes import FIXED

TOKENS = st.builds(
    lambda length, rest: (*range(length), *rest),
    st.integers(PREFIX_TOKENS_MIN - 2, PREFIX_TOKENS_MIN + 4),
    st.lists(st.integers(0, 1), max_size=4),
)
BEGINNING, BASE = tuple(range(PREFIX_TOKENS_MIN)), ("base", "")


def state(tokens, nbytes=64):
    """Bytes that depend on the tokens."""
    return np.frombuffer(sha256(repr(tokens).encode()).digest() * (nbytes // 32), np.uint8)


def add(cache, *prompts, key=BASE, nbytes=64):
    for prompt in prompts:
        cache.add(key, prompt, state(prompt, nbytes))


@given(st.lists(st.tuples(st.sampled_from("ab"), TOKENS), max_size=12), st.lists(TOKENS, max_size=4))
def test_the_longest_prefix_is_found_under_its_adapter_and_never_the_whole_prompt(entries, prompts):
    cache = PrefixCache(1 << 20)
    for adapter, tokens in entries:
        add(cache, tokens, key=(adapter, ""))
    for prompt in (*prompts, *(tokens for _, tokens in entries)):
        for adapter in "ab":
            candidates = [tokens for name, tokens in entries if name == adapter]
            shared = [sum(takewhile(bool, map(eq, tokens, prompt[:-1]))) for tokens in candidates]
            longest = max(shared, default=0)
            found = cache.find((adapter, ""), prompt)
            if longest < PREFIX_TOKENS_MIN:
                assert found is None
                continue
            assert found[0] == longest < len(prompt)
            sources = [tokens for tokens in candidates if tokens[:longest] == prompt[:longest]]
            assert any(np.array_equal(found[1], state(tokens)) for tokens in sources)


def test_a_beginning_that_all_share_keeps_the_newest_entries():
    """As of a chat template: the oldest entry was refreshed each time, and newer ones were removed."""
    cache = PrefixCache(10 * 32)
    for number in range(100, 130):
        cache.find(BASE, (*BEGINNING, number, 0))
        add(cache, (*BEGINNING, number), nbytes=32)
        assert cache.nbytes == min(number - 99, 10) * 32 <= cache.capacity
    kept = [cache.find(BASE, (*BEGINNING, number, 0))[0] for number in range(100, 130)]
    assert kept == [PREFIX_TOKENS_MIN] * 20 + [PREFIX_TOKENS_MIN + 1] * 10
    add(cache, (*BEGINNING, 120, 7), nbytes=32)  # replaces its own beginning
    assert cache.nbytes == cache.capacity


def test_of_equal_prefixes_the_smallest_is_found():
    """Each short question copied the whole state of a long one for the template that both have."""
    cache = PrefixCache(1 << 20)
    add(cache, (*BEGINNING, 1), nbytes=32)
    add(cache, (*BEGINNING, 2), nbytes=320)
    length, found = cache.find(BASE, (*BEGINNING, 3, 0))
    assert (length, found.nbytes) == (PREFIX_TOKENS_MIN, 32)


def test_prompts_that_are_submitted_together_share_what_is_computed_of_their_beginning(engine):
    shared, options = b"Tom has 3 apples and buys 4 more. ", Options(max_tokens=1, namespace="together")
    handles = engine.submit_all([Request((*shared, end), options) for end in b"xyz"])
    cached = [handle.answer().usage.cached_tokens for handle in handles]
    assert sorted(cached) == [0, len(shared), len(shared)]


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_a_restored_prefix_gives_the_same_tokens_as_a_computed_one(wide_heads, kv):
    """One slot; prefill in batches of 32, which differ from those after a restored prefix."""
    first = tuple(b"Tom has 3 apples and buys 4 more. How many apples does he have? ")
    second = first[:50] + tuple(b"Or does he want some pears? ")
    options = FIXED | {"context": 128, "slots": 1, "batch": 32, "kv": kv}

    def greedy(engine, *prompts):
        """The tokens of each request, one after the other, and how many tokens of its prompt were cached."""
        handles = [engine.submit(Request(one, Options(max_tokens=24, ignore_end=True))) for one in prompts]
        tokens = [[token for piece in handle for token in piece.tokens] for handle in handles]
        cached = [handle.answer().usage.cached_tokens for handle in handles]
        return list(zip(tokens, cached, strict=True))

    with Engine(wide_heads, **options, prefix_bytes=0) as engine:
        (one, _), (other, _) = greedy(engine, first, second)
    assert one != other
    with Engine(wide_heads, **options) as engine:
        assert greedy(engine, first, second, first) == [(one, 0), (other, 50), (one, len(first) - 1)]
        engine.clear_prefix_cache()
        assert greedy(engine, first) == [(one, 0)]
