"""The real library: SmolLM2 and tiny random models, compared with llama-cpp-python's high-level API."""

import json

import llama_cpp
import numpy as np
import pytest
from thirteen.errors import RequestError
from thirteen.runtime.answer import StopReason
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.grammar import from_lark, from_schema
from thirteen.runtime.llama.constraint import Constraint, GrammarCompiler
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.sampler import Sampler
from thirteen.runtime.llama.settings import Settings
from thirteen.runtime.options import SEED_MAX, Options

from ..fakes import FIXED

pytestmark = pytest.mark.slow

QUESTION = "Tom has 3 apples and buys 4 more. How many apples does he have?"
WORDS = (1, 90, 198, 2, 253, 167)
LONG_KEYS = {f"a_rather_long_name_number_{n}": {"type": "boolean"} for n in range(4)}
LONG = from_schema({"type": "object", "properties": LONG_KEYS, "required": [*LONG_KEYS]})


@pytest.fixture(scope="module")
def smollm2_engine(smollm2):
    with Engine(smollm2, context=256, slots=4, prefix_bytes=0, **FIXED) as engine:
        yield engine


@pytest.fixture(scope="module")
def model(smollm2_engine):
    return smollm2_engine.model


@pytest.fixture(scope="module")
def small(wide_heads):
    with Model(wide_heads) as model:
        yield model


def params(**sizes):
    return Settings(**{"context": 128, "slots": 2, "batch": 64, "threads": 1, "outputs": 64} | sizes)


def decode_next(context, slot):
    """The logits of one more token."""
    return context.logits_row(*context.decode([Span(slot, len(WORDS), (42,), 1)])).copy()


def test_prompts_and_greedy_tokens_are_those_of_llama_cpp_python(smollm2_engine, smollm2):
    # Flash attention as by default here: without it, near ties are decided differently on some processors.
    sizes = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 2}
    high_level = llama_cpp.Llama(str(smollm2), flash_attn=True, verbose=False, **sizes)
    messages = ("system\nBe brief.", f"user\n{QUESTION}")
    text = "".join(f"<|im_start|>{message}<|im_end|>\n" for message in messages) + "<|im_start|>assistant\n"
    request, expected = smollm2_engine.request(QUESTION, system="Be brief.", max_tokens=16), []
    assert list(request.tokens) == high_level.tokenize(text.encode(), add_bos=False, special=True)
    for token in high_level.generate(list(request.tokens), temp=0.0, repeat_penalty=1.0):
        if len(expected) == 16 or smollm2_engine.model.is_eog(token):
            break
        expected.append(token)
    high_level.close()
    assert [token for piece in smollm2_engine.submit(request) for token in piece.tokens] == expected


def test_sampling_follows_llama_cpps_chain(model):
    """All samples lie within the cut-offs computed here from the same logits, and likely ones prevail."""
    options = Options(temperature=0.8, top_k=30, top_p=0.9, min_p=0.02, seed=SEED_MAX)
    with Context(model, params()) as context, Sampler(model, options) as sampler:
        (row,) = context.decode([Span(0, 0, (1, 9690, 198), 1)])
        logits = context.logits_row(row).astype(np.float64)
        samples, others = (
            [sampler.sample(context, row, no_digit=no_digit) for _ in range(200)]
            for no_digit in (False, True)
        )
    order = np.argsort(-logits)[:30]
    probabilities = np.exp(logits[order] - logits[order[0]])
    allowed = order[: 1 + np.searchsorted(np.cumsum(probabilities / probabilities.sum()), 0.9)]
    allowed = allowed[np.exp(logits[allowed] - logits[order[0]]) >= 0.02]
    assert set(samples) <= set(allowed)
    assert others != samples, "the numbers after a result are other random ones"
    assert max(set(samples), key=samples.count) in order[:3]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_digit_excludes_tokens_that_extend_a_number(model, temperature):
    tokens = tuple(model.tokenize("The year was 19", special=False, bos=False))
    options = Options(temperature=temperature)
    with Context(model, params()) as context, Sampler(model, options) as sampler:
        (row,) = context.decode([Span(0, 0, tokens, 1)])
        assert model.token_to_piece(sampler.sample(context, row)).isdigit(), "the likeliest ones are digits"
        others = {model.token_to_piece(sampler.sample(context, row, no_digit=True)) for _ in range(20)}
    assert others and not any(piece.lstrip(b".,")[:1].isdigit() for piece in others)


def test_an_answer_follows_its_schema_to_the_end_and_what_that_forces_is_not_sampled(smollm2_engine):
    for answer in smollm2_engine.answers([QUESTION, "Hello"], grammar=LONG, temperature=1.5, min_p=0, seed=3):
        assert (answer.stop_reason, [*json.loads(answer.text)]) == (StopReason.END, [*LONG_KEYS])
        assert answer.usage.sampled_tokens < answer.usage.completion_tokens / 2


def test_a_grammar_that_fails_midway_fails_its_request_alone(engine, monkeypatch):
    def fail(_):
        raise RequestError("grammar: too many items")

    monkeypatch.setattr(Constraint, "take_forced", fail)
    requests = [engine.request("Hello", max_tokens=8, grammar=grammar) for grammar in (LONG, None)]
    constrained, free = engine.submit_all(requests)
    assert free.answer().usage.completion_tokens == 8
    with pytest.raises(RequestError, match="too many items"):
        constrained.answer()


def test_control_tokens_are_not_allowed_in_a_free_string(model):
    """They have no text, so that an answer with them would not be what the grammar saw."""
    allowed = set(GrammarCompiler(model).constraint(from_lark("start: /[^x]*/")).allowed().tolist())
    control = set(model.control_tokens.values())
    assert allowed & control == {token for token in control if model.is_eog(token)}
    assert len(allowed) > model.vocabulary_size // 2


def test_a_state_that_is_cut_too_short_or_of_other_parameters_is_refused_and_leaves_the_slot_empty(small):
    with Context(small, params()) as context, Context(small, params()) as again:
        context.decode([Span(0, 0, WORDS, 0)])
        state, computed = context.save(0), decode_next(context, 0)
        for cut in (12, -1):
            assert not context.restore(1, state[:cut], len(WORDS))
        for target in (context, again):
            assert target.restore(1, state, len(WORDS)), "the slot is still usable"
            assert np.array_equal(decode_next(target, 1), computed)
        for another in ({"kv": "q8_0"}, {"slots": 3}):
            with Context(small, params(**another)) as other:
                assert not other.restore(0, state, len(WORDS))
                other.decode([Span(0, 0, WORDS, 0)])
