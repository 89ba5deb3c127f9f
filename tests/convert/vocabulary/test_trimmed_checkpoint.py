"""A trimmed file is the full one with fewer rows: nothing else about the model changes."""

import numpy as np
import pytest
from gguf import GGUFValueType
from peft import LoraConfig
from thirteen.convert.adapter.export import export_adapter
from thirteen.convert.convert import convert
from thirteen.convert.merged_model import MergedModel
from thirteen.convert.recipe import Recipe, Same, Uniform
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.vocabulary.vocabulary_list import read_vocabulary, vocabulary_of
from thirteen.files.gguf.header import read_header
from thirteen.models.embedded import embedded
from thirteen.runtime.engine.engine import Engine

from ..peft_adapters import read_gguf, save_random_adapter
from .kept_lists import closed_list, tables_of

TEXTS = (
    "A pen costs $1.20. What do 3 pens cost?",
    "Tom has 48 apples and gives away a half of them, then 12 more.\n\nHow many are left?",
    "<|im_start|>user\nWhat is 7 + 5?<|im_end|>\n<|im_start|>assistant\n",
)


@pytest.fixture(scope="module")
def kept():
    tables = tables_of(embedded())
    with Engine(embedded(), context=16, slots=1) as engine:
        used = {i for text in TEXTS for i in engine.model.tokenize(text, special=True, bos=True)}
    return closed_list(tables, used | set(tables.merges[:8_000, 2].tolist()))


@pytest.fixture(scope="module")
def trimmed(kept, tmp_path_factory):
    """SmolLM2 with a part of its tokens, all tensors in their types."""
    path = tmp_path_factory.mktemp("trimmed") / "smollm2.gguf"
    report = convert(Recipe(embedded(), path, Same(), vocabulary=kept))
    assert report.warnings == [] and report.vocabulary == {"kept": len(kept.tokens), "of": 49152}
    return path


def test_logits_of_kept_tokens_are_identical(trimmed, kept):
    new_ids = {old: new for new, old in enumerate(kept.tokens)}
    # Kernels of repacked matrices, such as AMX's, take only some numbers of rows, and round differently.
    options = {"context": 128, "slots": 1, "repack": False}
    with Engine(embedded(), **options) as full, Engine(trimmed, **options) as small:
        for text in TEXTS:
            original = full.model.tokenize(text, special=True, bos=True)
            tokens = small.model.tokenize(text, special=True, bos=True)
            assert tokens == [new_ids[token] for token in original]
            expected = full.logits(original)[:, kept.tokens]
            assert np.array_equal(small.logits(tokens), expected)


def test_a_file_says_which_tokens_it_keeps(trimmed, kept):
    header = read_header(trimmed)
    assert read_vocabulary(header) == kept
    assert header.metadata["thirteen.vocabulary.kept"] == len(kept.tokens)
    assert header.metadata["thirteen.vocabulary.of"] == 49152
    assert header.fields["thirteen.vocabulary.tokens"].element is GGUFValueType.UINT32
    assert header.metadata["llama.vocab_size"] == len(kept.tokens)
    assert header.metadata["thirteen.base.sha256"] == open_checkpoint(embedded()).sha256()
    full = read_header(embedded())
    names = full.metadata["tokenizer.ggml.tokens"]
    assert header.metadata["tokenizer.ggml.tokens"] == [names[token] for token in kept.tokens]
    assert read_vocabulary(full) is None


@pytest.mark.parametrize("name", ["llama untied", "llama bf16 in shards"])
def test_rows_are_those_of_the_kept_tokens(base, tmp_path, name):
    kept = closed_list(tables_of(base(name)), [261, 270])
    convert(Recipe(base(name), tmp_path / "full.gguf", Uniform("F32")))
    convert(Recipe(base(name), tmp_path / "trimmed.gguf", Uniform("F32"), vocabulary=kept))
    full, trimmed = read_gguf(tmp_path / "full.gguf"), read_gguf(tmp_path / "trimmed.gguf")
    assert full.keys() == trimmed.keys()
    for tensor, values in full.items():
        expected = values[list(kept.tokens)] if tensor in ("token_embd.weight", "output.weight") else values
        assert np.array_equal(trimmed[tensor], expected), tensor


def test_a_trimmed_file_can_be_trimmed_again(base, tmp_path):
    """The file names the ids of the full vocabulary, not those of the file between."""
    first = closed_list(tables_of(base("llama")), [261, 262, 263, 270])
    convert(Recipe(base("llama"), tmp_path / "first.gguf", Uniform("F32"), vocabulary=first))
    second = closed_list(tables_of(tmp_path / "first.gguf"), [first.tokens.index(262)])
    convert(Recipe(tmp_path / "first.gguf", tmp_path / "second.gguf", Uniform("F32"), vocabulary=second))
    found = read_vocabulary(read_header(tmp_path / "second.gguf"))
    assert found is not None and (found.of, found.tokenizer_sha256) == (272, first.tokenizer_sha256)
    assert found.tokens == tuple(first.tokens[token] for token in second.tokens)
    convert(Recipe(tmp_path / "second.gguf", tmp_path / "third.gguf", Uniform("Q8_0")))
    assert vocabulary_of(open_checkpoint(tmp_path / "third.gguf")) == found


def test_an_adapter_of_the_output_is_trimmed_with_it(base, tmp_path):
    name, kept = "llama untied", closed_list(tables_of(base("llama untied")), [261, 270])
    config = LoraConfig(r=2, target_modules=["lm_head"], use_dora=True)
    adapter = save_random_adapter(base(name), config, tmp_path / "adapter")
    checkpoint = open_checkpoint(base(name))
    full, trimmed = MergedModel(checkpoint, adapter), MergedModel(checkpoint, adapter)
    trimmed.trim(kept)
    rows, found = full.rows("lm_head.weight", 0, 272), trimmed.rows("lm_head.weight", 0, len(kept.tokens))
    assert not np.array_equal(rows, checkpoint.rows("lm_head.weight", 0, 272))
    assert np.allclose(found, rows[list(kept.tokens)], atol=1e-6)


def test_a_run_time_adapter_of_the_full_model_is_exported_for_the_trimmed_one(base, tmp_path):
    name, kept = "llama untied", closed_list(tables_of(base("llama untied")), [261, 270])
    config = LoraConfig(r=2, target_modules=["q_proj", "lm_head"])
    adapter = save_random_adapter(base(name), config, tmp_path / "adapter")
    convert(Recipe(base(name), tmp_path / "trimmed.gguf", Uniform("F32"), vocabulary=kept))
    export_adapter(adapter, base(name), tmp_path / "full-lora.gguf")
    export_adapter(adapter, tmp_path / "trimmed.gguf", tmp_path / "lora.gguf")
    full, lora = read_gguf(tmp_path / "full-lora.gguf"), read_gguf(tmp_path / "lora.gguf")
    for tensor, values in full.items():
        expected = values[list(kept.tokens)] if tensor == "output.weight.lora_b" else values
        assert np.array_equal(lora[tensor], expected), tensor
    with Engine(tmp_path / "trimmed.gguf", adapter=tmp_path / "lora.gguf", context=32, slots=1) as engine:
        assert np.isfinite(engine.logits([1, 2, 3])).all()
