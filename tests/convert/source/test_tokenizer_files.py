"""Tokenizer files of a checkpoint are converted completely, or refused in one line that names the file."""

from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType
from thirteen.errors import FileError
from thirteen.runtime.prompt.chat_template import ChatTemplate
from transformers import AutoTokenizer

from ... import checkpoints
from ...json_changes import Change, add_token, drop, put
from ...refusals import refused
from .pieces import LlamaVocabulary, fields_of


@pytest.fixture
def folder(tmp_path):
    """A small tokenizer of 264 tokens, for an embedding of 272 rows."""
    checkpoints.save_tokenizer(tmp_path, "smollm")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def converted(folder: Path, **changes: Change) -> dict[str, Any]:
    return fields_of(folder, checkpoints.VOCAB, **changes)


def around(*single: str) -> Change:
    """A change that adds special tokens around the text, which is `A` here."""
    parts = [{"Sequence": {"id": "A"}} if text == "A" else {"SpecialToken": {"id": text}} for text in single]
    return put("post_processor", value={"type": "TemplateProcessing", "single": parts, "pair": []})


STEPS = ("pre_tokenizer", "pretokenizers")
TOKENIZER: list[tuple[Change, str]] = [
    (add_token("<x>", 272), "'<x>' has the id 272, but the embedding has 272 rows"),
    (add_token("A", 270), "'A' has 2 ids"),
    (add_token("<x>", 270, lstrip=True), "'<x>' has lstrip True"),
    (drop("model"), "unexpected layout (KeyError: 'model')"),
    (put("model", "type", value="Unigram"), "'Unigram'; only BPE"),
    (put(*STEPS, 0, "type", value="Whitespace"), "unknown splitting rules (('Whitespace',)"),
    (put("normalizer", value={"type": "NFKC"}), "with normalizer NFKC"),
    (around("A", "<|im_start|>"), "texts end with '<|im_start|>', but eos_token is '<|im_end"),
    (around("<|im_start|>", "A", "A"), "a post_processor of 'SpecialToken Sequence Sequence"),
]
UNSUPPORTED: list[tuple[str, Change, str]] = [
    *(("tokenizer", change, message) for change, message in TOKENIZER),
    ("tokenizer_config", drop("eos_token"), "neither an eos_token nor an eos_token_id"),
    ("generation_config", put("eos_token_id", value=[65, 66, 67]), "3 end tokens"),
    (
        "tokenizer_config",
        put("added_tokens_decoder", value={"270": {"content": "<x>"}}),
        "token 270 is '<x>', but '[PAD270]' in the vocabulary",
    ),
    (
        "tokenizer_config",
        put("chat_template", value="a" * (1 << 16) + "a"),
        "'default' is no text of up to 65,536 characters",
    ),
]


@pytest.mark.parametrize(("file", "change", "message"), UNSUPPORTED)
def test_an_unsupported_tokenizer_is_one_clear_error(folder, file, change, message):
    with refused(folder, message, FileError):
        converted(folder, **{file: change})


def test_a_file_that_is_no_chat_template_is_named(folder):
    (path := folder / "chat_template.jinja").write_bytes(b"\xff")
    with refused(f"{path}: ", "not UTF-8: invalid start byte at byte 1", FileError):
        converted(folder)


def test_merges_may_be_pairs_or_strings(folder):
    def as_strings(content: Any) -> None:
        content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]

    assert converted(folder)["merges"] == ["t h", "th e", "Ġ the", "i n", "Ġ 1"]
    assert converted(folder) == converted(folder, tokenizer=as_strings)


def test_token_types(folder):
    types = converted(folder, tokenizer=add_token("<x>", 270, special=False))["token_type"]
    assert types[:256] == [TokenType.NORMAL] * 256
    assert types[256:259] == [TokenType.CONTROL] * 3
    assert types[269:] == [TokenType.UNUSED, TokenType.USER_DEFINED, TokenType.UNUSED]


def bos(value: bool) -> Change:
    return put("add_bos_token", value=value)


