"""Vocabularies of all tokenizers: texts to tokens and back, long texts, and names of control tokens."""

import pytest
from gguf import GGUFValueType as Kind
from thirteen.errors import FileError
from thirteen.files.gguf.header import Field, read_header
from thirteen.runtime.grammar.grammar import from_regex
from thirteen.runtime.llama.constraint import GrammarCompiler
from thirteen.runtime.llama.gguf_checks import check_model
from thirteen.runtime.llama.model import Model

from ..tiny_decoders import TOKENS, write_decoder

# Ordinary runs, and one that matches letters with spaces between them.
PRE_TOKENIZERS = ("deepseek-llm", "exaone-moe")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """opened(tokenizer, **keys): a model with that tokenizer."""
    models = {}

    def get(tokenizer, **keys):
        name = str((tokenizer, sorted(keys.items())))
        if name not in models:
            path = write_decoder(tmp_path_factory.mktemp("decoder") / "a.gguf", "gemma", tokenizer, **keys)
            header = read_header(path)
            check_model(header)
            models[name] = Model(header, repack=False)
        return models[name]

    yield get
    for model in models.values():
        model.close()


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


def test_a_text_within_another_begins_without_a_space(opened):
    """A sum's result had a space between its sign and its digits."""
    model = opened("llama")
    pieces = [
        b"".join(map(model.token_to_piece, model.tokenize("12", special=False, bos=False, continues=within)))
        for within in (False, True)
    ]
    assert pieces == [b" 12", b"12"]


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
@pytest.mark.parametrize("letter", ["a", "1", "a "])
def test_a_megabyte_of_one_letter_does_not_overflow_the_stack(opened, pre, letter):
    model, text = opened("gpt2", pre=pre), letter * ((1 << 20) // len(letter))
    assert len(model.tokenize(text, special=False, bos=False)) == len(text)


@pytest.mark.parametrize("tokenizer", ["llama", "gpt2", "rwkv"])
def test_grammars_work_with_its_pieces(opened, tokenizer):
    model = opened(tokenizer)
    constraint = GrammarCompiler(model).constraint(from_regex("12 ab\n"))
    said = [*constraint.take_forced()]
    while not constraint.finished:
        token = int(constraint.allowed()[0])
        if model.is_eog(token):
            break
        assert constraint.accept(token)
        said += [token, *constraint.take_forced()]
    assert b"".join(map(model.token_to_piece, said)) == b"12 ab\n"


def charsmap(nodes, texts):
    data = b"".join(node.to_bytes(4, "little") for node in nodes)
    return [*len(data).to_bytes(4, "little"), *data, *texts]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (charsmap([0] * 256, b"a"), "damaged"),  # "Unterminated string in precompiled charsmap!"
        (charsmap([1 << 18] + [0] * 255, b"\0"), "a step leaves its 256 nodes"),  # "... XCDA array!"
        (charsmap([0, 256] + [(1 << 31) + 9] * 254, b"a\0"), "a text is outside"),
        (charsmap([0, *(n << 10 for n in range(1, 256))], b"a\0"), None),
    ],
)
def test_a_step_out_of_unigrams_table_is_found_before_a_text_makes_it(tmp_path, values, problem):
    """The library throws then, which ends the process."""
    path = write_decoder(tmp_path / "a.gguf", "gemma", "t5", precompiled_charsmap=values)
    header = read_header(path)
    header.fields["tokenizer.ggml.precompiled_charsmap"] = Field(values, Kind.ARRAY, Kind.UINT8)
    if problem is None:
        check_model(header)
    else:
        with pytest.raises(FileError, match=problem):
            check_model(header)
