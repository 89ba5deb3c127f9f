"""The real library: SmolLM2 and a tiny random model, compared with llama-cpp-python's high-level API."""

import json
import re
from dataclasses import replace

import llama_cpp
import numpy as np
import pytest
from thirteen.errors import AdapterError, RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.grammar.grammar import from_lark, from_regex, from_schema
from thirteen.runtime.llama.constraint import Constraint, GrammarCompiler
from thirteen.runtime.llama.context import KV_TYPES, Context, ContextParams, Span
from thirteen.runtime.llama.library import LOG
from thirteen.runtime.llama.model import LoraAdapter, Model
from thirteen.runtime.llama.sampler import Sampler
from thirteen.runtime.request import Request, Sampling, StopReason

from ..fixed_settings import FIXED

QUESTION = "Tom has 3 apples and buys 4 more. How many apples does he have?"


@pytest.fixture(scope="module")
def model(smollm2):
    with Model(smollm2) as model:
        yield model


@pytest.fixture(scope="module")
def engine(smollm2):
    with Engine(smollm2, context=256, slots=4, prefix_bytes=0, **FIXED) as engine:
        yield engine


@pytest.fixture(scope="module")
def high_level(smollm2):
    # Flash attention as by default here: without it, near ties are decided differently on some processors.
    llama = llama_cpp.Llama(
        str(smollm2), n_ctx=256, n_threads=1, n_threads_batch=2, flash_attn=True, verbose=False
    )
    yield llama
    llama.close()


def params(**sizes):
    return ContextParams(**{"context": 128, "slots": 2, "batch": 64, "threads": 1, "outputs": 64} | sizes)


def run(engine, *requests):
    handles = [engine.submit(request) for request in requests]
    return [[token for piece in handle for token in piece.tokens] for handle in handles]


def test_a_chat_prompt_has_the_tokens_of_the_rendered_text(engine, high_level):
    messages = ("system\nBe brief.", f"user\n{QUESTION}")
    prompt = "".join(f"<|im_start|>{message}<|im_end|>\n" for message in messages) + "<|im_start|>assistant\n"
    expected = high_level.tokenize(prompt.encode(), add_bos=False, special=True)
    assert list(engine._encoder.encode_question(QUESTION, "Be brief.")) == expected


def test_greedy_tokens_are_those_of_llama_cpp_python(engine, high_level):
    prompt = engine._encoder.encode_question(QUESTION)
    expected = []
    for token in high_level.generate(list(prompt), temp=0.0, repeat_penalty=1.0):
        if len(expected) == 16 or engine.model.is_eog(token):
            break
        expected.append(token)
    assert run(engine, Request(prompt, max_tokens=16))[0] == expected


def test_the_same_request_gives_the_same_tokens_again(engine):
    prompt = engine._encoder.encode_question("Write a poem.")
    for sampling in (Sampling(), Sampling(temperature=0.9, seed=5)):
        request = Request(prompt, 8, sampling)
        assert run(engine, request) == run(engine, request)


def test_sampling_follows_llama_cpps_chain(model):
    """All samples lie within the cut-offs computed here from the same logits, and likely ones prevail."""
    sampling = Sampling(temperature=0.8, top_k=30, top_p=0.9, min_p=0.02, seed=7)
    with Context(model, params()) as context, Sampler(model, sampling) as sampler:
        (row,) = context.decode([Span(0, 0, (1, 9690, 198), 1)])
        logits = context.logits_row(row).astype(np.float64)
        samples = [sampler.sample(context, row) for _ in range(200)]
    order = np.argsort(-logits)[:30]
    probabilities = np.exp(logits[order] - logits[order[0]])
    allowed = order[: 1 + np.searchsorted(np.cumsum(probabilities / probabilities.sum()), 0.9)]
    allowed = allowed[np.exp(logits[allowed] - logits[order[0]]) >= 0.02]
    assert set(samples) <= set(allowed)
    assert max(set(samples), key=samples.count) in order[:3]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_digit_excludes_tokens_that_extend_a_number(model, temperature):
    sampling = Sampling(temperature=temperature)
    tokens = tuple(model.tokenize("The year was 19", special=False, bos=False))
    with Context(model, params()) as context, Sampler(model, sampling) as sampler:
        (row,) = context.decode([Span(0, 0, tokens, 1)])
        assert model.token_to_piece(sampler.sample(context, row)).isdigit(), "the likeliest ones are digits"
        others = {model.token_to_piece(sampler.sample(context, row, no_digit=True)) for _ in range(20)}
    assert others and not any(piece.lstrip(b".,")[:1].isdigit() for piece in others)