BOS, EOS, EOT, EOM, PAD = (f"{name}_token_id" for name in ("bos", "eos", "eot", "eom", "padding"))
ADD_BOS, ADD_EOS = "add_bos_token", "add_eos_token"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # End tokens that llama.cpp does not recognize have keys of their own.
        ({"generation_config": put("eos_token_id", value=[258, 256, 65, 66])}, {EOS: 258, EOT: 65, EOM: 66}),
        ({"tokenizer_config": dict.clear, "config": put("eos_token_id", value=256)}, {EOS: 256}),
        (
            {
                "tokenizer_config": dict.clear,
                "generation_config": put("eos_token_id", value=[258, 256]),
                "config": put("bos_token_id", value=257),
            },
            {EOS: 258, BOS: 257},
        ),
        # As in transformers, add_bos_token is ignored if there is a post-processor.
        (
            {"tokenizer": around("<|endoftext|>", "A", "<|im_end|>"), "tokenizer_config": bos(False)},
            {ADD_BOS: True, ADD_EOS: True},
        ),
        ({"tokenizer": around("A"), "tokenizer_config": bos(True)}, {ADD_BOS: False, ADD_EOS: False}),
        ({"tokenizer_config": bos(True)}, {ADD_BOS: True}),
        (
            {"tokenizer": around("<|im_start|>", "A"), "tokenizer_config": put("bos_token", value=None)},
            {BOS: 257, ADD_BOS: True},
        ),
        # Old Llamas have the padding token -1, and some fine-tunes name a token that they never added.
        ({"tokenizer_config": put("pad_token", value="[PAD]")}, {PAD: None}),
        (
            {"tokenizer_config": put("pad_token", value=None), "config": put("pad_token_id", value=-1)},
            {PAD: None},
        ),
    ],
)
def test_special_tokens_are_those_of_the_files(folder, changes, expected):
    fields = converted(folder, **changes)
    assert {key: fields.get(key) for key in expected} == expected


def test_chat_templates_are_copied_exactly(folder):
    templates = [{"name": "default", "template": "old"}, {"name": "tool-use", "template": "é\r\n "}]
    fields = converted(folder, tokenizer_config=put("chat_template", value=templates))
    assert (fields["chat_template"], fields["chat_template.tool_use"]) == ("old", "é\r\n ")
    assert fields["chat_templates"] == ["tool_use"]


def test_chat_template_files_take_precedence_over_tokenizer_config(folder):
    """transformers reads these files as text, which normalizes line ends."""
    (folder / "chat_template.jinja").write_bytes("{{ new }} é\r\n\r".encode())
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_bytes(b"rag\n")
    fields = converted(folder)
    assert (fields["chat_template"], fields["chat_template.rag"]) == ("{{ new }} é\n\n", "rag\n")


CONVERSATION = [
    {"role": "system", "content": " Think step by step. \n"},
    {"role": "user", "content": "  Spaces before, and a line end after\n"},
    {"role": "assistant", "content": "Twelve.\n\n#### 12 "},
    {
        "role": "user",
        "content": "Zwölf, 十二, 👩🏿‍🚀 e\u0301t\u00e9 & <b>'quotes'</b> {{ braces }} {% raw %}",
    },
    {"role": "assistant", "content": ""},
    {"role": "user", "content": "\r\nA  b\tc \u00a0\n\n\n#### 72"},
]


@pytest.mark.parametrize("first", [0, 1])  # with and without a system message
@pytest.mark.parametrize("name", ["llama3", "qwen2", "smollm3"])
def test_conversations_are_rendered_as_by_transformers(folder, name, first):
    path = Path(__file__).parents[2] / "data" / "chat_templates" / f"{name}.jinja"
    fields = converted(folder, tokenizer_config=put("chat_template", value=path.read_text()))
    source = AutoTokenizer.from_pretrained(folder)
    template = ChatTemplate(fields["chat_template"], source.bos_token, source.eos_token)
    messages = CONVERSATION[first:]
    expected = source.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert template.render(messages) == expected
    vocabulary = LlamaVocabulary.convert(folder, checkpoints.VOCAB)
    assert vocabulary.ids(expected, special=True) == source(expected, add_special_tokens=False).input_ids
