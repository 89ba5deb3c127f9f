"""A converted tokenizer gives the same tokens as its source.

The comparison is end to end: from files for transformers, through `convert`, to llama.cpp as the runtime uses
it. NFC normalization for Qwen2 is done by the runtime, not by llama.cpp.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType
from thirteen.convert.convert import convert
from thirteen.convert.quantization import Uniform
from thirteen.convert.recipe import Recipe
from thirteen.files.gguf.string_array import StringArray
from thirteen.runtime.llama.model import Model
from thirteen.runtime.prompt.chat_template import ChatTemplate
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ...byte_level import byte_names
from . import tokenizer_texts
from .vocabularies import EACH, LLAMA3_SPECIAL, QWEN_ADDED, QWEN_SPECIAL, made_once, save_published

LINES = 1000
BYTES = byte_names()
NFC = normalizers.NFC()
# llama.cpp makes these control tokens by their text, regardless of their type in the file.
QWEN_CONTROL = QWEN_ADDED[2:]


@dataclass(frozen=True, eq=False)
class Pair:
    """A tokenizer as published, and in a GGUF."""

    name: str
    folder: Path
    source: Tokenizer
    model: Model

    def source_ids(self, text: str, *, special: bool) -> list[int]:
        self.source.encode_special_tokens = not special
        return self.source.encode(text, add_special_tokens=False).ids

    def ids(self, text: str, *, special: bool) -> list[int]:
        return self.model.tokenize(text, special=special, bos=False)

    def differing(self, texts: Iterable[str], *, special: bool) -> list[str]:
        return [
            text
            for text in texts
            if self.source_ids(text, special=special) != self.ids(text, special=special)
        ]

    def excused(self, text: str) -> bool:
        """Whether a known and rare difference, unrelated to the file, may affect this text.

        llama3: llama.cpp's Unicode tables lack the newest digits, so it splits them as symbols.
        smollm2: the vocabulary lacks 21 bytes, of some control characters and of unassigned planes. Both skip
            such a byte; then the source merges its neighbours, and llama.cpp does not.
        qwen2: Python reorders combining marks that are newer than the tables of tokenizers.
        """
        match self.name:
            case "llama3":
                return any(ord(character) in tokenizer_texts.NEW_DIGITS for character in text)
            case "smollm2":
                return any(self.source.token_to_id(BYTES[byte]) is None for byte in text.encode())
            case _:
                return NFC.normalize_str(text) != unicodedata.normalize("NFC", text)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """pairs(name): a published tokenizer, and a small model converted with it."""
    with made_once(tmp_path_factory, make_pair, lambda pair: pair.model.close()) as made:
        yield made


def make_pair(name: str, folder: Path) -> Pair:
    tokenizer = save_published(name, folder)
    convert(Recipe(folder, folder / "model.gguf", Uniform("F32")))
    return Pair(name, folder, tokenizer, Model(folder / "model.gguf"))


@pytest.fixture(params=EACH)
def pair(request, pairs):
    return pairs(request.param)


def test_corpus_has_the_token_ids_of_the_source(pair):
    texts = tokenizer_texts.lines(LINES)
    differing = {*pair.differing(texts, special=True), *pair.differing(texts, special=False)}
    assert [text for text in differing if not pair.excused(text)] == []
    assert len(differing) < LINES // 100


def test_characters_are_split_as_by_the_source(pair):
    """Guards against different Unicode tables; an exhaustive run found only the excused differences."""
    codes = {*range(0, 0x20000, 29), *range(0x20000, 0x110000, 997), *tokenizer_texts.NEW_DIGITS}
    characters = map(chr, sorted(codes - {*range(0xD800, 0xE000)}))
    texts = [f"a{c}b 7{c}1 .{c} {c}{c}\n{c}'{c} 'S" for c in characters]
    assert [text for text in pair.differing(texts, special=True) if not pair.excused(text)] == []


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "normalizes"), [("qwen2", True), ("llama3", False), ("smollm2", False)])
def test_only_qwen2_normalizes_text(pairs, name, normalizes):
    """llama.cpp has no NFC normalizer: without the runtime's, decomposed text would have other ids."""
    text = "Crème brûlée, 한국어, Ω"
    forms = [pairs(name).ids(unicodedata.normalize(form, text), special=True) for form in ("NFC", "NFD")]
    assert (forms[0] == forms[1]) is normalizes


def around_names(names: list[str]) -> list[str]:
    """Pairs of token names with text before, between and after them."""
    joints = ("", " ", "\n", "a", " é", "<|", "1")
    neighbours = zip(names, [*names[1:], names[0]], strict=True)
    return [f"{x}{first}{y}{second}{x}" for first, second in neighbours for x in joints for y in joints[:3]]


def test_names_of_special_tokens_are_parsed_only_on_request(pair):
    names = [token.content for token in pair.source.get_added_tokens_decoder().values()][:40]
    assert pair.differing(around_names(names), special=True) == []
    as_text = [name for name in names if name not in QWEN_CONTROL]
    assert pair.differing(around_names(as_text), special=False) == []


