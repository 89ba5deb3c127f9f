"""OpenAI's chat and text completions, and models, with its own client."""

import math

import openai
import pytest
from thirteen.runtime.llama.context import log_softmax

from ..serving import open_engine, serve_engine

pytestmark = pytest.mark.slow

MESSAGES = [{"role": "user", "content": "List the days of the week."}]
TEXT = "Zwölf Boxkämpfer jagen Viktor"
BOS = 256


def chat(client, messages=MESSAGES, **options):
    return client.chat.completions.create(
        **{"model": "default", "messages": messages, "max_tokens": 24, "temperature": 0} | options
    )


def test_stream_has_the_clients_fields(smollm2_server):
    chunks = list(chat(smollm2_server.openai(), stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert [choice.delta.role for choice in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert len([choice for choice in deltas if choice.finish_reason]) == 1
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 5
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(deltas) > 5, "the text does not arrive token by token"


def test_answers_differ_and_a_seed_reproduces_them(tiny_client):
    def answers(**options):
        response = chat(tiny_client, n=3, temperature=1.0, max_tokens=12, **options)
        assert [choice.index for choice in response.choices] == [0, 1, 2]
        return [choice.message.content for choice in response.choices], response.usage

    (texts, usage), (again, _) = answers(seed=5), answers(seed=5)
    assert texts == again and len(set(texts)) > 1
    assert usage.completion_tokens > chat(tiny_client, max_tokens=12).usage.completion_tokens
    assert usage.prompt_tokens == chat(tiny_client, max_tokens=1).usage.prompt_tokens
    assert answers()[0] != texts, "the default seed is random"


def test_logprobs(smollm2_server):
    answer = chat(smollm2_server.openai(), logprobs=True, top_logprobs=3, max_tokens=6)
    content = answer.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in content).decode() == answer.choices[0].message.content
    for token in content:
        assert token.top_logprobs[0].token == token.token, "greedy sampling takes the most likely token"
        assert [top.logprob for top in token.top_logprobs] == sorted(
            (t.logprob for t in token.top_logprobs), reverse=True
        )
        assert 0 < sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1.000001


def test_models(tiny_client):
    assert [model.id for model in tiny_client.models.list()] == ["tiny"]
    assert tiny_client.models.retrieve("tiny").owned_by == "thirteen"
    with pytest.raises(openai.NotFoundError):
        tiny_client.models.retrieve("gpt-4o")


def test_penalties_and_biases_reach_the_engine(tiny_client):
    def text(**options):
        body = {"model": "tiny", "prompt": "a", "max_tokens": 12, "temperature": 0}
        return tiny_client.completions.create(**body | options).choices[0].text

    assert text(logit_bias={"98": 100}) == "b" * 12
    assert text() not in {text(frequency_penalty=2), text(extra_body={"repeat_penalty": 100.0})}


def complete(client, prompt=TEXT, **options):
    body = {"model": "tiny", "prompt": prompt, "echo": True, "max_tokens": 1, "temperature": 0} | options
    return client.completions.create(**body)


def test_the_prompt_is_echoed_with_its_log_probabilities(tiny_client, tiny_server):
    engine = tiny_server.service.engine
    tokens = engine.encode_text(TEXT)
    expected = log_softmax(engine.logits(tokens))[:-1]  # (tokens - 1, vocab)
    answer = complete(tiny_client, logprobs=5)
    (choice,) = answer.choices
    assert choice.text.startswith(TEXT) and choice.finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(tokens), 1)
    first, *logprobs, _ = choice.logprobs.token_logprobs
    assert first is None and choice.logprobs.top_logprobs[0] is None
    assert logprobs == pytest.approx(expected[range(len(tokens) - 1), tokens[1:]].tolist(), abs=0.05)
    # Several of the likeliest may be parts of characters, which have the same text.
    greedy = [max(top.values()) for top in choice.logprobs.top_logprobs[1:-1]]
    assert greedy == pytest.approx(expected.max(axis=1).tolist(), abs=0.05)


def test_an_echo_has_a_log_probability_behind_the_prompt_even_if_the_model_ends_at_once(ending):
    """lm-evaluation-harness drops the last one, which must not be the prompt's."""
    with open_engine(ending, context=256) as engine, serve_engine(engine, name="tiny") as server:
        (choice,) = complete(server.openai(), [97, 98], logprobs=1).choices
    assert (choice.text, len(choice.logprobs.token_logprobs)) == ("ab", 3)


def test_tokens_are_taken_as_they_are(tiny_client):
    answer = complete(tiny_client, [*b"ab", BOS, *b"c"], logprobs=0)
    assert answer.choices[0].text.startswith("abc") and answer.usage.prompt_tokens == 4
    several = complete(tiny_client, [[97], [98, 99]], n=2)
    starts = ("a", "a", "bc", "bc")
    assert all(choice.text.startswith(text) for choice, text in zip(several.choices, starts, strict=True))


def test_the_completion_follows_the_prompt(tiny_client):
    alone = complete(tiny_client, echo=False, max_tokens=5, logprobs=1).choices[0]
    whole = complete(tiny_client, max_tokens=5, logprobs=1).choices[0]
    assert (whole.text, whole.finish_reason) == (TEXT + alone.text, alone.finish_reason)
    assert whole.logprobs.tokens[-5:] == alone.logprobs.tokens
    assert whole.logprobs.token_logprobs[-5:] == pytest.approx(alone.logprobs.token_logprobs, abs=1e-3)
    chunks = [chunk.choices[0] for chunk in complete(tiny_client, max_tokens=5, logprobs=1, stream=True)]
    assert "".join(choice.text for choice in chunks) == whole.text
    streamed = [value for choice in chunks if choice.logprobs for value in choice.logprobs.token_logprobs]
    assert streamed == pytest.approx(whole.logprobs.token_logprobs, abs=1e-3)
