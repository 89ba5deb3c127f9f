"""Prompt lookup: drafts repeat earlier tokens, and every answer is the same with and without them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from thirteen.errors import RequestError
from thirteen.runtime.engine import dispatcher as dispatcher_module
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.prompt_lookup import NGRAM, PromptLookup
from thirteen.runtime.request import Request, Sampling, StopReason

from ..conftest import tensors
from ..fakes import HashSampler
from ..fixed_settings import FIXED

DRAFT_TOKENS = 5
PHRASE = tuple(b"one two three one two three ")
ADDING, SCALE = (["attn_output"], ["ffn_down"]), 0.05


def expected_draft(tokens, maximum):
    """What follows the latest earlier occurrence of the last tokens, found by scanning."""
    for end in reversed(range(NGRAM, len(tokens))):
        if tokens[end - NGRAM : end] == tokens[-NGRAM:]:
            return tuple(tokens[end : end + maximum])
    return ()


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(0, 40), st.integers(0, 8))
def test_a_draft_is_what_followed_the_latest_occurrence(tokens, prompt, maximum):
    lookup = PromptLookup(tokens[:prompt])
    for token in tokens[prompt:]:
        lookup.feed(token)
    assert lookup.draft(maximum) == expected_draft(tokens, maximum)


def run(engine, requests):
    """Tokens, text, stop reason, usage and likelihood of each request; all start in one step."""
    found = []
    for handle in engine.submit_all(requests):
        pieces = list(handle)
        tokens = [token for piece in pieces for token in piece.tokens]
        text = "".join(piece.text for piece in pieces)
        assert text == pieces[-1].answer.text
        end = handle.wait()
        found.append((tokens, text, end.stop_reason, end.usage, end.log_likelihood))
    return found


def record_spans(engine):
    """A list of the spans that the engine computes from now on."""
    context, spans = engine._runner._context, []
    decode, context.decode = context.decode, lambda batch: spans.extend(batch) or decode(batch)
    return spans


def test_right_drafts_take_fewer_steps(open_fake_engine):
    question = Request(tuple(b"as they say, as they say, so"))
    plain, drafting = (open_fake_engine(batch=2 * (1 + k), lookup=k) for k in (0, DRAFT_TOKENS))
    spans = [record_spans(engine) for engine in (plain, drafting)]
    assert run(plain, [question]) == run(drafting, [question])
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
EVERY_END = [  # and an inserted result: in the first by one fake, in the second by the other
    Request(tuple(b"1 + 1 ="), 60, calculator=True, ignore_end=False),
    Request(tuple(b"ab"), 60, Sampling(seed=11), calculator=True, ignore_end=False),
    Request(tuple(b"a."), 60, stop=("a.",), ignore_end=False),
    Request(tuple(b"2"), 60, Sampling(seed=0), stop=("=1",), ignore_end=False),
    Request(tuple(b"ab"), 1, Sampling(seed=0), ignore_end=False),
]


@pytest.mark.parametrize("sampler", ["repeats the prompt", "hashes the last tokens"])
def test_over_fakes_answers_are_the_same_without_drafts(open_fake_engine, monkeypatch, sampler):
    """Whether drafts are right or wrong, and whatever ends an answer or inserts tokens."""
    if sampler != "repeats the prompt":
        monkeypatch.setattr(dispatcher_module, "Sampler", HashSampler)
    options = {"context": 64, "slots": 3, "prefix_bytes": 0}
    plain = open_fake_engine(batch=4, **options)
    drafting = [
        open_fake_engine(batch=3 * (1 + k) + spare, lookup=k, **options)
        for k, spare in ((1, 0), (DRAFT_TOKENS, 7))
    ]
    reasons, inserted = set(), 0

    @example(EVERY_END)
    @given(st.lists(REQUESTS, min_size=1, max_size=4))
    def same(requests):
        nonlocal inserted
        without = run(plain, requests)
        reasons.update(reason for _, _, reason, _, _ in without)
        inserted += sum(
            "=" in text and usage.sampled_tokens < len(tokens) for tokens, text, _, usage, _ in without
        )
        for engine in drafting:
            assert run(engine, requests) == without

    same()
    assert reasons == {StopReason.END, StopReason.STOP, StopReason.LENGTH}
    assert inserted, "no result was inserted"


@pytest.mark.parametrize("length", range(56, 61))
def test_a_context_that_fills_within_a_draft_ends_at_the_same_token(open_fake_engine, length):
    question = Request(tuple(b"ab" * 30)[:length])
    plain, drafting = (open_fake_engine(context=64, slots=1, batch=8, lookup=k) for k in (0, 7))
    without = run(plain, [question])
    assert without[0][2] is StopReason.LENGTH and len(without[0][0]) == 65 - length
    assert run(drafting, [question]) == without


def test_drafts_need_space_in_the_batch(open_fake_engine):
    with pytest.raises(RequestError, match=r"^slots \* \(1 \+ lookup\) = 2 \* 3 = 6 exceeds batch 4$"):
        open_fake_engine(lookup=2)
    with pytest.raises(RequestError, match="lookup must be an integer from 0 to 65536, not 1000"):
        open_fake_engine(lookup=10**30)


@pytest.fixture(scope="module")
def repeating(tmp_path_factory, write_tiny):
    """The tiny model with layers that add little to their inputs, so that it repeats itself at times."""
    quiet = {name: SCALE * array for name, array in tensors().items() if name.split(".")[2:3] in ADDING}
    return write_tiny(tmp_path_factory.mktemp("repeating") / "repeating.gguf", arrays=quiet)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_real_library_gives_the_same_tokens_without_drafts(repeating, temperature):
    """This model has no ties so near that the rounding of another batch shape would decide them."""
    requests = [
        Request(PHRASE * (1 + seed), 120, Sampling(temperature, seed=seed), ignore_end=True)
        for seed in range(3)
    ]
    options = FIXED | {"context": 256, "slots": 3, "batch": 64, "prefix_bytes": 0}
    with Engine(repeating, **options) as plain, Engine(repeating, lookup=DRAFT_TOKENS, **options) as drafting:
        spans = [record_spans(engine) for engine in (plain, drafting)]
        without = run(plain, requests)
        assert run(drafting, requests) == without
    drafted = sum(span.rows - 1 for span in spans[1] if span.rows > 1)
    right = len(spans[0]) - len(spans[1])
    assert 0 < right < drafted, f"{right} of {drafted} tokens drafted were right"
