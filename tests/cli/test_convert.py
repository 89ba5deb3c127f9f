"""`thirteen convert`: sizes, dry runs, importance files, vocabularies and checkpoints on the command line."""

import pytest
from peft import LoraConfig

from ..convert.peft_adapters import save_random_adapter
from ..json_lines import write_rows

TEXTS = [{"text": "Three pens cost $3.60, so one pen costs $1.20. " * 12}]


@pytest.fixture(scope="module")
def made(thirteen, base, tmp_path_factory):
    """A tiny model, and its importance file, which a dry run measured."""
    folder = tmp_path_factory.mktemp("planned")
    texts = write_rows(folder / "texts.jsonl", TEXTS)
    importance = folder / "importance.gguf"
    options = ("--dry-run", "--importance", importance, "--texts", texts, "--threads", "1")
    assert thirteen("convert", base("llama"), *options).status == 0
    return base("llama"), importance


def test_the_file_has_the_requested_size_and_the_planned_types(thirteen, made, tmp_path):
    model, importance = made
    options = ("--size", "9bpw", "--importance", importance, "--target", "x86", "--prefer", "quality")
    before = importance.read_bytes()
    planned = thirteen("convert", model, *options, "--dry-run", "--json").json
    report = thirteen("convert", model, *options, "--output", tmp_path / "a.gguf", "--json").json
    budget = report["prediction"]["budget_bytes"]
    assert report["file_bytes"] == report["prediction"]["file_bytes"] == (tmp_path / "a.gguf").stat().st_size
    assert 0.95 * budget <= report["file_bytes"] <= budget
    assert planned["types"] == report["types"]
    options = (*options, "--calibration", "thorough", "-o", tmp_path / "b.gguf")
    thorough = thirteen("convert", model, *options, "--json").json
    assert thorough["types"] == report["types"] and thorough["sha256"] != report["sha256"]
    assert thorough["file_bytes"] <= budget
    assert importance.read_bytes() == before


def test_the_importance_of_another_model_is_refused(thirteen, made, base, tmp_path):
    words = ("--type", "Q4_0", "--importance", made[1], "--output", tmp_path / "a.gguf")
    assert "another model" in thirteen("convert", base("qwen2"), *words).error
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_smaller_vocabulary_with_an_adapter(thirteen, base, tmp_path):
    folder = base("llama untied")
    config = LoraConfig(target_modules=["q_proj", "lm_head"])
    adapter = save_random_adapter(folder, config, tmp_path / "adapter")
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": "the theme of the other thesis in the inn"}] * 4)
    # The types of one target, whatever the processor here.
    options = ("--vocabulary", "264", "--adapter", adapter, "--size", "12bpw", "--target", "x86")
    options += ("--texts", texts, "--json")
    planned = thirteen("convert", folder, "--dry-run", *options).json
    tensors = {tensor["target"]: tensor for tensor in planned["tensors"]}
    assert tensors["token_embd.weight"]["shape"] == tensors["output.weight"]["shape"] == [264, 64]
    report = thirteen("convert", folder, *options, "-o", tmp_path / "m.gguf").json
    types = [tensor["type"] for tensor in tensors.values()]
    assert report["types"] == {name: types.count(name) for name in dict.fromkeys(types)}
    assert report["vocabulary"] == {"kept": 264, "of": 272}
    fidelity = report["fidelity"]
    assert fidelity is not None, report["warnings"]
    assert fidelity["vocabulary"]["kept"] == 264
    assert 0.8 < fidelity["effect"]["slope"]["estimate"] < 1.2
    shown = thirteen("models", tmp_path / "m.gguf", "--json").json
    assert (shown["provenance"]["vocabulary.kept"], shown["provenance"]["vocabulary.of"]) == ("264", "272")