def test_a_sum_in_a_real_models_answer_is_right(engine):
    """The calculator inserts the digits of its result."""
    question = "Repeat this line and nothing else: 137 * 246 ="
    answer = engine.answer(question, max_tokens=40)
    assert "137 * 246 = 33702" in answer.text
    assert answer.steps and all(step.ok for step in answer.steps)


SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_follows_its_schema_to_the_end(engine, temperature):
    sampling = Sampling(temperature=temperature, min_p=0, seed=3)
    answers = engine.answers(["What is 3 + 4?", "Hello"], sampling=sampling, grammar=from_schema(SCHEMA))
    for answer in answers:
        assert (answer.stop_reason, list(json.loads(answer.text))) == (StopReason.END, ["sum"])


LONG_KEYS = {f"a_rather_long_name_number_{n}": {"type": "boolean"} for n in range(4)}
LONG = from_schema({"type": "object", "properties": LONG_KEYS, "required": [*LONG_KEYS]})


def test_tokens_that_a_grammar_forces_are_not_sampled(engine):
    answer = engine.answer("Hello", grammar=LONG)
    assert [*json.loads(answer.text)] == [*LONG_KEYS] and answer.stop_reason is StopReason.END
    assert answer.usage.sampled_tokens < answer.usage.completion_tokens / 2


def test_forced_tokens_can_be_sampled_instead(engine):
    forced = engine.request("Yes or no?", grammar=LONG)
    handles = engine.submit_all([forced, replace(forced, insert_forced=False)])
    answers = [handle.answer() for handle in handles]
    assert [[*json.loads(answer.text)] for answer in answers] == [[*LONG_KEYS]] * 2
    assert 2 * answers[0].usage.sampled_tokens < answers[1].usage.sampled_tokens


def test_forced_tokens_count_and_stop_like_sampled_ones(engine):
    short = engine.answer("Hello", grammar=LONG, max_tokens=7)
    assert (short.stop_reason, short.usage.completion_tokens) == (StopReason.LENGTH, 7)
    stopped = engine.answer("Hello", grammar=LONG, stop=["long_name"])
    assert (stopped.stop_reason, stopped.text[-9:]) == (StopReason.STOP, "a_rather_")


def test_eight_sequences_have_a_position_each_in_a_grammar(smollm2):
    with Engine(smollm2, context=256, slots=8, **FIXED) as engine:
        grammar = from_regex("[a-z]{1,40}![0-9]")
        requests = [
            replace(engine.request("Hello", grammar=grammar), sampling=Sampling(temperature=2.0, seed=seed))
            for seed in range(8)
        ]
        answers = [handle.answer() for handle in engine.submit_all(requests)]
    assert all(re.fullmatch("[a-z]{1,40}![0-9]", answer.text) for answer in answers)
    assert len({answer.text for answer in answers}) > 1


def test_a_grammar_that_fails_midway_fails_its_request_alone(engine, monkeypatch):
    def fail(_):
        raise RequestError("grammar: too many items")

    monkeypatch.setattr(Constraint, "take_forced", fail)
    requests = [engine.request("Hello", max_tokens=8, grammar=grammar) for grammar in (LONG, None)]
    constrained, free = engine.submit_all(requests)
    assert free.answer().usage.completion_tokens == 8
    with pytest.raises(RequestError, match="too many items"):
        constrained.answer()


def test_a_grammar_can_force_unlikely_text(engine):
    answer = engine.answer("Hello", grammar=from_lark('start: "Ω<|im_start|>≠" /[x-z]{3}/ "\\n"'))
    assert re.fullmatch("Ω<\\|im_start\\|>≠[x-z]{3}\n", answer.text), answer.text


def test_control_tokens_are_not_allowed_in_a_free_string(model):
    """They have no text, so that an answer with them would not be what the grammar saw."""
    allowed = set(GrammarCompiler(model).constraint(from_regex("[^x]*")).allowed().tolist())
    control = set(model.control_tokens.values())
    assert allowed & control == {token for token in control if model.is_eog(token)}
    assert len(allowed) > model.vocabulary_size // 2


def test_a_sequence_does_not_depend_on_the_others_in_its_batch(model):
    """The logits of a slot differ only by rounding when other slots are in the batch."""
    prompts = [
        tuple(model.tokenize(text, special=False, bos=False)) for text in ("One two three", "Red green blue")
    ]
    with Context(model, params()) as context:
        alone = [context.logits_row(context.decode([Span(0, 0, prompts[0], 1)])[0]).copy()]
        context.clear(0)
        rows = context.decode([Span(slot, 0, prompt, 1) for slot, prompt in enumerate(prompts)])
        together = context.logits_row(rows[0]).copy()
    assert np.abs(alone[0] - together).max() < 0.05 * alone[0].std()
    assert alone[0].argmax() == together.argmax()


