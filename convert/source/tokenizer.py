"""Conversion of a tokenizer and its chat templates to GGUF metadata.

It is read from tokenizer.json, byte-level BPE or BPE with byte fallback.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from gguf import GGUFValueType as Kind
from gguf import TokenType

from ...errors import FileError
from ...files.gguf.header import Field
from ...files.json_file import TOKENIZER_BYTES_MAX, decode_utf8, read_bounded, read_json
from ...files.received_files import MORE_TEMPLATES
from .pre_tokenizer import pre_tokenizer_name
from .scored_pieces import byte_fallback_fields
from .token_table import added_tokens, refuse_options, stripping_fields, table_fields, token_table

# Options of a BPE model that change its tokens and that llama.cpp does not implement.
_UNSUPPORTED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
# End-of-generation tokens that llama.cpp recognizes by their text; any other needs a metadata key.
KNOWN_END_TOKENS = {
    *("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>", "<|end|>"),
    "<end_of_turn>",
}
# Special tokens: key in tokenizer_config.json -> name in a GGUF
_SPECIAL_TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}

CHAT_TEMPLATE = "tokenizer.chat_template"
_TEMPLATE_BYTES_MAX = 1 << 16  # the runtime loads no more; published ones have a quarter at most


def tokenizer_fields(folder: Path, vocab: int) -> dict[str, Field]:
    """Convert the tokenizer in `folder` to GGUF metadata.

    Args:
        folder: the checkpoint.
        vocab: number of rows of the embedding; rows without a token become unused tokens.

    Raises:
        FileError: tokenizer.json is missing or damaged, or has a feature that llama.cpp lacks.
    """
    path, config_path = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not path.exists() and (folder / "tokenizer.model").exists():
        raise FileError(
            f"{folder}: has tokenizer.model, but no tokenizer.json, as "
            "transformers.AutoTokenizer.from_pretrained(…).save_pretrained(…) writes it"
        )
    config, tokenizer = _optional(config_path), read_json(path, max_bytes=TOKENIZER_BYTES_MAX)
    with _layout_errors(path):
        fields = _vocabulary(path, tokenizer, vocab)
        first, last = _added_around(path, tokenizer)
    with _layout_errors(config_path):
        _check_added(config_path, config, fields)
        fields |= _special_tokens(folder, config, fields["tokenizer.ggml.tokens"].value, first, last)
        fields |= _chat_templates(folder, config)
    configured = not tokenizer.get("post_processor") and config.get("add_bos_token") is True
    add_bos = (first is not None or configured) and "tokenizer.ggml.bos_token_id" in fields
    fields["tokenizer.ggml.add_bos_token"] = Field(add_bos, Kind.BOOL)
    fields["tokenizer.ggml.add_eos_token"] = Field(last is not None, Kind.BOOL)
    return fields


@contextmanager
def _layout_errors(path: Path) -> Iterator[None]:
    """Raise errors of values with an unexpected type in untrusted JSON as a FileError."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as failure:
        reason = f"{type(failure).__name__}: {failure}"
        raise FileError(f"{path}: unexpected layout ({reason})") from None


def _vocabulary(path: Path, tokenizer: Mapping[str, Any], vocab: int) -> dict[str, Field]:
    model, added = tokenizer["model"], tokenizer.get("added_tokens") or []
    if model.get("type") != "BPE":
        raise FileError(f"{path}: the model is {model.get('type')!r}; only BPE is supported")
    refuse_options(path, "the model", model, _UNSUPPORTED)
    if model.get("byte_fallback"):
        return byte_fallback_fields(path, tokenizer, vocab)
    pre = pre_tokenizer_name(path, tokenizer)
    normal = ((text, i, TokenType.NORMAL) for text, i in model["vocab"].items())
    tokens, types = token_table(path, chain(normal, added_tokens(path, added)), vocab)
    return {
        "tokenizer.ggml.model": Field("gpt2", Kind.STRING),
        "tokenizer.ggml.pre": Field(pre, Kind.STRING),
        **table_fields(tokens, types),
        "tokenizer.ggml.merges": Field(_merges(path, model), Kind.ARRAY, Kind.STRING),
        **stripping_fields(added),
    }


def _merges(path: Path, model: Mapping[str, Any]) -> list[str]:
    """Merges in the format of a GGUF: two tokens, separated by a space."""
    vocab, merges = model["vocab"], []
    for merge in model["merges"]:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        known = len(pair) == 2 and pair[0] in vocab and pair[1] in vocab and pair[0] + pair[1] in vocab
        if not known or " " in pair[0] + pair[1]:
            raise FileError(f"{path}: the merge {merge!r} does not join two tokens into a third")
        merges.append(" ".join(pair))
    if not merges:
        raise FileError(f"{path}: the tokenizer has no merges, which llama.cpp cannot load")
    return merges


