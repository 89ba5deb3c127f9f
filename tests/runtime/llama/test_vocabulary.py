"""Vocabularies of all tokenizers: texts to tokens and back, long texts, and names of control tokens."""

from contextlib import ExitStack
from functools import cache

import pytest
from thirteen.files.gguf.header import read_header
from thirteen.runtime.llama.model import Model

from ..tiny_decoders import TOKENS, write_decoder

# Ordinary runs, and one that matches letters with spaces between them.
PRE_TOKENIZERS = ("deepseek-llm", "exaone-moe")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """opened(tokenizer, **keys): a model with that tokenizer."""
    with ExitStack() as models:

        @cache
        def get(tokenizer, **keys):
            path = write_decoder(tmp_path_factory.mktemp("decoder") / "a.gguf", "gemma", tokenizer, **keys)
            return models.enter_context(Model(read_header(path), repack=False))

        yield get


@pytest.mark.parametrize("tokenizer", TOKENS)
def test_texts_are_the_same_after_their_tokens(opened, tokenizer):
    model = opened(tokenizer)
    text = "ab12c" if tokenizer not in {"bert", "t5"} else "ab"
    tokens = model.tokenize(text, special=False, bos=False)
    assert b"".join(map(model.token_to_piece, tokens)).strip() == text.encode()
    assert set(model.control_tokens) == set(TOKENS[tokenizer][:3])
    assert all(model.token_to_piece(token).lstrip(b".,")[:1].isdigit() for token in model.digit_tokens)
    assert model.digit_tokens or tokenizer == "bert"  # its digits begin words
    assert not model.tokenize("", special=False, bos=False)


@pytest.mark.parametrize("tokenizer", TOKENS)
def test_no_text_becomes_a_control_token(opened, tokenizer):
    model = opened(tokenizer)
    (unknown, *control) = model.control_tokens.items()
    for name, token in control:
        tokens = model.tokenize(f"a {name}{name} b", special=False, bos=False)
        assert token not in tokens
        if tokenizer in {"llama", "gpt2"}:
            assert b"".join(map(model.token_to_piece, tokens)).decode().strip() == f"a {name}{name} b"
        assert token in model.tokenize(name, special=True, bos=False)
    assert unknown[0] in TOKENS[tokenizer]


def test_a_vocabulary_without_token_types_has_control_tokens_by_their_names(opened):
    assert opened("gpt2", token_type=None).control_tokens == {"</s>": 2}


def test_a_text_within_another_begins_without_a_space(opened):
    """A sum's result had a space between its sign and its digits."""
    model = opened("llama")
    pieces = [
        b"".join(map(model.token_to_piece, model.tokenize("12", special=False, bos=False, continues=within)))
        for within in (False, True)
    ]
    assert pieces == [b" 12", b"12"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
@pytest.mark.parametrize("letter", ["a", "1", "a "])
def test_a_megabyte_of_one_letter_does_not_overflow_the_stack(opened, pre, letter):
    model, text = opened("gpt2", pre=pre), letter * ((1 << 20) // len(letter))
    assert len(model.tokenize(text, special=False, bos=False)) == len(text)


def test_any_text_comes_back_from_its_tokens(smollm2):
    with Model(smollm2, vocabulary_only=True) as model:
        for text in ("", "a\0b", "naïve 😀 中文\r\n\t  x", "a" * 3000, "1" * 3000, "\ud800"):
            pieces = b"".join(map(model.token_to_piece, model.tokenize(text, special=False, bos=False)))
            assert pieces == text.encode("utf-8", "replace")


def test_metadata_tells_what_a_tokenizer_does_and_llama_cpp_does_not(tmp_path, write_tiny):
    cases = (("qwen2", "e\u0301", "é"), ("llama-bpe", "e\u0301", "e\u0301"), ("llama-bpe", " a b", "a b"))
    values = {"thirteen.tokenizer.space_once": True, "thirteen.tokenizer.rstrip": ["<|im_start|>", "absent"]}
    for pre, text, expected in cases:
        with Model(write_tiny(tmp_path / "a.gguf", {"tokenizer.ggml.pre": pre, **values})) as model:
            tokens = model.tokenize(text, special=False, bos=False)
            assert b"".join(map(model.token_to_piece, tokens)).decode() == expected
            assert model.stripping_tokens == {"<|im_start|>"}
