"""Prompt lookup: drafts are what stood before, and with them every answer is what it is without."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from thirteen.errors import RequestError
from thirteen.runtime.engine import dispatcher as intake_module
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.prompt_lookup import NGRAM, PromptLookup
from thirteen.runtime.request import Request, Sampling, StopReason

from ..conftest import tensors
from ..fakes import Babbler

DRAFTED = 5
PHRASE = tuple(b"one two three one two three ")
ADDING, SCALE = (["attn_output"], ["ffn_down"]), 0.05


def drafted_by_looking(tokens, most):
    """The latest place before the end where the last tokens stand, and what follows there."""
    for end in reversed(range(NGRAM, len(tokens))):
        if tokens[end - NGRAM : end] == tokens[-NGRAM:]:
            return tuple(tokens[end : end + most])
    return ()


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(0, 40), st.integers(0, 8))
def test_a_draft_is_what_followed_the_last_place_that_looked_alike(tokens, prompt, most):
    lookup = PromptLookup(tokens[:prompt])
    for token in tokens[prompt:]:
        lookup.feed(token)
    assert lookup.draft(most) == drafted_by_looking(tokens, most)


def told(engine, requests):
    """For each request, its tokens, text, reason to stop, usage and likelihood; all begin in one step."""
    found = []
    for handle in engine.submit_all(requests):
        pieces = list(handle)
        tokens = [token for piece in pieces for token in piece.tokens]
        text = "".join(piece.text for piece in pieces)
        assert text == pieces[-1].answer.text
        end = handle.wait()
        found.append((tokens, text, end.stop_reason, end.usage, end.log_likelihood))
    return found


def computed(engine):
    """The spans that an engine computes from here on."""
    native, spans = engine._runner._native, []
    decode, native.decode = native.decode, lambda batch: spans.extend(batch) or decode(batch)
    return spans


def test_right_drafts_take_fewer_steps(opened):
    question = Request(tuple(b"as they say, as they say, so"))
    plain, drafting = (opened(batch=2 * (1 + k), lookup=k) for k in (0, DRAFTED))
    spans = [computed(engine) for engine in (plain, drafting)]
    assert told(plain, [question]) == told(drafting, [question])
    assert len(spans[1]) < len(spans[0]) / 2


PROMPTS = st.lists(st.sampled_from(["ab", "1 + 1 =", "a.", "2"]), min_size=1, max_size=4).map(" ".join)
REQUESTS = st.builds(
    lambda text, **fields: Request(tuple(text.encode()), **fields),
    PROMPTS | PROMPTS.map(lambda text: text * 2),
    max_tokens=st.integers(1, 60),
    sampling=st.integers(0, 3).map(lambda seed: Sampling(seed=seed)),
    stop=st.sampled_from([(), ("a.",), ("=1",), ("22", "+*")]),
    calculator=st.booleans(),
    logprobs=st.none() | st.just(1),
    ignore_end=st.just(False),
)
EVERY_END = [  # and a sum's result put in: of the first by one fake, of the second by the other
    Request(tuple(b"1 + 1 ="), 60, calculator=True, ignore_end=False),
    Request(tuple(b"ab"), 60, Sampling(seed=11), calculator=True, ignore_end=False),
    Request(tuple(b"a."), 60, stop=("a.",), ignore_end=False),
    Request(tuple(b"2"), 60, Sampling(seed=0), stop=("=1",), ignore_end=False),
    Request(tuple(b"ab"), 1, Sampling(seed=0), ignore_end=False),
]


@pytest.mark.parametrize("says", ["its prompt again", "what its last tokens decide"])
def test_over_fakes_every_answer_is_what_it_is_without(opened, monkeypatch, says):
    """Whether drafts are right or wrong, and whatever ends an answer or puts tokens of its own in."""
    if says != "its prompt again":
        monkeypatch.setattr(intake_module, "Sampler", Babbler)
    room = {"context": 64, "slots": 3, "prefix_bytes": 0}
    plain = opened(batch=4, **room)
    drafting = [opened(batch=3 * (1 + k) + spare, lookup=k, **room) for k, spare in ((1, 0), (DRAFTED, 7))]
    reasons, found = set(), 0

    @example(EVERY_END)
    @given(st.lists(REQUESTS, min_size=1, max_size=4))
    def same(requests):
        nonlocal found
        without = told(plain, requests)
        reasons.update(reason for _, _, reason, _, _ in without)
        found += sum(
            "=" in text and usage.sampled_tokens < len(tokens) for tokens, text, _, usage, _ in without
        )
        for engine in drafting:
            assert told(engine, requests) == without

    same()
    assert reasons == {StopReason.END, StopReason.STOP, StopReason.LENGTH}
    assert found, "no result of a sum was put in"


@pytest.mark.parametrize("length", range(56, 61))
def test_a_context_that_fills_within_a_draft_ends_where_it_does_without(opened, length):
    question = Request(tuple(b"ab" * 30)[:length])
    plain, drafting = (opened(context=64, slots=1, batch=8, lookup=k) for k in (0, 7))
    without = told(plain, [question])
    assert without[0][2] is StopReason.LENGTH and len(without[0][0]) == 65 - length
    assert told(drafting, [question]) == without


def test_drafts_need_room_in_the_batch(opened):
    with pytest.raises(RequestError, match="batch 4 must be at least outputs 6"):
        opened(lookup=2)


@pytest.fixture(scope="module")
def repeating(tmp_path_factory, write_tiny):
    """The tiny model, but with layers that add little to what they get: so it repeats itself at times."""
    quiet = {name: SCALE * array for name, array in tensors().items() if name.split(".")[2:3] in ADDING}
    return write_tiny(tmp_path_factory.mktemp("repeating") / "repeating.gguf", arrays=quiet)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_real_library_says_what_it_says_without(repeating, temperature):
    """This model's choices are far enough apart that the rounding of another batch shape decides none."""
    requests = [
        Request(PHRASE * (1 + seed), 120, Sampling(temperature, seed=seed), ignore_end=True)
        for seed in range(3)
    ]
    room = {"context": 256, "slots": 3, "threads": 1, "batch": 64, "prefix_bytes": 0}
    with Engine(repeating, **room) as plain, Engine(repeating, lookup=DRAFTED, **room) as drafting:
        spans = [computed(engine) for engine in (plain, drafting)]
        without = told(plain, requests)
        assert told(drafting, requests) == without
    drafted = sum(span.rows - 1 for span in spans[1] if span.rows > 1)
    right = len(spans[0]) - len(spans[1])
    assert 0 < right < drafted, f"{right} of {drafted} tokens drafted were right"
