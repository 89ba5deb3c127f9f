"""Vocabularies for tests, as tokenizer.json, and llama.cpp's tokenizer."""

import ctypes
import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from llama_cpp import llama_cpp
from thirteen.convert.source.tokenizer import tokenizer_fields
from thirteen.convert.write import write_gguf
from thirteen.files.gguf.header import Field
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ...json_changes import Change, change_json
from . import tokenizer_texts

CONTROL = ("<unk>", "<s>", "</s>")
# How tokenizer.json treats spaces -> normalizer and pre-tokenizer.
SPACES: dict[str, tuple[Any, Any]] = {
    "gemma": (normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous")),
    "llama": (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None),
    "mistral": (None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
}


@cache
def trained_model(folder: Path, prefix: bool) -> Path:
    """A SentencePiece model of 1,200 pieces, trained on the texts of the tests."""
    import sentencepiece as spm

    texts = [line for text in tokenizer_texts.lines(3000, seed=7) for line in text.split("\n") if line]
    path = folder / f"trained-{prefix}.model"
    with path.open("wb") as file:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=file, model_type="bpe", vocab_size=2000,
            character_coverage=0.99, byte_fallback=True, normalization_rule_name="identity",
            add_dummy_prefix=prefix, remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
            split_digits=True, num_threads=1, minloglevel=2,
            control_symbols=["[INST]", "[/INST]"],
        )  # fmt: skip
    return path


def save_json(folder: Path, model: Path, spaces: str) -> Tokenizer:
    """Save the pieces of a model as BPE with byte fallback, as transformers converts them."""
    import sentencepiece as spm

    source = spm.SentencePieceProcessor(str(model))
    pieces = [source.id_to_piece(i) for i in range(source.vocab_size())]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    order = sorted(vocab, key=lambda piece: -source.get_score(vocab[piece]))
    merges = [
        (piece[:at], piece[at:])
        for piece in order
        for at in range(1, len(piece))
        if piece[:at] in vocab and piece[at:] in vocab
    ]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    normalizer, pre_tokenizer = SPACES[spaces]
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in pieces if _is_control(text)])
    tokenizer.save(str(folder / "tokenizer.json"))
    save_configs(folder)
    return tokenizer


def _is_control(text: str) -> bool:
    return text in CONTROL or (text.startswith("[") and text.endswith("]") and len(text) > 3)


def save_configs(folder: Path) -> None:
    """Save tokenizer_config.json and an empty config.json."""
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text("{}")


class LlamaVocabulary:
    """A converted tokenizer in llama.cpp, without a model; its few megabytes stay until the process ends."""

    def __init__(self, path: Path, fields: Mapping[str, Field]) -> None:
        from gguf import GGUFValueType

        architecture = {"general.architecture": Field("llama", GGUFValueType.STRING)}
        write_gguf(path, {**architecture, **fields}, [], [])
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        assert model
        self.vocab = llama_cpp.llama_model_get_vocab(model)

    @classmethod
    def convert(cls, folder: Path, vocab: int) -> "LlamaVocabulary":
        return cls(folder / "tokenizer.gguf", tokenizer_fields(folder, vocab))

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        data = text.encode()
        buffer = (llama_cpp.llama_token * (len(data) + 9))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), buffer, len(buffer), False, special)
        assert count >= 0
        return list(buffer[:count])

    def written(self, tokens: list[int]) -> bytes:
        """The text of tokens."""
        buffer = ctypes.create_string_buffer(4096)
        length = (llama_cpp.llama_token_to_piece(self.vocab, t, buffer, 4096, 0, False) for t in tokens)
        return b"".join(buffer.raw[:size] for size in length)


def fields_of(folder: Path, vocab: int, **changes: Change) -> dict[str, Any]:
    """Change JSON files, given by their stems, and convert the tokenizer to GGUF metadata values."""
    for name, change in changes.items():
        change_json(folder / f"{name}.json", change)
    return {
        key.removeprefix("tokenizer.").removeprefix("ggml."): field.value
        for key, field in tokenizer_fields(folder, vocab).items()
    }


def comparison(
    save: Callable[[str, Path], Tokenizer], factory: pytest.TempPathFactory
) -> Callable[[str, list[str]], list[str]]:
    """differing(name, texts): those with other tokens in llama.cpp than in what `save` saves."""

    @cache
    def pair(name: str) -> tuple[Tokenizer, LlamaVocabulary]:
        folder = factory.mktemp("tokenizer")
        tokenizer = save(name, folder)
        tokenizer.encode_special_tokens = True
        return tokenizer, LlamaVocabulary.convert(folder, tokenizer.get_vocab_size())

    def differing(name: str, texts: list[str]) -> list[str]:
        source, converted = pair(name)
        return [text for text in texts if source.encode(text).ids != converted.ids(text)]

    return differing
