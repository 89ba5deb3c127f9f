"""A byte-level BPE tokenizer and its chat template, from tokenizer.json to GGUF metadata.

llama.cpp splits text by rules that it knows by name. The name is found from the splitting rules themselves,
so that a vocabulary that was extended or retrained is still recognised, and an unknown rule is an error
instead of a file that tokenizes wrongly.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFValueType, TokenType

from ..errors import CheckpointError
from ..gguf_file import Field
from .json_file import read_json

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTES = ("ByteLevel", False)
# By normalizer, splitting rules, and whether a word in the vocabulary is taken whole: llama.cpp's name.
_RULES = {
    (None, (("Split", _WORDS % "{1,3}"), _BYTES), True): "llama-bpe",
    (None, (("Digits", True), ("ByteLevel", True)), False): "smollm",
    ("NFC", (("Split", _WORDS % ""), _BYTES), False): "qwen2",
}
# Tokens that llama.cpp knows by their text to end an answer; any other needs a key of its own.
_KNOWN_ENDS = {"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>"}
_SPECIAL_TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}

_STRING, _UINT32, _INT32, _BOOL = (
    GGUFValueType.STRING,
    GGUFValueType.UINT32,
    GGUFValueType.INT32,
    GGUFValueType.BOOL,
)
_ARRAY = GGUFValueType.ARRAY


def tokenizer_fields(folder: Path, vocab: int) -> dict[str, Field]:
    """The GGUF metadata of the tokenizer in `folder`, for a model whose embedding has `vocab` rows.

    Raises:
        CheckpointError: tokenizer.json is missing or damaged, or its rules are not known to llama.cpp.
    """
    path = folder / "tokenizer.json"
    tokenizer = read_json(path)
    try:
        fields = _vocabulary(path, tokenizer, vocab)
    except (KeyError, TypeError, AttributeError) as failure:
        raise CheckpointError(
            f"{path}: not a tokenizer's layout ({type(failure).__name__}: {failure})"
        ) from None
    config = _optional(folder / "tokenizer_config.json")
    ids = {token: i for i, token in enumerate(fields["tokenizer.ggml.tokens"].value)}
    special = {name: ids[text] for name, text in _special_texts(config) if text in ids}
    ends = _ends(folder)
    if "eos" not in special and ends:
        special["eos"] = ends[0]
    unnamed = [
        i for i in ends if i != special.get("eos") and i < vocab and _text(fields, i) not in _KNOWN_ENDS
    ]
    if len(unnamed) > 2:
        raise CheckpointError(f"{folder}: {len(unnamed)} end tokens that a GGUF has no key for: {unnamed}")
    special |= dict(zip(("eot", "eom"), unnamed, strict=False))
    fields |= {f"tokenizer.ggml.{name}_token_id": Field(i, _UINT32) for name, i in special.items()}
    fields["tokenizer.ggml.add_bos_token"] = Field("bos" in special and _adds_bos(tokenizer, config), _BOOL)
    return fields | _chat_templates(folder, config)


def _vocabulary(path: Path, tokenizer: Mapping[str, Any], vocab: int) -> dict[str, Field]:
    model, added = tokenizer["model"], tokenizer.get("added_tokens") or []
    pre = _pre_tokenizer(path, tokenizer)
    tokens, types = [f"[PAD{i}]" for i in range(vocab)], [int(TokenType.UNUSED)] * vocab
    for text, i, kind in _tokens(path, model["vocab"], added):
        if type(i) is not int or not 0 <= i < vocab:
            raise CheckpointError(f"{path}: token {text!r} has the id {i!r}; the embedding has {vocab} rows")
        tokens[i], types[i] = text, int(kind)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if any(merge.count(" ") != 1 for merge in merges):
        raise CheckpointError(f"{path}: a merge is not two tokens with one space between")
    return {
        "tokenizer.ggml.model": Field("gpt2", _STRING),
        "tokenizer.ggml.pre": Field(pre, _STRING),
        "tokenizer.ggml.tokens": Field(tokens, _ARRAY, _STRING),
        "tokenizer.ggml.token_type": Field(types, _ARRAY, _INT32),
        "tokenizer.ggml.merges": Field(merges, _ARRAY, _STRING),
    }


def _tokens(
    path: Path, vocab: Mapping[str, int], added: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, int, TokenType]]:
    for text, i in vocab.items():
        yield text, i, TokenType.NORMAL
    for token in added:
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word"):
            raise CheckpointError(
                f"{path}: the added token {token['content']!r} strips spaces, which a GGUF cannot say"
            )
        kind = TokenType.CONTROL if token.get("special") else TokenType.USER_DEFINED
        yield token["content"], token["id"], kind


def _pre_tokenizer(path: Path, tokenizer: Mapping[str, Any]) -> str:
    model, normalizer = tokenizer["model"], tokenizer.get("normalizer")
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise CheckpointError(f"{path}: the model is {model.get('type')!r}; only byte-level BPE is supported")
    steps = tokenizer.get("pre_tokenizer") or {}
    rules = tuple(_rule(step) for step in steps.get("pretokenizers", [steps]))
    found = (normalizer["type"] if normalizer else None, rules, bool(model.get("ignore_merges")))
    if found not in _RULES:
        raise CheckpointError(
            f"{path}: unknown splitting rules {rules!r} with normalizer {found[0]} and ignore_merges {found[2]}; "
            f"known: {', '.join(_RULES.values())}"
        )
    return _RULES[found]


def _rule(step: Mapping[str, Any]) -> tuple[Any, ...]:
    """What distinguishes one splitting step; a setting that no known rule has makes it unlike all."""
    match step.get("type"):
        case "Split":
            usual = step.get("behavior") == "Isolated" and not step.get("invert")
            return ("Split", step["pattern"].get("Regex"), *(() if usual else (step.get("behavior"),)))
        case "Digits":
            return ("Digits", bool(step.get("individual_digits")))
        case "ByteLevel":
            usual = not step.get("add_prefix_space")
            return ("ByteLevel", bool(step.get("use_regex", True)), *(() if usual else ("add_prefix_space",)))
        case other:
            return (other,)


def _text(fields: Mapping[str, Field], i: int) -> str:
    return str(fields["tokenizer.ggml.tokens"].value[i])


def _special_texts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, name in _SPECIAL_TOKENS.items():
        token = config.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            yield name, text


def _ends(folder: Path) -> list[int]:
    """Every id that the checkpoint says ends an answer, generation_config.json's first."""
    found: list[int] = []
    for name in ("generation_config.json", "config.json"):
        value = _optional(folder / name).get("eos_token_id")
        values = value if isinstance(value, list) else [value]
        found += [i for i in values if type(i) is int and i >= 0 and i not in found]
    return found


def _adds_bos(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether plain text is to begin with the begin-of-text token."""
    if isinstance(config.get("add_bos_token"), bool):
        return bool(config["add_bos_token"])
    processor = tokenizer.get("post_processor") or {}
    steps = processor.get("processors", [processor])
    templates = [step["single"] for step in steps if step.get("type") == "TemplateProcessing"]
    return any(template and "SpecialToken" in template[0] for template in templates)


def _chat_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, Field]:
    templates = config.get("chat_template") or []
    if isinstance(templates, str):
        templates = [{"name": "default", "template": templates}]
    by_name = {str(entry["name"]): str(entry["template"]) for entry in templates}
    if (folder / "chat_template.jinja").exists():
        by_name["default"] = (folder / "chat_template.jinja").read_text("utf-8")
    others = {name: text for name, text in by_name.items() if name != "default"}
    fields = {f"tokenizer.chat_template.{name}": Field(text, _STRING) for name, text in others.items()}
    if others:
        fields["tokenizer.chat_templates"] = Field(list(others), _ARRAY, _STRING)
    if "default" in by_name:
        fields["tokenizer.chat_template"] = Field(by_name["default"], _STRING)
    return fields


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
