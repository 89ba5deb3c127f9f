"""Bases that training loads, and those that it refuses."""

import shutil
from dataclasses import replace

import pytest
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.source.model_config import from_config, to_config
from thirteen.errors import FileError
from thirteen.learn.base_model import load_base_model, open_tokenizer
from thirteen.learn.examples import encode_example, held_out_losses
from thirteen.models.rows import TrainingRow
from thirteen.runtime.engine.engine import Engine
from transformers import AutoTokenizer

from .. import checkpoints
from ..checkpoints import FAMILIES, gemma3, llama, qwen2, save_model
from ..json_changes import change_json, put
from ..refusals import refused

ROWS = [
    *(TrainingRow(f"What is {n} and {n}?", f"It is {n}+{n} = {2 * n}.", str(2 * n)) for n in range(2, 6)),
    TrainingRow("  12 or\n\t1234½ 漢字?", "or 't is 1,000.50 \U0001f600"),
]


@pytest.mark.parametrize(("config", "rules"), [(llama, "llama"), (llama, "smollm"), (qwen2, "qwen")])
def test_a_gguf_base_encodes_as_the_folder_that_it_was_made_from(tmp_path, config, rules, monkeypatch):
    """transformers, reading a GGUF, drops SmolLM2's and Llama 3's rules for words."""
    monkeypatch.setattr(checkpoints, "MERGES", (("1", "2"), ("3", "4"), ("12", "3"), ("'", "t"), ("o", "r")))
    folder = save_model(tmp_path / "base", config(), rules=rules)
    if rules == "llama":  # a word of the vocabulary is a token, even if no merges lead to it
        change_json(folder / "tokenizer.json", lambda tokenizer: tokenizer["model"]["merges"].pop())
    convert(Recipe(folder, tmp_path / "base.gguf", Uniform("F32")))
    source = AutoTokenizer.from_pretrained(folder)
    with open_tokenizer(folder) as tokenizer, open_tokenizer(tmp_path / "base.gguf") as twin:
        examples = [encode_example(tokenizer, row) for row in ROWS]
        assert examples == [encode_example(twin, row) for row in ROWS]
    for example, row in zip(examples, ROWS, strict=True):
        chat = [{"role": "user", "content": row.question}, {"role": "assistant", "content": row.target}]
        text = source.apply_chat_template(chat, tokenize=False).rstrip("\n")
        assert example.ids == source(text, add_special_tokens=False).input_ids


def test_pickled_weights_and_an_adapter_beside_the_base_are_refused(base, tmp_path):
    """Both were loaded, and were no part of the hash that a checkpoint is checked by."""
    folder = shutil.copytree(base("llama"), tmp_path / "base")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with refused(folder, "no file named model.safetensors", FileError):
        load_base_model(folder)
    (folder / "adapter_config.json").write_text("{}")
    with refused(folder, "transformers would load this adapter with the base", FileError):
        load_base_model(folder)


@pytest.mark.parametrize("family", [*FAMILIES, "llama long"])
def test_the_gguf_of_each_family_computes_what_its_folder_does(base, tmp_path, family, loaded):
    """What transformers itself made of one had the windows and the RoPE of another Gemma 3."""
    convert(Recipe(base(family), tmp_path / "base.gguf", Uniform("F32")))
    checkpoint = open_checkpoint(tmp_path / "base.gguf")
    again = from_config(to_config(checkpoint.architecture, checkpoint.rope_tensors, {}, "a.gguf"), "again")
    assert replace(again, divisors={}) == checkpoint.architecture
    examples = [encode_example(loaded[1], row) for row in ROWS]
    source, same = map(load_base_model, (base(family), tmp_path / "base.gguf"))
    assert held_out_losses(same, examples) == pytest.approx(held_out_losses(source, examples), rel=1e-5)


def test_a_gguf_that_transformers_has_no_class_for_is_refused(base):
    """It dropped the biases without a word, and the gradients were those of another model."""
    some = replace(open_checkpoint(base("llama")).architecture, biased=("attn_q",))
    with pytest.raises(FileError, match=r"some\.gguf: transformers' LlamaForCausalLM has no such model"):
        to_config(some, {}, {}, "some.gguf")


def test_a_base_with_sentencepiece_is_asked_as_the_runtime_asks(tmp_path):
    """Training was for byte-level vocabularies with a chat template alone."""
    from ..convert.source.pieces import save_json, trained_model

    sizes = {"vocab_size": 2000, "max_position_embeddings": 2048}
    pieces = save_model(tmp_path / "gemma", gemma3(**sizes, bos_token_id=1, eos_token_id=2))
    config = (pieces / "config.json").read_bytes()
    save_json(pieces, trained_model(tmp_path, False), "gemma")
    (pieces / "config.json").write_bytes(config)
    file, examples = tmp_path / "gemma.gguf", []
    convert(Recipe(pieces, file, Uniform("F32")))
    with Engine(file, slots=1) as engine, open_tokenizer(file) as tokenizer, open_tokenizer(pieces) as twin:
        for row in ROWS:
            found = encode_example(tokenizer, row, calculator=True)
            assert found == encode_example(twin, row, calculator=True)
            assert found.ids[: found.prompt_tokens] == [*engine.request(row.question).tokens]
            assert tokenizer.text(found.ids[found.prompt_tokens :]) == f" {row.target}"
            assert tokenizer.worked_tokens > 100 and not tokenizer.thinks
            examples.append(found)
        assert examples[0].inserted and not examples[-1].inserted
        model = load_base_model(file)
        losses = held_out_losses(model, examples)
        assert losses == pytest.approx(held_out_losses(load_base_model(pieces), examples), rel=1e-4)


def test_a_template_that_names_thoughts_need_not_think(templated):
    """Granite 3.3's names them for a switch of its own, and its answers would begin with an empty thought."""
    named, thought = "{{ 'Think between <think></think>.' if deep }}", "{{ '<think>\n' if enable_thinking }}"
    for added, thinks in ((named, False), (thought, True)):
        with open_tokenizer(templated(added)) as tokenizer:
            assert tokenizer.thinks == thinks and tokenizer.encoder.thinking


def test_an_answer_ends_as_the_template_ends_a_turn(base, tmp_path):
    """The end of a text stood there, which Gemma 3 and Phi-4 do not write behind a turn."""
    folder = shutil.copytree(base("llama"), tmp_path / "base")
    change_json(folder / "tokenizer_config.json", put("eos_token", value="<|endoftext|>"))
    change_json(folder / "config.json", put("eos_token_id", value=256))
    with open_tokenizer(folder) as tokenizer:
        assert tokenizer.vocabulary.eos == 256 and tokenizer.answer("a")[1:] == [258]


def test_a_chat_template_that_rejects_a_question_is_refused(templated):
    """Jinja's TemplateError ended the command."""
    base = templated("{{ raise_exception('A system message\\nis required') }}")
    message = f"^{base}: the chat template failed: TemplateError: A system message is required"
    with open_tokenizer(base) as tokenizer, pytest.raises(FileError, match=message):
        encode_example(tokenizer, ROWS[0])
