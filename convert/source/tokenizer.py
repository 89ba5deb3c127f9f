"""A tokenizer.json, byte-level BPE or with byte fallback, and chat templates as GGUF metadata.

Byte fallback is a vocabulary of the SentencePiece kind: pieces with scores, and tokens for the bytes of other
characters. There llama.cpp joins two neighbours whenever their texts together are a token, those with the
highest score first, the leftmost of several. BPE with byte fallback in tokenizer.json joins by ranks of
pairs. Both give the same tokens if each pair that makes a token is a merge, and if the merges that make one
token follow each other: the score is then the token's place among the merges. This is checked for every
vocabulary.
"""

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from gguf import GGUFValueType as Kind
from gguf import TokenType

from ...errors import FileError
from ...files.gguf.header import SPACE_ONCE, STRIPPING_TOKENS, Field
from ...files.json_file import TOKENIZER_BYTES_MAX, decode_utf8, layout_errors, read_bounded, read_json
from ...files.received_files import MORE_TEMPLATES
from .pre_tokenizer import pre_tokenizer_name, rules_of

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
SPACE = "▁"  # stands for a space in a piece
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_BYTES = frozenset(BYTE_PIECES)
_TO_SPACE = ("Replace", " ", SPACE)
_WORD_BY_WORD = ("Split", " ", "MergedWithPrevious", False)  # does nothing: no space is left
# (normalizer, pre-tokenizer) -> whether a space is put before a text, and only if it has none
_SPACES = {
    ((_TO_SPACE,), ()): (False, False),
    ((_TO_SPACE,), (_WORD_BY_WORD,)): (False, False),
    ((("Prepend", SPACE), _TO_SPACE), ()): (True, False),
    ((), (("Metaspace", SPACE, "never", False),)): (False, False),
    # `first` and `always` differ after special tokens, where the chat templates write a space themselves.
    ((), (("Metaspace", SPACE, "first", False),)): (True, True),
    ((), (("Metaspace", SPACE, "always", False),)): (True, True),
}
_Merges = Sequence[tuple[str, str]]
_Entry = tuple[str, int, TokenType]  # text, id and type of a token


