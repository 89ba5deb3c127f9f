"""SentencePiece vocabularies have the source's token ids in llama.cpp, or are refused in one line.

The source is tokenizers' BPE with byte fallback, on pieces that SentencePiece has trained.
"""

from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.source.tokenizer import tokenizer_fields
from thirteen.errors import FileError
from thirteen.runtime.prompt.chat_template import ChatTemplate
from thirteen.runtime.prompt.prompt_encoder import Message, PromptEncoder
from tokenizers import Tokenizer

from ...json_changes import Change, add_token, change_json, put
from ...refusals import refused
from . import tokenizer_texts
from .pieces import SPACES, LlamaVocabulary, comparison, fields_of, save_json, trained_model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def differing(tmp_path_factory, models):
    def save(name: str, folder: Path) -> Tokenizer:
        return save_json(folder, trained_model(models, name != "gemma"), name)

    return comparison(save, tmp_path_factory)


def texts_for(name: str, count: int) -> list[str]:
    """Texts, and runs of spaces and signs; for Metaspace none that begins with a space."""
    runs = [
        before + sign * n + after
        for sign in " -=\n_a"
        for n in range(1, 40)
        for before in ("", "x")
        for after in ("", "y")
    ]
    texts = [*tokenizer_texts.lines(count), *runs, "", "<s>[INST] a</s>", "<0x0A> ▁▁ <unk>"]
    return [text for text in texts if not (name == "mistral" and text[:1] in (" ", "▁"))]


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", SPACES)
def test_texts_have_the_token_ids_of_the_source(differing, name, count):
    assert differing(name, texts_for(name, count)) == []


@given(text=st.text(max_size=40))
def test_any_text_has_the_token_ids_of_the_source(differing, text):
    text = text.replace("\0", "")
    assert differing("gemma", [text]) == []


@pytest.fixture
def folder(tmp_path, models):
    """A small tokenizer.json with byte fallback."""
    save_json(tmp_path, trained_model(models, False), "gemma")
    return tmp_path


def lose_byte(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["vocab"]["lost"] = tokenizer["model"]["vocab"].pop("<0x41>")


def interleave(tokenizer: dict[str, Any]) -> None:
    """Put the last merge of all between those of a token that has several."""
    merges = tokenizer["model"]["merges"]
    tokens = ["".join(merge) for merge in merges]
    at = next(i for i, token in enumerate(tokens) if tokens.count(token) > 1 and len({*token}) > 1)
    merges.insert(at + 1, merges.pop())


SPLIT = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
UNSUPPORTED: list[tuple[Change, str]] = [
    (lambda t: t["model"]["merges"].pop(), "but no merge does"),
    (interleave, "other merges stand between those of the token"),
    (lose_byte, "has no byte token '<0x41>'"),
    (put("model", "ignore_merges", value=True), "has ignore_merges True"),
    (
        lambda t: t.update(normalizer=None, pre_tokenizer=SPLIT),
        "treatment of spaces with byte fallback: (), (('Metaspace', '▁', 'first', True),)",
    ),
    (add_token("<x>", 1999, special=False, rstrip=True), "'<x>' has rstrip True"),
]


@pytest.mark.parametrize(("change", "message"), UNSUPPORTED)
def test_a_vocabulary_that_llama_cpp_would_apply_otherwise_is_refused(folder, change, message):
    with refused(folder, message, FileError):
        fields_of(folder, 2000, tokenizer=change)


def test_token_types_scores_and_keys(folder):
    change_json(folder / "tokenizer.json", add_token("<image>", 2500))  # as published Gemmas have
    fields = fields_of(folder, 2003, tokenizer=add_token("<|user|>", 2001, rstrip=True))
    types, tokens = fields["token_type"], fields["tokens"]
    assert types[:6] == [TokenType.UNKNOWN, *[TokenType.CONTROL] * 4, TokenType.BYTE]
    assert types[2000:] == [TokenType.UNUSED, TokenType.CONTROL, TokenType.UNUSED]
    assert (fields["model"], fields["add_space_prefix"], fields["add_bos_token"]) == ("llama", False, False)
    assert fields["thirteen.tokenizer.rstrip"] == ["<|user|>"]
    assert (
        tokens[2002] == "[PAD2002]"
        and fields["scores"][tokens.index("▁the")] > fields["scores"][tokens.index("▁t")]
    )


class Prompted:
    """A converted vocabulary as the runtime's prompts use it."""

    def __init__(self, converted: LlamaVocabulary, names: dict[str, int], stripping: list[str]) -> None:
        self.converted, self.control_tokens = converted, names
        self.stripping_tokens = frozenset(stripping)

    def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        return self.converted.ids(text, special=special)


def test_prompts_of_phi_3_have_the_token_ids_of_the_source(tmp_path, models):
    """Its control tokens take the white space after them, and every text after them begins with a space."""
    save_json(tmp_path, trained_model(models, True), "llama")
    names = {name: 2000 + i for i, name in enumerate(("<|user|>", "<|end|>", "<|assistant|>"))}
    flags = dict.fromkeys(("normalized", "lstrip", "single_word"), False) | {"rstrip": True}
    added = [add_token(name, i, **flags) for name, i in names.items()]
    change_json(tmp_path / "tokenizer.json", *added)
    source = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    fields = tokenizer_fields(tmp_path, 2003)
    converted = LlamaVocabulary(tmp_path / "tokenizer.gguf", fields)
    template = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}<|assistant|>\n"
    stripping = fields["thirteen.tokenizer.rstrip"].value
    encoder = PromptEncoder(Prompted(converted, names, stripping), ChatTemplate(template))
    turns = [("user", "  What is 3 + 4?\n"), ("assistant", "7 apples"), ("user", "é中 \n why?")]
    found = encoder.encode_conversation([Message(role, text) for role, text in turns])
    text = "".join(f"<|{role}|>\n{text}<|end|>\n" for role, text in turns) + "<|assistant|>\n"
    assert [*found] == source.encode(text).ids


def test_runs_of_one_character_may_have_their_merges_in_another_order(folder):
    """Gemma's merges of spaces begin with the longest."""

    def runs(tokenizer: dict[str, Any]) -> None:
        vocab = tokenizer["model"]["vocab"]
        vocab |= {"q" * n: 2000 + n for n in range(2, 5)} | {"q": 2001}
        lengths = [(3, 1), (2, 2), (2, 1), (1, 3), (1, 2), (1, 1)]
        kept = [merge for merge in tokenizer["model"]["merges"] if "q" not in "".join(merge)]
        for token in [token for token in vocab if "q" in token and set(token) != {"q"}]:
            vocab[f"<{vocab.pop(token)}>"] = max(vocab.values()) + 1
        tokenizer["model"]["merges"] = [["q" * left, "q" * right] for left, right in lengths] + kept

    change_json(folder / "tokenizer.json", runs)
    converted = LlamaVocabulary.convert(folder, 2100)
    assert [converted.ids("q" * n) for n in (1, 3, 5)] == [[2001], [2003], [2004, 2001]]


def test_a_folder_without_tokenizer_json_says_what_writes_one(tmp_path, models):
    (tmp_path / "tokenizer.model").write_bytes(trained_model(models, True).read_bytes())
    with pytest.raises(FileError, match=r"no tokenizer\.json, as transformers\.AutoTokenizer.* writes it"):
        tokenizer_fields(tmp_path, 2000)