@pytest.mark.exhaustive
def test_added_tokens_are_parsed_in_plain_text_except_llama_cpps_control_tokens(pairs):
    """Qwen's tokenizer parses its added tokens in any text; llama.cpp treats some as control tokens."""
    qwen = pairs("qwen2")
    assert {*qwen.differing(QWEN_ADDED, special=False)} <= {*QWEN_CONTROL}
    assert qwen.ids("<tool_call>", special=False) == [151657]


ENDS = {
    "smollm2": {"<|im_end|>"},
    "llama3": {"<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"},
    "qwen2": {"<|im_end|>", "<|endoftext|>"},
}
# llama.cpp recognizes these end tokens by their text, in addition.
LLAMA_CPP_ENDS = {
    "smollm2": {"<|endoftext|>", "<reponame>"},
    "llama3": set(),
    "qwen2": {"<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "</s>"},
}


def test_end_tokens_of_the_checkpoint_end_an_answer(pair):
    tokens = pair.model.header.metadata["tokenizer.ggml.tokens"]
    ends = {text for token, text in enumerate(tokens) if pair.model.is_eog(token)}
    assert ENDS[pair.name] <= ends <= ENDS[pair.name] | LLAMA_CPP_ENDS[pair.name]


KEYS: dict[str, dict[str, Any]] = {
    "smollm2": {
        "pre": "smollm",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "padding_token_id": 2,
    },
    "llama3": {"pre": "llama-bpe", "bos_token_id": 128000, "eos_token_id": 128009},
    "qwen2": {"pre": "qwen2", "bos_token_id": 151643, "eos_token_id": 151645, "padding_token_id": 151643},
}


def test_metadata_equals_that_of_llama_cpps_converter(pair):
    """The expected values are those of convert_hf_to_gguf.py for the same folders.

    Its add_space_prefix and add_sep_token are omitted; false is their default. Its arrays are the same except
    for the types of QWEN_CONTROL: USER_DEFINED as in tokenizer.json here, CONTROL by their text there.
    """
    keys = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in pair.model.header.metadata.items()
        if key.startswith("tokenizer.ggml.") and not isinstance(value, list | StringArray)
    }
    always = {"model": "gpt2", "add_bos_token": pair.name == "llama3", "add_eos_token": False}
    assert keys == always | KEYS[pair.name]


def test_special_and_added_tokens_have_their_types(pair):
    metadata = pair.model.header.metadata
    by_type: dict[int, list[str]] = {type_: [] for type_ in TokenType}
    tokens, types = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    for text, type_ in zip(tokens, types, strict=True):
        by_type[type_].append(text)
    smollm2 = [token.content for token in pair.source.get_added_tokens_decoder().values()]
    special = {"smollm2": smollm2, "llama3": LLAMA3_SPECIAL, "qwen2": QWEN_SPECIAL}[pair.name]
    assert by_type[TokenType.CONTROL] == [*special]
    assert by_type[TokenType.USER_DEFINED] == ([*QWEN_ADDED] if pair.name == "qwen2" else [])
    assert len(by_type[TokenType.UNUSED]) == (271 if pair.name == "qwen2" else 0)


QUESTIONS = (
    "What is 12 * 7?",
    "  Spaces before, and a line end after\n",
    "Zwölf Äpfel, 十二个苹果, 👩🏿‍🚀 e\u0301t\u00e9 & <b>'quotes'</b> {{ braces }} {% raw %}",
    "\r\nA  b\tc \u00a0\n\n\n#### 72",
)
SYSTEM = {"role": "system", "content": " Think step by step. \n"}
CONVERSATION = [
    *({"role": "user", "content": " How many? "}, {"role": "assistant", "content": "Twelve.\n\n#### 12 "}),
    *({"role": "user", "content": QUESTIONS[2]}, {"role": "assistant", "content": ""}),
    {"role": "user", "content": QUESTIONS[3]},
]


@cache
def transformers_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(folder)


@dataclass(frozen=True, eq=False)
class Chat:
    """A chat template as the runtime reads it from the converted file, and as transformers applies it."""

    pair: Pair
    template: ChatTemplate
    source: PreTrainedTokenizerFast

    def expected(self, messages: list[dict[str, str]], *, tokenize: bool) -> Any:
        options = {"add_generation_prompt": True, "return_dict": False}
        return self.source.apply_chat_template(messages, tokenize=tokenize, **options)


@pytest.fixture
def chat(pair):
    source = transformers_tokenizer(pair.folder)
    template = pair.model.header.metadata["tokenizer.chat_template"]
    return Chat(pair, ChatTemplate(template, source.bos_token or "", source.eos_token), source)


@pytest.mark.parametrize("messages", [CONVERSATION, [SYSTEM, *CONVERSATION]])
def test_conversations_are_rendered_as_by_transformers(chat, messages):
    text = chat.template.render(messages)
    assert text == chat.expected(messages, tokenize=False)
    assert chat.pair.ids(text, special=True) == chat.expected(messages, tokenize=True)
    bos = [128000] if chat.pair.name == "llama3" else []
    assert chat.pair.model.tokenize("a", special=True, bos=True) == bos + chat.pair.ids("a", special=True)
