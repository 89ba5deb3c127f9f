"""Prefix cache: it finds the longest prefix, keeps to its capacity, and verifies every file."""

from hashlib import sha256
from itertools import takewhile
from operator import eq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.prefix_cache import PREFIX_TOKENS_MIN, PrefixCache
from thirteen.runtime.request import PrefixKey, Request

from ..fixed_settings import FIXED

TOKENS = st.builds(
    lambda length, rest: (*range(length), *rest),
    st.integers(PREFIX_TOKENS_MIN - 2, PREFIX_TOKENS_MIN + 4),
    st.lists(st.integers(0, 1), max_size=4),
)
PROMPT = tuple(range(100, 150))


def state(tokens, nbytes=64):
    """Bytes that depend on the tokens."""
    return np.frombuffer(sha256(repr(tokens).encode()).digest() * (nbytes // 32), np.uint8)


def add(cache, *prompts, adapter="base", nbytes=64):
    for prompt in prompts:
        cache.add(PrefixKey(adapter), prompt, state(prompt, nbytes))


def shared_length(one, other):
    return sum(takewhile(bool, map(eq, one, other)))


@given(st.lists(st.tuples(st.sampled_from("ab"), TOKENS), max_size=12), st.lists(TOKENS, max_size=4))
def test_the_longest_prefix_is_found_under_its_adapter_and_never_the_whole_prompt(entries, prompts):
    cache = PrefixCache(1 << 20)
    for adapter, tokens in entries:
        add(cache, tokens, adapter=adapter)
    for prompt in (*prompts, *(tokens for _, tokens in entries)):
        for adapter in "ab":
            candidates = [tokens for name, tokens in entries if name == adapter]
            longest = max((shared_length(tokens, prompt[:-1]) for tokens in candidates), default=0)
            found = cache.find(PrefixKey(adapter), prompt)
            if longest < PREFIX_TOKENS_MIN:
                assert found is None
                continue
            assert found[0] == longest < len(prompt)
            sources = [tokens for tokens in candidates if tokens[:longest] == prompt[:longest]]
            assert any(np.array_equal(found[1], state(tokens)) for tokens in sources)


@given(st.lists(st.tuples(TOKENS, st.integers(1, 6), st.booleans()), max_size=20))
def test_memory_keeps_to_its_capacity_and_the_most_recently_used_stay(steps):
    capacity = 256
    cache, latest = PrefixCache(capacity), []
    for tokens, size, seek in steps:
        if seek and (found := cache.find(PrefixKey("base"), tokens)):
            used = next(entry for entry in latest if np.array_equal(found[1], state(*entry)))
            latest.remove(used)
            latest.append(used)
        else:
            add(cache, tokens, nbytes=size * 32)
            latest = [entry for entry in latest if entry[0] != tokens[: len(entry[0])]]
            latest.append((tokens, size * 32))
        while sum(size for _, size in latest) > capacity:
            latest.pop(0)
        assert cache.nbytes == sum(size for _, size in latest) <= capacity


def test_a_beginning_that_all_share_keeps_the_newest_entries():
    """As of a chat template: the oldest entry was refreshed each time, and newer ones were removed."""
    cache, beginning = PrefixCache(10 * 32), tuple(range(PREFIX_TOKENS_MIN))
    for number in range(100, 130):
        cache.find(PrefixKey("base"), (*beginning, number, 0))
        add(cache, (*beginning, number), nbytes=32)
    kept = [cache.find(PrefixKey("base"), (*beginning, number, 0))[0] for number in range(100, 130)]
    assert kept == [PREFIX_TOKENS_MIN] * 20 + [PREFIX_TOKENS_MIN + 1] * 10


def test_of_equal_prefixes_the_smallest_is_found():
    """Each short question copied the whole state of a long one for the template that both have."""
    cache, beginning = PrefixCache(1 << 20), tuple(range(PREFIX_TOKENS_MIN))
    add(cache, (*beginning, 1), nbytes=32)
    add(cache, (*beginning, 2), nbytes=320)
    length, found = cache.find(PrefixKey("base"), (*beginning, 3, 0))
    assert (length, found.nbytes) == (PREFIX_TOKENS_MIN, 32)


def test_clear_keeps_one_prefix():
    """Of a longer prompt only the prefix is kept, so that the rest is computed again."""
    cache, shared = PrefixCache(1 << 20), PROMPT[:20]
    add(cache, (*shared, 1, 2, 3), (*shared, 4, 5), tuple(range(30)))
    add(cache, (*shared, 6), adapter="other")
    cache.clear(PrefixKey("base"), keep=shared)
    found = cache.find(PrefixKey("base"), (*shared, 4, 5, 6))
    assert found[0] == len(shared)
    assert np.array_equal(found[1], state((*shared, 1, 2, 3)))
    assert (
        cache.find(PrefixKey("base"), tuple(range(30)))
        is cache.find(PrefixKey("other"), (*shared, 6, 7))
        is None
    )
    assert cache.nbytes == 64
    cache.clear(PrefixKey("base"), keep=())
    assert cache.find(PrefixKey("base"), (*shared, 4, 5, 6)) is None and cache.nbytes == 0


# With the real library.

QUESTION = tuple(b"Tom has 3 apples and buys 4 more. How many apples does he have? ")
OPTIONS = FIXED | {"context": 128, "slots": 1, "batch": 32}


def greedy(engine, *prompts, adapter=None):
    """The tokens of each request, one after the other, and how many tokens of its prompt were cached."""
    found = []
    for prompt in prompts:
        handle = engine.submit(Request(prompt, 24, adapter=adapter, ignore_end=True))
        tokens = [token for piece in handle for token in piece.tokens]
        found.append((tokens, handle.answer().usage.cached_tokens))
    return found


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_a_restored_prefix_gives_the_same_tokens_as_a_computed_one(wide_heads, kv):
    """One slot; prefill in batches of 32, which differ from those after a restored prefix."""
    first, second = QUESTION, QUESTION[:50] + tuple(b"Or does he want some pears? ")
    with Engine(wide_heads, **OPTIONS | {"kv": kv, "prefix_bytes": 0}) as engine:
        (one, _), (other, _) = greedy(engine, first, second)
    assert one != other
    with Engine(wide_heads, **OPTIONS | {"kv": kv}) as engine:
        assert greedy(engine, first, second, first) == [(one, 0), (other, 50), (one, len(first) - 1)]


def test_a_namespace_learns_nothing_of_another_but_the_templates_beginning():
    cache = PrefixCache(1 << 20)
    ours, theirs = PrefixKey("base", "ours"), PrefixKey("base", "theirs")
    cache.add(ours, PROMPT, state(PROMPT))
    assert cache.find(theirs, (*PROMPT, 1)) is None
    cache.shared = PROMPT[:20]
    assert [cache.find(key, (*PROMPT, 1))[0] for key in (ours, theirs)] == [len(PROMPT), 20]
    cache.shared = PROMPT[: PREFIX_TOKENS_MIN - 1]
    assert cache.find(theirs, (*PROMPT, 1)) is None
    cache.add(theirs, (*PROMPT, 1), state((*PROMPT, 1)))
    assert cache.find(ours, (*PROMPT, 1, 2))[0] == len(PROMPT), "not replaced by another namespace's entry"
