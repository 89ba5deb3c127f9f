"""--vocabulary on the command line: convert and plan, and lists that cannot be applied."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFValueType
from peft import LoraConfig
from thirteen.convert.vocabulary.vocabulary_list import VocabularyList

from ..commands import CommandResult, Commands
from ..convert.peft_adapters import save_random_adapter
from ..convert.vocabulary.kept_lists import closed_list, tables_of
from ..runtime.conftest import write_gguf

pytestmark = pytest.mark.slow

Base = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(base: Base) -> Path:
    return base("llama untied")


@pytest.fixture(scope="module")
def kept(folder: Path) -> VocabularyList:
    return closed_list(tables_of(folder), [261])


@pytest.fixture
def english(kept: VocabularyList, tmp_path: Path) -> Path:
    kept.save(tmp_path / "english.json")
    return tmp_path / "english.json"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_file_is_converted_and_shown_with_its_vocabulary(
    thirteen: Commands, folder: Path, english: Path, out: Path
) -> None:
    command = ("convert", folder, "--vocabulary", english, "--type", "F16", "-o", out / "m.gguf")
    done = thirteen(*command)
    assert done.status == 0 and "262 of 272 tokens" in done.stdout
    assert json.loads(thirteen(*command, "--json").stdout)["vocabulary"] == {"kept": 262, "of": 272}
    shown = json.loads(thirteen("inspect", out / "m.gguf", "--json").stdout)
    assert (shown["provenance"]["vocabulary.kept"], shown["provenance"]["vocabulary.of"]) == ("262", "272")
    assert "tokens" not in str(shown["provenance"].keys())
    answer = thirteen("ask", out / "m.gguf", "Is this the end?", "--max-tokens", 2)
    assert answer.status == 0


def test_a_size_is_planned_and_kept_with_an_adapter(
    thirteen: Commands, folder: Path, english: Path, out: Path, tmp_path: Path
) -> None:
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


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "of another base": (lambda v: v.update(tokenizer_sha256="0" * 64), "is for another tokenizer"),
    "out of range": (lambda v: v["tokens"].append(272), r"tokens[262]: 272 is not one of 272 tokens"),
    "with a duplicate": (lambda v: v["tokens"].insert(0, 0), "tokens[1]: 0 occurs twice"),
    "without a byte": (lambda v: v["tokens"].remove(65), "lacks 1 single bytes"),
    "without a control token": (lambda v: v["tokens"].remove(257), "'<|im_start|>'"),
    "not closed": (
        lambda v: v["tokens"].remove(259),
        "not closed under merges: token 260 ('the') is built from 259",
    ),
    "without ids": (lambda v: v.update(tokens=[]), "tokens: [] is not a list of ids"),
}


@pytest.mark.parametrize(("command", "kind"), [*(("convert", kind) for kind in BAD), ("plan", "not closed")])
def test_a_list_that_cannot_be_applied_is_refused(
    command: str, kind: str, thirteen: Commands, folder: Path, kept: VocabularyList, out: Path, tmp_path: Path
) -> None:
    damage, message = BAD[kind]
    value = {"of": kept.of, "tokenizer_sha256": kept.tokenizer_sha256, "tokens": list(kept.tokens)}
    damage(value)
    (tmp_path / "list.json").write_text(json.dumps(value))
    (tmp_path / "texts.jsonl").write_text('{"text": "the theme"}\n')
    options = {
        "convert": ("-o", out / "m.gguf"),
        "plan": ("--size", "12bpw", "--calibration", tmp_path / "texts.jsonl"),
    }[command]
    result = thirteen(command, folder, "--vocabulary", tmp_path / "list.json", *options)
    check_refused(result, message)
    assert str(tmp_path / "list.json") in result.stderr
    assert list(out.iterdir()) == []


def test_other_bad_input_is_refused(
    thirteen: Commands, folder: Path, english: Path, out: Path, tmp_path: Path
) -> None:
    target = ("-o", out / "m.gguf")
    check_refused(
        thirteen("convert", folder, "--vocabulary", "none.json", *target), "none.json: No such file"
    )
    write_gguf(tmp_path / "spm.gguf", {"tokenizer.ggml.model": ("llama", GGUFValueType.STRING, None)}, {})
    check_refused(
        thirteen("convert", tmp_path / "spm.gguf", "--vocabulary", english, *target),
        "spm.gguf: the tokenizer is 'llama'; only byte-level BPE can be trimmed",
    )
    assert list(out.iterdir()) == []


def check_refused(result: CommandResult, message: str) -> None:
    assert (result.status, result.stdout) == (2, "")
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ") and message in line
