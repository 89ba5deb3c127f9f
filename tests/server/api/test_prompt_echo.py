"""/v1/completions with `echo`: the prompt and its log-probabilities, as evaluation harnesses read them."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from operator import itemgetter
from threading import Event

import openai
import pytest
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.logits import log_softmax

from ..serving import open_engine, serve_engine

TEXT = "Zwölf Boxkämpfer jagen Viktor"
BOS = 256


@pytest.fixture(scope="module")
def client(tiny_server):
    with tiny_server.openai() as client:
        yield client


def complete(client, prompt=TEXT, **options):
    body = {"model": "tiny", "prompt": prompt, "echo": True, "max_tokens": 0, "temperature": 0} | options
    return client.completions.create(**body)


def test_the_prompt_is_echoed_with_its_log_probabilities(client, tiny_server):
    engine = tiny_server.service.engine
    tokens = engine.encode_text(TEXT)
    expected = log_softmax(engine.logits(tokens))[:-1]  # (tokens - 1, vocab)
    answer = complete(client, logprobs=5)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == (TEXT, "length")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(tokens), 0)
    first, *logprobs = choice.logprobs.token_logprobs
    assert first is None and choice.logprobs.top_logprobs[0] is None
    assert logprobs == pytest.approx(expected[range(len(tokens) - 1), tokens[1:]].tolist(), abs=0.05)
    # Several of the likeliest may be parts of characters, which have the same text.
    greedy = [max(top.values()) for top in choice.logprobs.top_logprobs[1:]]
    assert greedy == pytest.approx(expected.max(axis=1).tolist(), abs=0.05)


def test_offsets_lead_to_the_tokens(client):
    """Bytes of one character are tokens of their own here; they begin where the character does."""
    logprobs = complete(client, logprobs=0).choices[0].logprobs
    data, begin = TEXT.encode(), 0
    for token, offset in zip(logprobs.tokens[1:], logprobs.text_offset[1:], strict=True):
        assert offset == len(data[:begin].decode("utf-8", "ignore"))
        begin += len(token.encode()) if "\ufffd" not in token else 1
    assert (logprobs.tokens[0], begin) == ("", len(data)), "the begin-of-text token has no text"


def parse_logprobs(choices, context_lengths):
    """Sum and greediness of each continuation, as lm-evaluation-harness reads them."""
    results = []
    for choice, length in zip(sorted(choices, key=itemgetter("index")), context_lengths, strict=True):
        logprobs = choice["logprobs"]["token_logprobs"][length:-1]
        top = choice["logprobs"]["top_logprobs"][length:-1]
        greedy = all(one == max(best.values()) for one, best in zip(logprobs, top, strict=True))
        results.append((sum(logprobs), greedy))
    return results


def log_likelihood(engine, context, continuation):
    """Sum of the log-probabilities of the tokens of a continuation, by the exact logits."""
    rows = log_softmax(engine.logits([*context, *continuation]))[len(context) - 1 : -1]
    return rows[range(len(continuation)), [*continuation]].sum()


@pytest.mark.parametrize("model", ["tiny", "ending"])
def test_continuations_are_scored_as_a_harness_expects(model, request):
    """The harness drops the last token, which must not be the prompt's, even if the model ends at once."""
    with open_engine(request.getfixturevalue(model), context=256) as engine:
        context = engine.encode_text("Once upon a")
        greedy = int(engine.logits(context)[-1].argmax())
        pairs = [(context, tuple(b" time")), (context, (greedy,))]
        expected = [log_likelihood(engine, *pair) for pair in pairs]
        with serve_engine(engine, name="tiny") as server, server.openai() as client:
            prompts = [[*before, *after] for before, after in pairs]
            answer = complete(client, prompts, max_tokens=1, logprobs=1, seed=1234)
    found = parse_logprobs([choice.model_dump() for choice in answer.choices], [len(context)] * len(pairs))
    assert [score for score, _ in found] == pytest.approx(expected, abs=0.02)
    assert [is_greedy for _, is_greedy in found] == [False, True]


def test_tokens_are_taken_as_they_are(client):
    answer = complete(client, [*b"ab", BOS, *b"c"], logprobs=0)
    assert (answer.choices[0].text, answer.usage.prompt_tokens) == ("abc", 4)
    several = complete(client, [[97], [98, 99]], n=2)
    assert [choice.text for choice in several.choices] == ["a", "a", "bc", "bc"]


def test_the_completion_follows_the_prompt(client):
    alone = complete(client, echo=False, max_tokens=5, logprobs=1).choices[0]
    whole = complete(client, max_tokens=5, logprobs=1).choices[0]
    assert (whole.text, whole.finish_reason) == (TEXT + alone.text, alone.finish_reason)
    assert whole.logprobs.tokens[-5:] == alone.logprobs.tokens
    assert whole.logprobs.token_logprobs[-5:] == pytest.approx(alone.logprobs.token_logprobs, abs=1e-3)
    assert whole.logprobs.text_offset[-5:] == [len(TEXT) + at for at in alone.logprobs.text_offset]
    chunks = [chunk.choices[0] for chunk in complete(client, max_tokens=5, logprobs=1, stream=True)]
    assert "".join(choice.text for choice in chunks) == whole.text
    streamed = [value for choice in chunks if choice.logprobs for value in choice.logprobs.token_logprobs]
    assert streamed == pytest.approx(whole.logprobs.token_logprobs, abs=1e-3)


@pytest.mark.parametrize("echo", [True, False])
def test_offsets_of_a_stream_are_those_of_the_whole_text(client, echo):
    """They began at 0 in every chunk."""
    options = {"echo": echo, "max_tokens": 40, "logprobs": 0, "n": 2, "temperature": 1, "seed": 7}
    streamed, chunks = ([], []), 0
    for chunk in complete(client, stream=True, **options):
        (choice,) = chunk.choices
        if choice.logprobs:
            streamed[choice.index].extend(choice.logprobs.text_offset)
            chunks += 1
    assert chunks > 2
    assert [*streamed] == [one.logprobs.text_offset for one in complete(client, **options).choices]


def test_other_clients_are_answered_while_a_prompt_is_scored(tiny, monkeypatch):
    """Scoring takes seconds for a long prompt; health checks, and answers, must not wait for it."""
    started, ended = Event(), Event()
    score = Engine.prompt_logprobs

    def slow(*args, **options):
        started.set()
        assert ended.wait(60)
        return score(*args, **options)

    monkeypatch.setattr(Engine, "prompt_logprobs", slow)
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(1))
        engine = stack.enter_context(open_engine(tiny, slots=1, queue=1, context=256))
        server = stack.enter_context(serve_engine(engine, name="tiny"))
        client, http = stack.enter_context(server.openai()), stack.enter_context(server.http())
        stack.callback(ended.set)
        scoring = threads.submit(complete, client, logprobs=1)
        assert started.wait(60)
        assert http.get("/health").status_code == 200
        assert complete(client, echo=False, max_tokens=2).usage.completion_tokens == 2
        assert not server.service.idle, "a draining server would not wait for the scores"
        with pytest.raises(openai.RateLimitError):
            complete(client, ["a", "b"], logprobs=1)
        ended.set()
        assert scoring.result().choices[0].text == TEXT