def test_a_full_context_ends_one_answer_and_no_other(smollm2):
    with Engine(smollm2, context=64, slots=2, threads=1) as engine:
        full, alone = engine.answers([QUESTION + " Explain." * 4, "Say hi."], max_tokens=8)
        assert full.stop_reason is StopReason.LENGTH
        assert alone.usage.completion_tokens > 0
        with pytest.raises(RequestError, match=r"tokens, but the context holds 64"):
            engine.answer(QUESTION * 10)


@pytest.mark.slow
def test_logits_are_those_of_each_position(engine):
    """Over more than one batch: the last row of each prefix is that row of the whole text."""
    tokens = engine.model.tokenize("Twelve times thirteen is " * 16, special=False, bos=False)
    logits = engine.logits(tokens)
    assert logits.shape == (len(tokens), engine.model.vocabulary_size)
    for length in (1, 64, len(tokens)):
        assert np.abs(engine.logits(tokens[:length])[-1] - logits[length - 1]).max() < 0.05 * logits.std()
    assert np.array_equal(logits, engine.logits(tokens))


@pytest.mark.parametrize(
    "spans",
    [
        [],
        [Span(0, 0, (), 0)],
        [Span(0, 0, (1,) * 65, 1)],
        [Span(2, 0, (1,), 1)],
        [Span(-1, 0, (1,), 1)],
        [Span(0, -1, (1,), 1)],
        [Span(0, 127, (1, 2), 1)],
        [Span(0, 0, (49152,), 1)],
        [Span(0, 0, (-1,), 1)],
        [Span(0, 0, (1,), 2)],
        [Span(0, 0, (1, 2, 3), 3), Span(1, 0, (1, 2), 2)],
    ],
)
def test_a_batch_that_would_abort_the_library_is_refused(model, spans):
    with Context(model, params(outputs=4)) as context, pytest.raises(RequestError):
        context.decode(spans)


WORDS = (1, 9690, 198, 2, 253, 1167)


@pytest.mark.parametrize("top", [0, 1, 5, 20])
def test_logprobs_are_those_of_the_logits(model, top):
    with Context(model, params()) as context:
        (row,) = context.decode([Span(0, 0, WORDS, 1)])
        logits = context.logits_row(row).astype(np.float64)
        expected = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        for token in (0, 7, int(logits.argmax())):
            found = context.logprob(row, token, top)
            assert found.token == token and abs(found.logprob - expected[token]) < 1e-4
            assert [one for one, _ in found.top] == np.argsort(-logits, kind="stable")[:top].tolist()
            assert np.allclose([value for _, value in found.top], np.sort(expected)[::-1][:top], atol=1e-4)


@pytest.mark.parametrize("kv", KV_TYPES)
def test_a_saved_sequence_gives_the_same_logits_in_another_slot_and_context(model, kv):
    """To the bit: the next token is computed in the same batch shape."""
    with Context(model, params(kv=kv)) as context, Context(model, params(kv=kv)) as other:
        context.decode([Span(0, 0, WORDS, 0)])
        state = context.save(0)
        computed = context.logits_row(*context.decode([Span(0, len(WORDS), (42,), 1)])).copy()
        assert context.restore(1, state, len(WORDS)) and context.length(1) == len(WORDS)
        same = context.logits_row(*context.decode([Span(1, len(WORDS), (42,), 1)])).copy()
        assert other.restore(1, state, len(WORDS))
        another = other.logits_row(*other.decode([Span(1, len(WORDS), (42,), 1)])).copy()
    assert np.array_equal(same, computed) and np.array_equal(another, computed)


@pytest.mark.parametrize("cut", [0, 1, 4, 12, 16, 100, -100, -1])
def test_a_truncated_state_is_refused_and_leaves_the_slot_empty(model, cut):
    with Context(model, params()) as context:
        context.decode([Span(0, 0, WORDS, 0)])
        state = context.save(0)
        computed = context.logits_row(*context.decode([Span(0, len(WORDS), (42,), 1)])).copy()
        assert not context.restore(1, state[:cut], len(WORDS)) and context.length(1) == 0
        assert context.restore(1, state, len(WORDS)), "the slot is still usable"
        assert np.array_equal(context.logits_row(*context.decode([Span(1, len(WORDS), (42,), 1)])), computed)
    assert "no reason" in LOG.take_errors(), "the next error would quote these messages"


def test_a_state_that_is_too_short_or_of_other_parameters_is_refused(model):
    with Context(model, params()) as context:
        context.decode([Span(0, 0, WORDS, 0)])
        state = context.save(0)
        assert not context.restore(1, state, len(WORDS) + 1) and context.length(1) == 0
        for another in ({"kv": "q8_0"}, {"slots": 3}):
            with Context(model, params(**another)) as other:
                assert not other.restore(0, state, len(WORDS)) and other.length(0) == 0


