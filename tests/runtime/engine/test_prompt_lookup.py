"""Drafts: what is guessed, and that no text, end or count depends on it."""

from typing import Any

import pytest
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.prompt_lookup import PromptLookup
from thirteen.runtime.grammar.grammar import from_regex
from thirteen.runtime.native.ik_llama_library import installed

OPTIONS: list[dict[str, Any]] = [
    *({}, {"max_tokens": 1}, {"max_tokens": 5}),
    {"temperature": 1.0, "seed": 4, "repeat_penalty": 1.5},
    {"temperature": 1.0, "seed": 5, "stop": ["a", "e", "1"]},
    {"temperature": 1.0, "seed": 6, "grammar": from_regex("(yes|no|maybe){2,5}!")},
    # The calculator inserts a result.
    {"logit_bias": {**dict.fromkeys(b"0123456789", 50.0), ord("="): 60}, "frequency_penalty": 100},
]


def test_what_followed_the_last_two_tokens():
    lookup = PromptLookup([1, 2, 3, 4, 1, 2])
    assert lookup.draft([], 2) == (3, 4) and lookup.draft([], 9) == (3, 4, 1, 2)
    assert lookup.draft([5], 2) == () and lookup.draft([5, 1, 2], 3) == (5, 1, 2)
    assert lookup.draft([5, 1, 2], 0) == lookup.draft([5, 1, 2], -1) == ()
    assert PromptLookup([]).draft([7], 2) == PromptLookup([7]).draft([], 2) == ()


@pytest.fixture(scope="module")
def ik(tiny):
    if not installed():
        pytest.skip("ik_llama.cpp is not installed")
    with Engine(tiny, library="ik", threads=1, context=128, slots=1) as engine:
        yield engine


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_no_text_depends_on_drafts(ik, monkeypatch, options):
    request, found = ik.request("7 * 8 =", **{"max_tokens": 24} | options), PromptLookup.draft

    def answer(guess) -> tuple[tuple[Any, ...], int]:
        """What the engine says with these drafts, and the number of its steps with one."""
        drafts = []
        monkeypatch.setattr(PromptLookup, "draft", lambda *given: drafts.append(guess(*given)) or drafts[-1])
        handle = ik.submit(request)
        tokens = [token for piece in handle for token in piece.tokens]
        answer = handle.answer()
        assert all(len(draft) <= min(2, request.options.max_tokens) for draft in drafts)
        return (tokens, answer.text, answer.stop_reason, answer.usage.sampled_tokens), len(drafts)

    plain, _ = answer(lambda *_: ())
    assert answer(found)[0] == plain
    for wrong in ([], [0], [1], [0, 1]):  # places of a draft that are wrong

        def known(_, output, count, wrong=wrong):
            right = plain[0][len(output) :][:count]
            return tuple(token ^ (place in wrong) for place, token in enumerate(right))

        drafted, steps = answer(known)
        assert drafted == plain
        assert wrong or len(plain[0]) < 24 or plain[3] < 24 or steps <= 9


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
def test_drafts_fit_the_smallest_batches(tiny, ik, batch):
    with Engine(tiny, library="ik", threads=1, context=128, slots=1, batch=batch) as small:
        assert small.answer("xabcx", max_tokens=8, logit_bias={ord("a"): 100}).text == 8 * "a"
