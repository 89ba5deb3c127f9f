"""The files of a Hugging Face checkpoint that name tokens by their ids, trimmed to a list of kept tokens."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...errors import VocabularyError
from ...files.json_file import TOKENIZER_BYTES_MAX, read_json
from ..source.tokenizer import layout_errors
from .vocabulary_list import VocabularyList
from .vocabulary_metadata import LIST_FILE

_NewIds = Mapping[int, int]  # new id of each kept token by its original one
# Other forms of the vocabulary, which loaders read only where there is no tokenizer.json.
_OTHER_FORMS = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model")
_SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")
# Lists of tokens that a generation avoids: one that is gone is avoided already.
_SUPPRESSED = ("suppress_tokens", "begin_suppress_tokens")
# Settings of a generation that name tokens by their ids and are refused: few checkpoints have them.
_NOT_RENUMBERED = ("force_words_ids", "forced_decoder_ids", "sequence_bias")


def trim_checkpoint_files(
    base: Path, folder: Path, kept: VocabularyList, original: VocabularyList | None
) -> None:
    """Trim the copied files of a checkpoint.

    Args:
        base: the checkpoint.
        folder: the folder with its files, where the trimmed ones replace them.
        kept: the tokens of this checkpoint that stay.
        original: the same by the ids of the full vocabulary, saved beside the weights.

    Raises:
        CheckpointError: a file is damaged.
        VocabularyError: a file names a token that is not kept, where it needs one, or has a setting whose ids
            are not renumbered.
    """
    new_ids = {old: new for new, old in enumerate(kept.tokens)}
    editors: dict[str, Callable[[Path, dict[str, Any], _NewIds], dict[str, Any]]] = {
        "config.json": _config,
        "generation_config.json": _config,
        "tokenizer_config.json": _tokenizer_config,
        "special_tokens_map.json": _special_tokens_map,
        "added_tokens.json": _added_tokens,
        "tokenizer.json": _tokenizer,
    }
    for name, edit in editors.items():
        path = base / name
        if path.exists():
            with layout_errors(path):
                edited = edit(path, read_json(path, max_bytes=TOKENIZER_BYTES_MAX), new_ids)
                text = json.dumps(edited, indent=2, ensure_ascii=False).encode()
            (folder / name).write_bytes(text + b"\n")
    for name in _OTHER_FORMS:
        (folder / name).unlink(missing_ok=True)
    (original or kept).save(folder / LIST_FILE)


def _config(path: Path, config: dict[str, Any], new_ids: _NewIds) -> dict[str, Any]:
    """config.json or generation_config.json."""
    changed: dict[str, Any] = {}
    for key, value in config.items():
        if key == "vocab_size":
            changed[key] = len(new_ids)
        elif key.endswith("_token_id"):
            ids = value if isinstance(value, list) else [value]
            found = [None if i is None else _new_id(new_ids, i, path, key) for i in ids]
            changed[key] = found if isinstance(value, list) else found[0]
        elif key in _SUPPRESSED and isinstance(value, list):
            changed[key] = [new_ids[i] for i in value if i in new_ids]
        elif key == "bad_words_ids" and value:
            # A word with a dropped token is avoided already. transformers refuses an empty list.
            words = [[new_ids[i] for i in word] for word in value if all(i in new_ids for i in word)]
            changed[key] = words or None
        elif key in _NOT_RENUMBERED and value:
            raise VocabularyError(f"{path}: {key} names tokens by ids that are not renumbered: remove it")
    return config | changed


def _tokenizer(path: Path, tokenizer: dict[str, Any], new_ids: _NewIds) -> dict[str, Any]:
    """tokenizer.json: vocabulary and merges, added tokens, and what the post-processor inserts."""
    model = tokenizer["model"]
    vocab = {text: new_ids[i] for text, i in model["vocab"].items() if i in new_ids}
    merges = [merge for merge in model["merges"] if _joins(merge, vocab)]
    added = [
        token | {"id": new_ids[token["id"]]}
        for token in tokenizer.get("added_tokens") or []
        if token["id"] in new_ids
    ]
    changed = {
        "model": model | {"vocab": vocab, "merges": merges},
        "added_tokens": added,
    }
    if processor := tokenizer.get("post_processor"):
        changed["post_processor"] = _post_processor(path, processor, new_ids)
    return tokenizer | changed


def _joins(merge: str | list[str], vocab: Mapping[str, int]) -> bool:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in vocab and right in vocab and left + right in vocab


def _post_processor(path: Path, processor: dict[str, Any], new_ids: _NewIds) -> dict[str, Any]:
    if "processors" in processor:
        parts = [_post_processor(path, part, new_ids) for part in processor["processors"]]
        return processor | {"processors": parts}
    if "special_tokens" in processor:  # TemplateProcessing
        tokens = {
            text: token | {"ids": [_new_id(new_ids, i, path, f"post_processor {text}") for i in token["ids"]]}
            for text, token in processor["special_tokens"].items()
        }
        return processor | {"special_tokens": tokens}
    pairs = {key: processor[key] for key in ("sep", "cls") if key in processor}  # BERT's and RoBERTa's
    return processor | {
        key: [text, _new_id(new_ids, i, path, f"post_processor {text}")] for key, (text, i) in pairs.items()
    }


def _tokenizer_config(path: Path, config: dict[str, Any], new_ids: _NewIds) -> dict[str, Any]:
    config = _special_tokens_map(path, config, new_ids)
    if not (decoder := config.get("added_tokens_decoder")):
        return config
    kept = {str(new_ids[int(i)]): token for i, token in decoder.items() if int(i) in new_ids}
    return config | {"added_tokens_decoder": kept}


def _special_tokens_map(path: Path, config: dict[str, Any], new_ids: _NewIds) -> dict[str, Any]:
    """Remove dropped tokens from the lists of special tokens: transformers would add them again."""
    tokenizer = read_json(path.with_name("tokenizer.json"), max_bytes=TOKENIZER_BYTES_MAX)
    added = tokenizer.get("added_tokens") or []
    dropped = {token["content"] for token in added if token["id"] not in new_ids}
    lists = {key: config[key] for key in _SPECIAL_LISTS if isinstance(config.get(key), list)}
    return config | {
        key: [token for token in tokens if _content(token) not in dropped] for key, tokens in lists.items()
    }


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _added_tokens(_: Path, tokens: dict[str, Any], new_ids: _NewIds) -> dict[str, Any]:
    """added_tokens.json, which has ids by text."""
    return {text: new_ids[i] for text, i in tokens.items() if i in new_ids}


def _new_id(new_ids: _NewIds, token: Any, path: Path, key: str) -> int:
    if token not in new_ids:
        raise VocabularyError(f"{path}: {key} is {token!r}, which the vocabulary list does not keep")
    return new_ids[token]
