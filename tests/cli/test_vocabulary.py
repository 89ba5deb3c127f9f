"""--vocabulary on the command line: convert and plan, and lists that cannot be applied."""

import json
from dataclasses import replace

import pytest
from peft import LoraConfig

from ..convert.peft_adapters import save_random_adapter
from ..convert.vocabulary.kept_lists import closed_list, tables_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(base):
    return base("llama untied")


@pytest.fixture(scope="module")
def kept(folder):
    return closed_list(tables_of(folder), [261])


@pytest.fixture
def english(kept, tmp_path):
    kept.save(tmp_path / "english.json")
    return tmp_path / "english.json"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_file_is_converted_and_shown_with_its_vocabulary(thirteen, folder, english, out):
    command = ("convert", folder, "--vocabulary", english, "--type", "F16", "-o", out / "m.gguf")
    done = thirteen(*command)
    assert done.status == 0 and "262 of 272 tokens" in done.stdout
    assert json.loads(thirteen(*command, "--json", "--force").stdout)["vocabulary"] == {
        "kept": 262,
        "of": 272,
    }
    shown = json.loads(thirteen("inspect", out / "m.gguf", "--json").stdout)
    assert (shown["provenance"]["vocabulary.kept"], shown["provenance"]["vocabulary.of"]) == ("262", "272")
    assert "tokens" not in str(shown["provenance"].keys())
    answer = thirteen("ask", out / "m.gguf", "Is this the end?", "--max-tokens", 2)
    assert answer.status == 0


def test_a_size_is_planned_and_kept_with_an_adapter(thirteen, folder, english, out, tmp_path):
    adapter = save_random_adapter(
        folder, LoraConfig(target_modules=["q_proj", "lm_head"]), tmp_path / "adapter"
    )
    (tmp_path / "texts.jsonl").write_text('{"text": "the theme of the other thesis in the inn"}\n' * 4)
    options = ("--vocabulary", english, "--adapter", adapter, "--calibration", tmp_path / "texts.jsonl")
    planned = thirteen("plan", folder, "--size", "12bpw", *options, "--json")
    assert planned.status == 0, planned.stderr
    tensors = {tensor["target"]: tensor for tensor in json.loads(planned.stdout)["tensors"]}
    assert tensors["token_embd.weight"]["shape"] == tensors["output.weight"]["shape"] == [262, 64]
    done = thirteen("convert", folder, "--size", "12bpw", *options, "-o", out / "m.gguf", "--json")
    assert done.status == 0, done.stderr
    report = json.loads(done.stdout)
    types = [tensor["type"] for tensor in tensors.values()]
    assert report["types"] == {name: types.count(name) for name in dict.fromkeys(types)}
    fidelity = report["fidelity"]
    assert fidelity is not None, report["warnings"]
    assert fidelity["vocabulary"]["kept"] == 262 and fidelity["merged"]["effect"] is not None


@pytest.mark.parametrize("command", ["convert", "plan"])
def test_a_list_that_cannot_be_applied_is_refused(command, thirteen, folder, kept, out, tmp_path):
    """Other such lists are in tests/convert/vocabulary."""
    damaged = replace(kept, tokens=tuple(token for token in kept.tokens if token != 259))
    damaged.save(path := tmp_path / "list.json")
    (tmp_path / "texts.jsonl").write_text('{"text": "the theme"}\n')
    options = {
        "convert": ("-o", out / "m.gguf"),
        "plan": ("--size", "12bpw", "--calibration", tmp_path / "texts.jsonl"),
    }[command]
    result = thirteen(command, folder, "--vocabulary", path, *options)
    assert (result.status, result.stdout) == (2, "")
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"error: {path}: ")
    assert "not closed under merges: token 260 ('the') is built from 259" in line
    assert list(out.iterdir()) == []
