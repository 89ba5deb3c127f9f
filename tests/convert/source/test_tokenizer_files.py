"""Tokenizer files of a checkpoint are converted completely, or refused in one line that names the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType
from thirteen.convert.source.tokenizer import tokenizer_fields
from thirteen.errors import FileError
from thirteen.files.gguf.header import Field
from thirteen.runtime.prompt.chat_template import ChatTemplate
from transformers import AutoTokenizer

from ... import checkpoints
from .pieces import LlamaVocabulary

Change = Callable[[Any], Any]


@pytest.fixture
def folder(tmp_path):
    """A small tokenizer of 264 tokens, for an embedding of 272 rows."""
    checkpoints.save_tokenizer(tmp_path, "smollm")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def fields_of(folder: Path, **changes: Change) -> dict[str, Any]:
    """Change JSON files, given by their stems, and convert the tokenizer to GGUF metadata values."""
    for name, change in changes.items():
        path = folder / f"{name}.json"
        content = json.loads(path.read_text()) if path.exists() else {}
        change(content)
        path.write_text(json.dumps(content))
    fields: dict[str, Field] = tokenizer_fields(folder, checkpoints.VOCAB)
    return {
        key.removeprefix("tokenizer.").removeprefix("ggml."): field.value for key, field in fields.items()
    }


def put(*keys: Any, value: Any) -> Change:
    """A change that sets the value at a path of keys."""

    def change(content: Any) -> None:
        *path, last = keys
        for key in path:
            content = content[key]
        content[last] = value

    return change


def drop(*keys: Any) -> Change:
    """A change that deletes the value at a path of keys."""

    def change(content: Any) -> None:
        *path, last = keys
        for key in path:
            content = content[key]
        del content[last]

    return change


def add(content: Any, i: Any, **options: Any) -> Change:
    """A change that adds a token to tokenizer.json."""
    return lambda tokenizer: tokenizer["added_tokens"].append(
        {"content": content, "id": i, "special": True} | options
    )


def around(*single: str) -> Change:
    """A change that adds special tokens around the text, which is `A` here."""
    parts = [{"Sequence": {"id": "A"}} if text == "A" else {"SpecialToken": {"id": text}} for text in single]
    return put("post_processor", value={"type": "TemplateProcessing", "single": parts, "pair": []})


VOCAB, STEPS = ("model", "vocab"), ("pre_tokenizer", "pretokenizers")
LAYOUT = "unexpected layout"
TOKENIZER: dict[str, tuple[Change, str]] = {
    "an added token beyond the embedding": (add("<x>", 272), "'<x>' has the id 272, .* 272 rows"),
    "an id that is text": (put(*VOCAB, "the", value="7"), "'the' has the id '7'"),
    "a token with two ids": (add("A", 270), "'A' has 2 ids"),
    "an added token that strips spaces": (add("<x>", 270, lstrip=True), "'<x>' has lstrip True"),
    "no model": (drop("model"), f"{LAYOUT} .*'model'"),
    "another kind of model": (put("model", "type", value="Unigram"), "'Unigram'; only BPE"),
    "dropout": (put("model", "dropout", value=0.1), "has dropout 0.1"),
    "an unknown rule": (put(*STEPS, 0, "type", value="Whitespace"), "unknown splitting rules .*Whitespace"),
    "a space in front": (put(*STEPS, 1, "add_prefix_space", value=True), "unknown .*'ByteLevel', True, True"),
    "an unknown normalizer": (put("normalizer", value={"type": "NFKC"}), "with normalizer NFKC"),
    "an unknown token before a text": (around("<s>", "A"), "layout .*'<s>'"),
    "another token before a text than bos": (around("<|im_end|>", "A"), "begin with '<|im_end|>', but bos"),
}
CONFIGURATIONS: dict[str, tuple[str, Change, str]] = {
    "no end at all": ("tokenizer_config", drop("eos_token"), "neither an eos_token nor an eos_token_id"),
    "more ends than keys": ("generation_config", put("eos_token_id", value=[65, 66, 67]), "3 end tokens"),
    "a token added elsewhere": (
        "tokenizer_config",
        put("added_tokens_decoder", value={"270": {"content": "<x>"}}),
        r"token 270 is '<x>', but '\[PAD270\]' in the vocabulary",
    ),
    "a chat template that is a number": ("tokenizer_config", put("chat_template", value=7), LAYOUT),
    "a chat template that is too long": (
        "tokenizer_config",
        put("chat_template", value="a" * (1 << 16) + "a"),
        "'default' is no text of up to 65,536 characters",
    ),
}
UNSUPPORTED = {name: ("tokenizer", *case) for name, case in TOKENIZER.items()} | CONFIGURATIONS


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_tokenizer_is_one_clear_error(folder, name):
    file, change, message = UNSUPPORTED[name]
    with pytest.raises(FileError, match=message.replace("|", r"\|")) as caught:
        fields_of(folder, **{file: change})
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff", "not UTF-8: .* at byte 1"), (b"a" * (1 << 16) + b"a", "more than 65,536 bytes, the limit")],
    ids=["not UTF-8", "too long"],
)
@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/a.jinja"])
def test_a_file_that_is_no_chat_template_is_named(folder, name, content, message):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    with pytest.raises(FileError, match=f"{name}: {message}"):
        fields_of(folder)


@pytest.mark.parametrize(("rules", "name"), [("llama", "llama-bpe"), ("smollm", "smollm"), ("qwen", "qwen2")])
def test_splitting_rules_are_recognized_with_any_vocabulary(tmp_path, rules, name):
    checkpoints.save_tokenizer(tmp_path, rules)
    assert fields_of(tmp_path, tokenizer=add("<new>", 271))["pre"] == name


def test_merges_may_be_pairs_or_strings(folder):
    def as_strings(content: Any) -> None:
        content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]

    assert fields_of(folder)["merges"] == ["t h", "th e", "Ġ the", "i n", "Ġ 1"]
    assert fields_of(folder) == fields_of(folder, tokenizer=as_strings)


def test_token_types(folder):
    types = fields_of(folder, tokenizer=add("<x>", 270, special=False))["token_type"]
    assert types[:256] == [TokenType.NORMAL] * 256
    assert types[256:259] == [TokenType.CONTROL] * 3
    assert types[269:] == [TokenType.UNUSED, TokenType.USER_DEFINED, TokenType.UNUSED]


def test_end_tokens_that_llama_cpp_does_not_recognize_have_keys(folder):
    fields = fields_of(folder, generation_config=put("eos_token_id", value=[258, 256, 65, 66]))
    assert (fields["eos_token_id"], fields["eot_token_id"], fields["eom_token_id"]) == (258, 65, 66)


def test_bos_and_eos_default_to_those_of_the_configuration_files(folder):
    (folder / "tokenizer_config.json").unlink()
    config = put("eos_token_id", value=256)
    assert fields_of(folder, config=config)["eos_token_id"] == 256
    ends = put("eos_token_id", value=[258, 256])
    fields = fields_of(folder, generation_config=ends, config=put("bos_token_id", value=257))
    assert (fields["eos_token_id"], fields["bos_token_id"]) == (258, 257)


def test_post_processor_determines_the_tokens_around_a_text(folder):
    """As in transformers, add_bos_token is ignored if there is a post-processor."""
    no, yes = put("add_bos_token", value=False), put("add_bos_token", value=True)
    both = fields_of(folder, tokenizer=around("<|endoftext|>", "A", "<|im_end|>"), tokenizer_config=no)
    assert (both["add_bos_token"], both["add_eos_token"]) == (True, True)
    neither = fields_of(folder, tokenizer=around("A"), tokenizer_config=yes)
    assert (neither["add_bos_token"], neither["add_eos_token"]) == (False, False)


@pytest.mark.parametrize(
    ("processor", "named"),
    [
        (around("<|im_start|>", "A", "A"), "SpecialToken Sequence Sequence"),
        (
            put("post_processor", value={"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}),
            "BertProc",
        ),
    ],
)
def test_tokens_around_a_text_that_a_gguf_cannot_have_are_refused(folder, processor, named):
    """They were dropped."""
    with pytest.raises(FileError, match=f"a post_processor of '{named}"):
        fields_of(folder, tokenizer=processor)


def test_another_token_than_eos_after_a_text_is_refused(folder):
    """llama.cpp would add the eos_token in its place."""
    with pytest.raises(FileError, match=r"texts end with '<\|im_start\|>', but eos_token is '<\|im_end"):
        fields_of(folder, tokenizer=around("A", "<|im_start|>"))


def test_add_bos_token_applies_without_a_post_processor(folder):
    assert not fields_of(folder)["add_bos_token"]
    assert fields_of(folder, tokenizer_config=put("add_bos_token", value=True))["add_bos_token"]


def test_bos_defaults_to_the_first_token_of_the_post_processor(folder):
    unnamed = put("bos_token", value=None)
    fields = fields_of(folder, tokenizer=around("<|im_start|>", "A"), tokenizer_config=unnamed)
    assert (fields["bos_token_id"], fields["add_bos_token"]) == (257, True)


def test_unknown_padding_token_is_ignored(folder):
    """Old Llamas have -1, and some fine-tunes name a token that they never added."""
    named = fields_of(folder, tokenizer_config=put("pad_token", value="[PAD]"))
    unnamed = put("pad_token", value=None)
    numbered = fields_of(folder, tokenizer_config=unnamed, config=put("pad_token_id", value=-1))
    assert "padding_token_id" not in named.keys() | numbered.keys()


def test_chat_templates_are_copied_exactly(folder):
    templates = [{"name": "default", "template": "old"}, {"name": "tool-use", "template": "é\r\n "}]
    fields = fields_of(folder, tokenizer_config=put("chat_template", value=templates))
    assert (fields["chat_template"], fields["chat_template.tool_use"]) == ("old", "é\r\n ")
    assert fields["chat_templates"] == ["tool_use"]


def test_chat_template_files_take_precedence_over_tokenizer_config(folder):
    """transformers reads these files as text, which normalizes line ends."""
    (folder / "chat_template.jinja").write_bytes("{{ new }} é\r\n\r".encode())
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_bytes(b"rag\n")
    fields = fields_of(folder)
    assert (fields["chat_template"], fields["chat_template.rag"]) == ("{{ new }} é\n\n", "rag\n")


QUESTIONS = (
    "  Spaces before, and a line end after\n",
    "Zwölf Äpfel, 十二个苹果, 👩🏿‍🚀 e\u0301t\u00e9 & <b>'quotes'</b> {{ braces }} {% raw %}",
    "\r\nA  b\tc \u00a0\n\n\n#### 72",
)
CONVERSATION = [
    *({"role": "user", "content": QUESTIONS[0]}, {"role": "assistant", "content": "Twelve.\n\n#### 12 "}),
    *({"role": "user", "content": QUESTIONS[1]}, {"role": "assistant", "content": ""}),
    {"role": "user", "content": QUESTIONS[2]},
]
SYSTEM = {"role": "system", "content": " Think step by step. \n"}


@pytest.mark.parametrize("messages", [CONVERSATION, [SYSTEM, *CONVERSATION]])
@pytest.mark.parametrize("name", ["llama3", "qwen2", "smollm3"])
def test_conversations_are_rendered_as_by_transformers(folder, name, messages):
    path = Path(__file__).parents[2] / "data" / "chat_templates" / f"{name}.jinja"
    fields = fields_of(folder, tokenizer_config=put("chat_template", value=path.read_text()))
    source = AutoTokenizer.from_pretrained(folder)
    template = ChatTemplate(fields["chat_template"], source.bos_token, source.eos_token)
    expected = source.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert template.render(messages) == expected
    converted = LlamaVocabulary.convert(folder, checkpoints.VOCAB)
    assert converted.ids(expected, special=True) == source(expected, add_special_tokens=False).input_ids
    converted.close()