def tokenizer_fields(folder: Path, vocab: int) -> dict[str, Field]:
    """Convert the tokenizer of a checkpoint whose embedding has `vocab` rows to GGUF metadata.

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
    with layout_errors(path):
        model = tokenizer["model"]
        if model.get("type") != "BPE":
            raise FileError(f"{path}: the model is {model.get('type')!r}; only BPE is supported")
        _refuse_options(path, "the model", model, _UNSUPPORTED)
        convert = _byte_fallback_fields if model.get("byte_fallback") else _byte_level_fields
        fields = convert(path, tokenizer, vocab)
        first, last = _added_around(path, tokenizer)
    with layout_errors(config_path):
        _check_added(config_path, config, fields)
        fields |= _special_tokens(folder, config, fields["tokenizer.ggml.tokens"].value, first, last)
        fields |= _chat_templates(folder, config)
    configured = not tokenizer.get("post_processor") and config.get("add_bos_token") is True
    add_bos = (first is not None or configured) and "tokenizer.ggml.bos_token_id" in fields
    fields["tokenizer.ggml.add_bos_token"] = Field(add_bos, Kind.BOOL)
    fields["tokenizer.ggml.add_eos_token"] = Field(last is not None, Kind.BOOL)
    return fields


def _byte_level_fields(path: Path, tokenizer: Mapping[str, Any], vocab: int) -> dict[str, Field]:
    model, added = tokenizer["model"], tokenizer.get("added_tokens") or []
    pre = pre_tokenizer_name(path, tokenizer)
    normal = ((text, i, TokenType.NORMAL) for text, i in model["vocab"].items())
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return {
        "tokenizer.ggml.model": Field("gpt2", Kind.STRING),
        "tokenizer.ggml.pre": Field(pre, Kind.STRING),
        **_token_table(path, chain(normal, _added_tokens(path, added)), vocab),
        "tokenizer.ggml.merges": Field(merges, Kind.ARRAY, Kind.STRING),
        **_stripping_fields(added),
    }


def _byte_fallback_fields(path: Path, tokenizer: Mapping[str, Any], vocab: int) -> dict[str, Field]:
    """A SentencePiece vocabulary; FileError if llama.cpp could divide a text into other tokens."""
    model, added = tokenizer["model"], tokenizer.get("added_tokens") or []
    _refuse_options(path, "the model", model, ("ignore_merges",))
    spaces = (rules_of(tokenizer.get("normalizer")), rules_of(tokenizer.get("pre_tokenizer")))
    if spaces not in _SPACES:
        raise FileError(
            f"{path}: unknown treatment of spaces with byte fallback: {spaces[0]!r}, {spaces[1]!r}"
        )
    prefix, once = _SPACES[spaces]
    for token in added if prefix else ():
        if not token.get("special"):
            _refuse_options(path, f"the added token {token['content']!r}", token, ("normalized",))
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    merges = [(left, right) for left, right in pairs]
    places = _places(path, merges)
    # Published Gemmas have a special token for images beyond the rows of their text models.
    inside = [token for token in added if not (token.get("special") and token["id"] >= vocab)]
    table = _token_table(path, _entries(path, model, inside, places), vocab)
    tokens, types = (field.value for field in table.values())
    present = {text for text, kind in zip(tokens, types, strict=True) if kind == TokenType.BYTE}
    if missing := [piece for piece in BYTE_PIECES if piece not in present]:
        raise FileError(f"{path}: has no byte token {missing[0]!r}")
    _check_joins(path, tokens, types, set(merges))
    last = max(places.values(), default=0)  # also of tokens that no merge gives
    scores = [float(-places.get(token, last)) for token in tokens]
    fields = {
        "tokenizer.ggml.model": Field("llama", Kind.STRING),
        "tokenizer.ggml.pre": Field("default", Kind.STRING),
        **table,
        "tokenizer.ggml.scores": Field(scores, Kind.ARRAY, Kind.FLOAT32),
        "tokenizer.ggml.add_space_prefix": Field(prefix, Kind.BOOL),
        **({SPACE_ONCE: Field(True, Kind.BOOL)} if once else {}),
    }
    return fields | _stripping_fields(inside)


def _entries(
    path: Path, model: Mapping[str, Any], added: Iterable[Mapping[str, Any]], places: Container[str]
) -> Iterator[_Entry]:
    unknown = model.get("unk_token")
    for text, i in model["vocab"].items():
        yield text, i, TokenType.BYTE if text in _BYTES else TokenType.NORMAL
    for text, i, kind in _added_tokens(path, added):
        if text == unknown:
            yield text, i, TokenType.UNKNOWN
        elif kind is TokenType.USER_DEFINED and SPACE in text and text in places:
            yield text, i, TokenType.NORMAL  # spaces in a text become this by merges alone
        else:
            yield text, i, kind


def _places(path: Path, merges: _Merges) -> dict[str, int]:
    """Place of each token in the order of the merges that make it, which must follow each other."""
    # Those of a run of one character need not: Gemma's merges of spaces begin with the longest.
    places: dict[str, int] = {}
    for left, right in merges:
        token = left + right
        if places.setdefault(token, len(places)) != len(places) - 1 and len(set(token)) > 1:
            raise FileError(f"{path}: other merges stand between those of the token {token!r}")
    return places


def _check_joins(
    path: Path, tokens: Sequence[str], types: Sequence[int], merges: Container[tuple[str, str]]
) -> None:
    """Check that whatever llama.cpp would join is a merge: it joins control tokens too."""
    known = {*tokens, *"".join(tokens)}  # a character is joined with or without a token of its own
    for token, kind in zip(tokens, types, strict=True):
        if kind == TokenType.USER_DEFINED and SPACE not in token:
            continue  # found in a text before anything is joined
        for at in range(1, len(token)):
            if token[:at] not in known or token[at:] not in known:
                continue
            pair = (token[:at], token[at:])
            if kind != TokenType.NORMAL or pair not in merges:
                raise FileError(
                    f"{path}: llama.cpp would join {pair[0]!r} and {pair[1]!r} to the token {token!r}, "
                    "but no merge does"
                )


def _token_table(path: Path, entries: Iterable[_Entry], vocab: int) -> dict[str, Field]:
    """Texts and types of `vocab` tokens as GGUF metadata; an id without an entry is an unused token."""
    tokens, types = [f"[PAD{i}]" for i in range(vocab)], [int(TokenType.UNUSED)] * vocab
    for text, i, kind in entries:
        if i not in range(vocab) or (types[i] != TokenType.UNUSED and tokens[i] != text):
            raise FileError(
                f"{path}: token {text!r} has the id {i!r}, but the embedding has {vocab} rows, one for each"
            )
        tokens[i], types[i] = text, int(kind)
    text, times = Counter(tokens).most_common(1)[0]
    if times > 1:  # llama.cpp aborts
        raise FileError(f"{path}: token {text!r} has {times} ids")
    return {
        "tokenizer.ggml.tokens": Field(tokens, Kind.ARRAY, Kind.STRING),
        "tokenizer.ggml.token_type": Field(types, Kind.ARRAY, Kind.INT32),
    }


def _added_tokens(path: Path, tokens: Iterable[Mapping[str, Any]]) -> Iterator[_Entry]:
    """Read the added tokens of tokenizer.json; FileError if one has an option that a GGUF lacks."""
    for token in tokens:
        special = bool(token.get("special"))
        options = ("lstrip", "single_word") if special else ("lstrip", "single_word", "rstrip")
        _refuse_options(path, f"the added token {token['content']!r}", token, options)
        yield token["content"], token["id"], TokenType.CONTROL if special else TokenType.USER_DEFINED


def _stripping_fields(tokens: Iterable[Mapping[str, Any]]) -> dict[str, Field]:
    """Metadata that names the control tokens which take the white space after them."""
    names = [token["content"] for token in tokens if token.get("special") and token.get("rstrip")]
    return {STRIPPING_TOKENS: Field(names, Kind.ARRAY, Kind.STRING)} if names else {}


def _refuse_options(path: Path, subject: str, values: Mapping[str, Any], options: Iterable[str]) -> None:
    """Raise FileError if one of the options is on, of which each changes tokens in a way llama.cpp lacks."""
    for option in options:
        if value := values.get(option):
            raise FileError(f"{path}: {subject} has {option} {value!r}, which a GGUF cannot represent")


def _check_added(path: Path, config: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    """Check that tokenizer_config.json adds no token to those of the vocabulary; transformers would."""
    tokens, pieces = fields["tokenizer.ggml.tokens"].value, "tokenizer.ggml.scores" in fields
    for i, token in (config.get("added_tokens_decoder") or {}).items():
        found = tokens[int(i)] if int(i) < len(tokens) else None
        beyond = pieces and found is None and token.get("special")  # _byte_fallback_fields() omits it
        if found != token["content"] and not beyond:
            raise FileError(f"{path}: token {i} is {token['content']!r}, but {found!r} in the vocabulary")


def _special_tokens(
    folder: Path, config: Mapping[str, Any], tokens: Sequence[str], first: str | None, last: str | None
) -> dict[str, Field]:
    """Ids of the special tokens; the tokenizer puts `first` before a text and `last` after it."""
    ids = {token: i for i, token in enumerate(tokens)}
    model_config = _optional(folder / "config.json")
    ends: list[int] = []  # those of generation_config.json first
    for settings in (_optional(folder / "generation_config.json"), model_config):
        given: Any = settings.get("eos_token_id")
        ends += [i for i in (given if isinstance(given, list) else [given]) if i in range(len(tokens))]
    defaults = model_config | {"eos_token_id": ends[0] if ends else None}
    special: dict[str, int] = {}
    for key, name in _SPECIAL_TOKENS.items():
        token = config.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        i: Any = defaults.get(f"{key}_id") if text is None else ids.get(text)
        if i in range(len(tokens)):
            special[name] = i
        elif name in ("bos", "eos") and (text, i) != (None, None):
            value = i if text is None else text
            raise FileError(f"{folder}: {key} is {value!r}, which is not one of {len(tokens)} tokens")
    for name, text, place in (("bos", first, "begin"), ("eos", last, "end")):
        if text is not None and special.setdefault(name, ids[text]) != ids[text]:
            found = tokens[special[name]]
            raise FileError(f"{folder}: texts {place} with {text!r}, but {name}_token is {found!r}")
    if "eos" not in special:
        # llama.cpp would use token 11, whatever its text is.
        raise FileError(f"{folder}: has neither an eos_token nor an eos_token_id")
    unrecognized = {i: None for i in ends if i != special["eos"] and tokens[i] not in KNOWN_END_TOKENS}
    if len(unrecognized) > 2:
        raise FileError(f"{folder}: {len(unrecognized)} end tokens, {[*unrecognized]}; a GGUF has keys for 2")
    special |= zip(("eot", "eom"), unrecognized, strict=False)
    return {f"tokenizer.ggml.{name}_token_id": Field(i, Kind.UINT32) for name, i in special.items()}


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
    files = {path.stem: path for path in sorted((folder / MORE_TEMPLATES).glob("*.jinja"))}
    if (folder / "chat_template.jinja").exists():
        files["default"] = folder / "chat_template.jinja"
    for name, path in files.items():  # with the line ends that transformers makes of theirs
        text = decode_utf8(read_bounded(path, _TEMPLATE_BYTES_MAX), str(path))
        by_name[_as_key(name)] = text.replace("\r\n", "\n").replace("\r", "\n")
    for name, text in by_name.items():
        if not isinstance(text, str) or len(text) > _TEMPLATE_BYTES_MAX:
            raise FileError(
                f"{folder}: chat template {name!r} is no text of up to {_TEMPLATE_BYTES_MAX:,} characters"
            )
    default = by_name.pop("default", None)
    fields = {f"{CHAT_TEMPLATE}.{name}": Field(text, Kind.STRING) for name, text in by_name.items()}
    if by_name:
        fields["tokenizer.chat_templates"] = Field(list(by_name), Kind.ARRAY, Kind.STRING)
    if default is not None:
        fields[CHAT_TEMPLATE] = Field(default, Kind.STRING)
    return fields


def _as_key(name: str) -> str:
    """Replace the characters that a GGUF key must not have."""
    return re.sub("[^A-Za-z0-9]", "_", name)


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
