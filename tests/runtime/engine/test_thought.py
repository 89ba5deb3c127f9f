"""Thoughts are told apart from answers, on streams of bytes and on a real, tiny model."""

import json
from dataclasses import replace

import numpy as np
import pytest
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.output_stream import OutputStream, Thought
from thirteen.runtime.grammar import from_schema
from thirteen.runtime.options import Options
from thirteen.runtime.prompt.chat_template import Thinking

from ...byte_level import byte_names
from ..conftest import CONTROL, EMBEDDING
from ..fakes import FIXED, TEMPLATES
from ..prompt.test_prompt_encoder import Bytes

MARKERS = ("<think>", "</think>")
FLAG = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


def read(tokens, *, begun=False, stop=(), vocabulary=Bytes()):  # noqa: B008 - it has no state
    """The thought and the text of a stream of tokens, and how many tokens are the thought's."""
    thought = Thought(Thinking.of("<think>", vocabulary), begun=begun, budget=99)
    output, pieces = OutputStream(vocabulary, Options(stop=stop), thought=thought), []
    for token in tokens:
        output.feed(token)
        pieces.append(thought.take())
    output.finish()
    pieces.append(thought.take())
    assert "".join(text for text, _ in pieces) == thought.text
    assert sum(count for _, count in pieces) == thought.tokens
    return thought.text, output.text, thought.tokens


def test_a_thought_is_at_the_beginning_and_ends_with_its_marker():
    for said, begun, found in (
        ("<think>\n12 é</think>\n\n7", False, ("12 é", "7", 23)),
        ("\n<think>a</think>b </think>", False, ("a", "b </think>", 17)),
        ("a </thin b\n</think>7", True, ("a </thin b", "7", 19)),
        ("<think>\n\n</think>\n\n7\n", False, ("", "7\n", 19)),
        ("a", True, ("a", "", 1)),
        ("\n<thin", False, ("", "\n<thin", 0)),
        (" <b> is no <think>a</think>", False, ("", " <b> is no <think>a</think>", 0)),
    ):
        assert read(said.encode(), begun=begun) == found


@pytest.fixture(scope="module", params=["qwen3", "deepseek-r1"])
def model(request, tmp_path_factory, write_tiny):
    """The tiny model with markers in its vocabulary, and the template of one that thinks."""
    tokens = [*byte_names(), *CONTROL, *MARKERS]
    values = {
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 256 + [3] * 3 + [4] * 2,
        "tokenizer.chat_template": TEMPLATES[request.param],
    }
    random = np.random.default_rng(13).normal(0, 0.3, (len(tokens), EMBEDDING)).astype(np.float32)
    path = tmp_path_factory.mktemp("thinks") / "tiny.gguf"
    with Engine(write_tiny(path, values, {"token_embd.weight": random}), **FIXED) as engine:
        yield engine


OPENING, CLOSING = 259, 260


def test_markers_can_be_control_tokens_and_stop_strings_end_answers_only(model):
    tokens = [OPENING, *b"\nso\n2 * 3 = ", CLOSING, *b"\n6\nx"]
    assert read(tokens, stop=("\n",), vocabulary=model.model) == ("so\n2 * 3 =", "6", 15)


def ask(engine, **options):
    """A request whose thought, which begins at once, does not end by itself."""
    bias = {OPENING: -100 if "<think>\\n' }}" in engine.chat_template[-40:] else 100, CLOSING: -100}
    return engine.request("Hi", temperature=1.0, seed=1, logit_bias=bias, **options)


@pytest.mark.parametrize(("budget", "tokens"), [(6, 6), (None, 150), (199, 150)])
def test_a_thought_ends_at_its_budget_and_a_grammar_begins_behind_it(model, budget, tokens):
    """By default, and at most, it has three quarters of all tokens."""
    grammar = from_schema(FLAG)
    request = ask(model, grammar=grammar, max_tokens=200, think_budget=budget, logprobs=0)
    pieces = list(model.submit(request))
    answer = pieces[-1].answer
    assert json.loads(answer.text)["ok"] in (True, False) and answer.warning is None
    assert answer.usage.thinking_tokens == tokens + 1 + len("\n\n\n")
    assert "".join(piece.thinking for piece in pieces) == answer.thinking
    spoken = [one.token for piece in pieces for one in piece.logprobs[piece.thinking_tokens :]]
    text = b"".join(map(model.model.token_to_piece, spoken)).decode()
    assert text == "".join(piece.text for piece in pieces) == answer.text
    assert model.default_max_tokens == 2048


def test_without_thought_the_prompt_has_ended_it(model):
    request = ask(model, think=False, max_tokens=12)
    answer = model.submit(request).answer()
    assert answer.usage.thinking_tokens == 0 and CLOSING in request.tokens and not answer.thinking
    raw = ask(model, max_tokens=12)
    answer = model.submit(replace(raw, options=replace(raw.options, think_budget=0))).answer()
    assert (answer.thinking, answer.usage.thinking_tokens) == ("", 0)