def test_a_state_that_does_not_fit_is_refused(tmp_path, write_tiny):
    import gguf

    keys = {"llama.context_length": (1024, gguf.GGUFValueType.UINT32, None)}
    with Model(write_tiny(tmp_path / "long.gguf", keys)) as model:
        with Context(model, params(context=1024, batch=1024)) as context:
            context.decode([Span(0, 0, (42,) * 600, 0)])
            state = context.save(0)
        with Context(model, params(context=256)) as context:
            assert not context.restore(0, state, 100) and context.length(0) == 0


@pytest.mark.parametrize(
    "sizes",
    [
        {"context": 0},
        {"context": 1 << 40},
        {"slots": 257, "batch": 300, "outputs": 300},
        {"slots": 65},
        {"batch": 0},
        {"batch": 2.5},
        {"outputs": 1},
        {"outputs": 65},
        {"kv": "q4_0"},
        {"threads": 100_000},
    ],
)
def test_params_out_of_range_are_refused(sizes):
    with pytest.raises(RequestError):
        params(**sizes)


def test_a_context_longer_than_the_trained_one_is_refused(model):
    with pytest.raises(RequestError, match=r"8192 tokens .* not 8193"):
        Context(model, params(context=8193))


def test_names_of_control_tokens_are_text_unless_special(model):
    assert model.tokenize("<|im_end|>", special=True, bos=False) == [2]
    plain = model.tokenize("<|im_end|>", special=False, bos=False)
    assert 2 not in plain
    assert b"".join(map(model.token_to_piece, plain)) == b"<|im_end|>"


def test_any_text_comes_back_from_its_tokens(model):
    for text in ("", "a\0b", "naïve 😀 中文\r\n\t  x", "a" * 3000, "1" * 3000, "\ud800"):
        pieces = b"".join(map(model.token_to_piece, model.tokenize(text, special=False, bos=False)))
        assert pieces == text.encode("utf-8", "replace")


def test_text_is_normalized_for_qwen_only(tmp_path, write_tiny):
    import gguf

    for pre, expected in (("qwen2", "é".encode()), ("llama-bpe", "e\u0301".encode())):
        path = write_tiny(
            tmp_path / f"{pre}.gguf", {"tokenizer.ggml.pre": (pre, gguf.GGUFValueType.STRING, None)}
        )
        with Model(path) as model:
            tokens = model.tokenize("e\u0301", special=False, bos=False)
            assert b"".join(map(model.token_to_piece, tokens)) == expected


def test_nothing_is_printed(capfd, smollm2):
    with Engine(smollm2, context=64, slots=1, threads=1) as engine:
        engine.answer("hi", max_tokens=2)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def lora(tmp_path):
    """An adapter of the tiny model that changes one matrix."""
    import gguf

    def write(
        architecture="llama", name="blk.0.attn_q.weight", a=(1, 64), b=(64, 1), alpha=1.0, kind="adapter"
    ):
        path = tmp_path / "adapter.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        (writer.add_string if isinstance(kind, str) else writer.add_uint32)("general.type", kind)
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        random = np.random.default_rng(1)
        writer.add_tensor(name + ".lora_a", random.normal(size=a).astype(np.float32))
        writer.add_tensor(name + ".lora_b", random.normal(size=b).astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def test_an_adapter_gives_the_logits_of_the_merged_model(tmp_path, tiny, write_tiny, lora):
    random = np.random.default_rng(1)
    a, b = (random.normal(size=shape).astype(np.float32) for shape in ((1, 64), (64, 1)))
    with Engine(tiny, threads=1) as engine:
        base = engine.logits([1, 2, 3])
    arrays = {"blk.0.attn_q.weight": base_matrix(tiny, "blk.0.attn_q.weight") + b @ a}
    with Engine(write_tiny(tmp_path / "merged.gguf", {}, arrays), threads=1) as engine:
        merged = engine.logits([1, 2, 3])
    with Engine(tiny, adapter=lora(), threads=1) as engine:
        adapted = engine.logits([1, 2, 3])
    assert np.abs(adapted - merged).max() < 1e-3 * np.abs(merged - base).max()


def base_matrix(path, name):
    import gguf

    (tensor,) = [tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == name]
    return tensor.data


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "qwen2"},
        {"kind": "model"},
        {"kind": 7},  # llama.cpp reads it as a string without checking, and aborts
        {"name": "blk.9.attn_q.weight"},
        {"name": "blk.0.attn_norm.weight"},
        {"name": "token_embd.weight", "b": (259, 1)},
        {"a": (1, 32)},
        {"b": (32, 1)},
        {"a": (2, 64)},
        {"alpha": float("nan")},
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(tiny, lora, changes):
    with Model(tiny) as model, pytest.raises(AdapterError, match=r"adapter\.gguf: "):
        LoraAdapter(model, lora(**changes))
