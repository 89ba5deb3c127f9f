"""A trimmed checkpoint loads in transformers: its tokenizer and its logits are the full one's, renumbered."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open
from thirteen.convert.merge import merge_checkpoint
from thirteen.convert.pipeline import convert
from thirteen.convert.vocabulary.vocabulary_list import VocabularyList
from thirteen.convert.vocabulary.vocabulary_metadata import LIST_FILE
from thirteen.errors import CheckpointError, ThirteenError, VocabularyError
from thirteen.files.gguf.header import read_header
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from ... import checkpoints
from ..peft_adapters import save_random_adapter
from ..source import tokenizer_texts
from ..source.vocabularies import PUBLISHED, save_published
from .kept_lists import closed_list, tables_of

Base = Callable[[str], Path]


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("name", ["llama", "llama untied", "qwen2", "llama bf16 in shards"])
def test_logits_are_those_of_the_kept_tokens(base: Base, tmp_path: Path, name: str) -> None:
    kept = closed_list(tables_of(base(name)), [261])
    report = merge_checkpoint(base(name), None, tmp_path / "trimmed", vocabulary=kept)
    assert report.adapter is None and report.vocabulary is not None
    assert (report.vocabulary.kept, report.vocabulary.of) == (len(kept.tokens), 272)
    full, trimmed = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for folder in (base(name), tmp_path / "trimmed")
    )
    ids = torch.tensor([[3, 260, 70, 71]])
    original = torch.tensor([[kept.tokens[token] for token in ids[0].tolist()]])
    with torch.no_grad():
        expected = full(original).logits[0].numpy()[:, list(kept.tokens)]
        np.testing.assert_allclose(trimmed(ids).logits[0].numpy(), expected, rtol=1e-5, atol=1e-5)
    config = read(tmp_path / "trimmed" / "config.json")
    assert (config["vocab_size"], config["eos_token_id"]) == (len(kept.tokens), 258)
    with safe_open(tmp_path / "trimmed" / report.files[0], "np") as file:
        assert file.metadata()["thirteen.vocabulary.of"] == "272"


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_tokenizer_gives_the_same_tokens(tmp_path: Path, name: str) -> None:
    folder, trimmed = tmp_path / "full", tmp_path / "trimmed"
    full, texts = save_published(name, folder), tokenizer_texts.lines(1000)
    messages = [{"role": "user", "content": "What is 12 + 30?"}]
    chat = {"conversation": messages, "date_string": "26 Jul 2024", "return_dict": False}
    prompt = AutoTokenizer.from_pretrained(folder).apply_chat_template(**chat)
    seen = {token for text in texts[::2] for token in full.encode(text).ids} | set(prompt)
    kept = closed_list(tables_of(folder), seen)
    new_ids = {old: new for new, old in enumerate(kept.tokens)}
    merge_checkpoint(folder, None, trimmed, vocabulary=kept)
    tokenizer = Tokenizer.from_file(str(trimmed / "tokenizer.json"))
    by_transformers = AutoTokenizer.from_pretrained(trimmed)
    assert len(by_transformers) == len(kept.tokens)
    same = 0
    for text in texts:
        original, ids = full.encode(text).ids, tokenizer.encode(text).ids
        if set(original) <= new_ids.keys():
            same += 1
            assert ids == [new_ids[token] for token in original], text
            assert by_transformers(text).input_ids == ids
        else:
            assert tokenizer.decode(ids) == full.decode(original)
    assert len(texts) / 2 <= same < len(texts)
    assert by_transformers.apply_chat_template(**chat) == [new_ids[token] for token in prompt]


def test_a_trimmed_checkpoint_is_converted_like_the_full_one_with_the_list(
    base: Base, tmp_path: Path
) -> None:
    kept = closed_list(tables_of(base("llama untied")), [261])
    adapter = save_random_adapter(
        base("llama untied"), LoraConfig(target_modules=["lm_head"]), tmp_path / "a"
    )
    merge_checkpoint(base("llama untied"), adapter, tmp_path / "trimmed", vocabulary=kept)
    assert VocabularyList.load(tmp_path / "trimmed" / LIST_FILE) == kept
    options: dict[str, Any] = {"quantization": "F32"}
    convert(tmp_path / "trimmed", tmp_path / "one.gguf", **options)
    convert(base("llama untied"), tmp_path / "other.gguf", vocabulary=kept, adapter=adapter, **options)
    one, other = read_header(tmp_path / "one.gguf"), read_header(tmp_path / "other.gguf")
    for key in other.metadata:
        if key.startswith(("tokenizer.", "thirteen.vocabulary.", "llama.")):
            assert one.metadata[key] == other.metadata[key], key
    data = [
        path.read_bytes()[next(iter(header.tensors.values())).offset :]
        for path, header in ((tmp_path / "one.gguf", one), (tmp_path / "other.gguf", other))
    ]
    assert data[0] == data[1]


def edited(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    value = read(folder / name)
    change(value)
    (folder / name).write_text(json.dumps(value))


def test_all_files_that_name_tokens_are_trimmed(tmp_path: Path) -> None:
    folder, trimmed = checkpoints.save_model(tmp_path / "full", checkpoints.llama()), tmp_path / "trimmed"
    added = {"id": 270, "content": "<|extra|>", "special": True, "lstrip": False, "rstrip": False}
    added |= {"single_word": False, "normalized": False}
    edited(folder, "tokenizer.json", lambda file: file["added_tokens"].append(added))
    bert = {"type": "BertProcessing", "sep": ["<|im_end|>", 258], "cls": ["<|im_start|>", 257]}
    edited(folder, "tokenizer.json", lambda file: file.update(post_processor=bert))
    decoder = {"256": {"content": "<|endoftext|>"}, "270": {"content": "<|extra|>"}}
    extra = {"added_tokens_decoder": decoder, "additional_special_tokens": ["<|im_end|>", "<|extra|>"]}
    edited(folder, "tokenizer_config.json", lambda file: file.update(extra))
    (folder / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<|extra|>"]}))
    (folder / "added_tokens.json").write_text(json.dumps({"<|im_end|>": 258, "<|extra|>": 270}))
    (folder / "vocab.json").write_text("{}")
    generation = {"eos_token_id": [258, 256], "pad_token_id": None, "suppress_tokens": [0, 263, 270]}
    generation |= {"bad_words_ids": [[65, 263], [270], [263, 270]], "sequence_bias": {}}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    tables = tables_of(folder)
    kept = closed_list(tables, [263])
    merge_checkpoint(folder, None, trimmed, vocabulary=kept)
    new = {
        text: kept.tokens.index(tables.ids[text]) for text in ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
    }
    tokenizer = read(trimmed / "tokenizer.json")
    assert [token["content"] for token in tokenizer["added_tokens"]] == [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
    ]
    assert tokenizer["post_processor"]["sep"] == ["<|im_end|>", new["<|im_end|>"]]
    assert tokenizer["post_processor"]["cls"] == ["<|im_start|>", new["<|im_start|>"]]
    config = read(trimmed / "tokenizer_config.json")
    assert config["added_tokens_decoder"] == {str(new["<|endoftext|>"]): {"content": "<|endoftext|>"}}
    assert config["additional_special_tokens"] == ["<|im_end|>"]
    assert read(trimmed / "special_tokens_map.json") == {"additional_special_tokens": []}
    assert read(trimmed / "added_tokens.json") == {"<|im_end|>": new["<|im_end|>"]}
    assert not (trimmed / "vocab.json").exists()
    ends = [new["<|im_end|>"], new["<|endoftext|>"]]
    found = read(trimmed / "generation_config.json")
    assert found == {
        "eos_token_id": ends,
        "pad_token_id": None,
        "suppress_tokens": [0, kept.tokens.index(263)],
        "bad_words_ids": [[65, kept.tokens.index(263)]],
        "sequence_bias": {},
    }


def test_a_dropped_token_that_a_file_needs_is_refused(tmp_path: Path) -> None:
    folder = checkpoints.save_model(tmp_path / "full", checkpoints.llama())
    kept = closed_list(tables_of(folder), [263])
    edited(folder, "config.json", lambda file: file.update(forced_bos_token_id=262))
    with pytest.raises(VocabularyError, match=r"config\.json: forced_bos_token_id is 262, which the voc"):
        merge_checkpoint(folder, None, tmp_path / "trimmed", vocabulary=kept)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def processor(**settings: Any) -> dict[str, Any]:
    return {"post_processor": {"type": "ByteLevel"} | settings}


LAYOUT = "unexpected layout"
UNUSABLE: dict[str, tuple[str, dict[str, Any], str]] = {
    "an id in a list": ("added_tokens.json", {"a": [1]}, LAYOUT),
    "an id that is an object": ("config.json", {"image_token_id": {}}, LAYOUT),
    "suppressed lists": ("generation_config.json", {"suppress_tokens": [[1]]}, LAYOUT),
    "bad words that are ids": ("generation_config.json", {"bad_words_ids": [1]}, LAYOUT),
    "half a surrogate": ("generation_config.json", {"a": "\ud83d"}, LAYOUT),
    "a special token without ids": ("tokenizer.json", processor(special_tokens={"<s>": {}}), LAYOUT),
    "a separator without an id": ("tokenizer.json", processor(sep=["a"]), LAYOUT),
    "a token whose text is a list": (
        "special_tokens_map.json",
        {"additional_special_tokens": [{"content": ["a"]}]},
        LAYOUT,
    ),
    "forced words": ("generation_config.json", {"force_words_ids": [[1]]}, "force_words_ids names tokens by"),
    "forced tokens": ("config.json", {"forced_decoder_ids": [[1, 2]]}, "forced_decoder_ids names tokens by"),
    "biased words": ("generation_config.json", {"sequence_bias": [[[1], 2.0]]}, "sequence_bias names tokens"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_file_that_cannot_be_trimmed_is_named(base: Base, tmp_path: Path, name: str) -> None:
    """Most ended in a traceback; ids that were not renumbered named other tokens."""
    file, content, message = UNUSABLE[name]
    folder = Path(shutil.copytree(base("llama"), tmp_path / "full"))
    whole = read(folder / file) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(whole | content))
    kept = closed_list(tables_of(folder), [263])
    with pytest.raises(ThirteenError, match=f"{folder / file}: {message}") as caught:
        merge_checkpoint(folder, None, tmp_path / "trimmed", vocabulary=kept)
    assert isinstance(caught.value, CheckpointError if message == LAYOUT else VocabularyError)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_bad_words_of_dropped_tokens_leave_no_empty_list(base: Base, tmp_path: Path) -> None:
    """transformers refuses one."""
    folder = Path(shutil.copytree(base("llama"), tmp_path / "full"))
    (folder / "generation_config.json").write_text(json.dumps({"bad_words_ids": [[270]]}))
    kept = closed_list(tables_of(folder), [263])
    merge_checkpoint(folder, None, tmp_path / "trimmed", vocabulary=kept)
    assert read(tmp_path / "trimmed/generation_config.json") == {"bad_words_ids": None}