def _check_added(path: Path, config: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    """Check that tokenizer_config.json adds no token to those of the vocabulary; transformers would."""
    tokens, pieces = fields["tokenizer.ggml.tokens"].value, "tokenizer.ggml.scores" in fields
    for i, token in (config.get("added_tokens_decoder") or {}).items():
        found = tokens[int(i)] if int(i) < len(tokens) else None
        beyond = pieces and found is None and token.get("special")  # byte_fallback_fields() omits it
        if found != token["content"] and not beyond:
            raise FileError(f"{path}: token {i} is {token['content']!r}, but {found!r} in the vocabulary")


def _special_tokens(
    folder: Path, config: Mapping[str, Any], tokens: Sequence[str], first: str | None, last: str | None
) -> dict[str, Field]:
    """Ids of the special tokens; the tokenizer puts `first` before a text and `last` after it."""
    ids = {token: i for i, token in enumerate(tokens)}
    ends = _end_tokens(folder, len(tokens))
    defaults = _optional(folder / "config.json") | {"eos_token_id": ends[0] if ends else None}
    special = {}
    for key, name in _SPECIAL_TOKENS.items():
        text = _content(config.get(key))
        i = defaults.get(f"{key}_id") if text is None else ids.get(text)
        if type(i) is int and 0 <= i < len(tokens):
            special[name] = i
        elif name in ("bos", "eos") and (text, i) != (None, None):
            value = i if text is None else text
            raise FileError(f"{folder}: {key} is {value!r}, which is not one of {len(tokens)} tokens")
    if first is not None and special.setdefault("bos", ids[first]) != ids[first]:
        bos = tokens[special["bos"]]
        raise FileError(f"{folder}: texts begin with {first!r}, but bos_token is {bos!r}")
    if "eos" not in special:
        # llama.cpp would use token 11, whatever its text is.
        raise FileError(f"{folder}: has neither an eos_token nor an eos_token_id")
    if last is not None and last != (eos := tokens[special["eos"]]):
        raise FileError(f"{folder}: texts end with {last!r}, but eos_token is {eos!r}")
    special |= _unrecognized_ends(folder, [i for i in ends if i != special["eos"]], tokens)
    return {f"tokenizer.ggml.{name}_token_id": Field(i, Kind.UINT32) for name, i in special.items()}


def _unrecognized_ends(folder: Path, ends: Iterable[int], tokens: Sequence[str]) -> dict[str, int]:
    """Metadata names for the end tokens that llama.cpp does not recognize by their text."""
    unrecognized = [i for i in ends if tokens[i] not in KNOWN_END_TOKENS]
    if len(unrecognized) > 2:
        raise FileError(f"{folder}: {len(unrecognized)} end tokens, {unrecognized}; a GGUF has keys for 2")
    return dict(zip(("eot", "eom"), unrecognized, strict=False))


def _content(token: Any) -> str | None:
    """Text of a token, which is a string or an object."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _end_tokens(folder: Path, vocab: int) -> list[int]:
    """Ids of the tokens that end an answer, those of generation_config.json first."""
    found: list[int] = []
    for name in ("generation_config.json", "config.json"):
        value = _optional(folder / name).get("eos_token_id")
        for i in value if isinstance(value, list) else [value]:
            if i is not None and (type(i) is not int or not 0 <= i < vocab):
                raise FileError(f"{folder / name}: eos_token_id {i!r} is not one of {vocab} tokens")
            if i is not None and i not in found:
                found.append(i)
    return found


def _added_around(path: Path, tokenizer: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Special tokens that the tokenizer puts before and after a text."""
    processor = tokenizer.get("post_processor") or {"processors": []}
    steps = [step for step in processor.get("processors", [processor]) if step["type"] != "ByteLevel"]
    pieces = [piece for step in steps for piece in step.get("single", [{step["type"]: {}}])]
    layout = " ".join(next(iter(piece)) for piece in pieces)
    if pieces and not re.fullmatch("(SpecialToken )?Sequence( SpecialToken)?", layout):
        raise FileError(f"{path}: a post_processor of {layout!r}, which a GGUF cannot represent")
    first, last = (
        piece.get("SpecialToken", {}).get("id") for piece in (*pieces[:1], *pieces[-1:]) or ({}, {})
    )
    return first, last


def _chat_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, Field]:
    """Chat templates; as in transformers, separate files take precedence over tokenizer_config.json."""
    templates = config.get("chat_template") or []
    if isinstance(templates, str):
        templates = [{"name": "default", "template": templates}]
    by_name = {_as_key(entry["name"]): entry["template"] for entry in templates}
    for name, text in by_name.items():
        if not isinstance(text, str) or len(text) > _TEMPLATE_BYTES_MAX:
            raise FileError(
                f"{folder / 'tokenizer_config.json'}: the chat template {name!r} is no text of at most "
                f"{_TEMPLATE_BYTES_MAX:,} characters"
            )
    files = {path.stem: path for path in sorted((folder / MORE_TEMPLATES).glob("*.jinja"))}
    if (folder / "chat_template.jinja").exists():
        files["default"] = folder / "chat_template.jinja"
    by_name |= {_as_key(name): _read_template(path) for name, path in files.items()}
    others = {name: text for name, text in by_name.items() if name != "default"}
    fields = {f"tokenizer.chat_template.{name}": Field(text, Kind.STRING) for name, text in others.items()}
    if others:
        fields["tokenizer.chat_templates"] = Field(list(others), Kind.ARRAY, Kind.STRING)
    if "default" in by_name:
        fields[CHAT_TEMPLATE] = Field(by_name["default"], Kind.STRING)
    return fields


def _as_key(name: str) -> str:
    """Replace the characters that a GGUF key must not have."""
    return re.sub("[^A-Za-z0-9]", "_", name)


def _read_template(path: Path) -> str:
    """Read a chat template with the line ends that transformers makes of its own."""
    text = decode_utf8(read_bounded(path, _TEMPLATE_BYTES_MAX), str(path))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
