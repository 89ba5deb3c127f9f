"""Adapters in all forms, in all commands: folders, GGUF LoRAs and short codes."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from thirteen.convert.adapter.basis import write_tinylora_folder
from thirteen.convert.adapter.short_code import (
    ShortCode,
    basis_fingerprint,
    encode_short_code,
    round_to_bfloat16,
)
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.models.adapter import find_basis
from thirteen.models.base import resolve_base

from ..commands import CommandResult
from ..convert.peft_adapters import read_gguf

NUMBERS = round_to_bfloat16(np.random.default_rng(3).normal(0, 2.0, 13).astype(np.float32))
SHORT = ("--max-tokens", "8", "--threads", "1", "--context", "64", "--json")


@pytest.fixture(scope="module")
def env(base, thirteen, tmp_path_factory):
    """A base in F32, an adapter over its basis and its code, an exported LoRA, and the command line."""
    folder = tmp_path_factory.mktemp("env")
    found = SimpleNamespace(folder=folder, thirteen=thirteen)
    found.model, found.adapter, found.lora = (folder / name for name in ("tiny.gguf", "adapter", "lora.gguf"))
    convert(Recipe(base("llama"), found.model, Uniform("F32")))
    basis = find_basis(resolve_base(str(found.model)))
    write_tinylora_folder(basis, NUMBERS, found.adapter, "tiny")
    found.fingerprint = basis_fingerprint(basis.origin.id)
    found.code = encode_short_code(ShortCode("tiny", found.fingerprint, NUMBERS))
    assert export(found, found.code, "--output", found.lora).output
    return found


def export(env, adapter, *words) -> CommandResult:
    result: CommandResult = env.thirteen("adapter", adapter, "--base", env.model, *words, "--json")
    return result


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_adapter_becomes_a_code_and_a_code_its_adapter(env, tmp_path):
    basis = find_basis(resolve_base(str(env.model)))
    write_tinylora_folder(basis, NUMBERS * np.float32(1.001), tmp_path / "unrounded", "tiny")
    done = export(env, tmp_path / "unrounded", "--code")
    code = done.json["code"]
    assert len(code) <= 80 and "bfloat16 rounds the numbers by up to 0." in done.stderr
    assert export(env, code, "--output", tmp_path / "rounded").output
    again = export(env, tmp_path / "rounded", "--code")
    assert again.json == {"code": code} and "rounds" not in again.stderr
    assert export(env, env.code, "--output", tmp_path / "decoded").output
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "decoded" / name).read_bytes() == (env.adapter / name).read_bytes()


def test_an_export_writes_no_adapter_into_another(env):
    """It replaced the files of an adapter that was there."""
    (file := env.folder / "file").write_text("mine")
    before = files(env.folder)
    for out, reason in ((env.adapter, "the folder is not empty"), (file, "is a file, not a folder")):
        assert reason in export(env, env.code, "--output", out).error
    assert files(env.folder) == before


def test_convert_merges_a_code_like_its_folder(env, tmp_path):
    merged = []
    for adapter in (env.adapter, env.code):
        output = ("--type", "F32", "-o", tmp_path / "merged.gguf", "--no-fidelity", "--json", "--force")
        report = env.thirteen("convert", env.model, "--adapter", adapter, *output).json
        merged.append(read_gguf(tmp_path / "merged.gguf"))
    assert report["adapter"]["id"] == env.code
    assert all(np.array_equal(merged[0][name], merged[1][name]) for name in merged[0])
    assert not np.array_equal(read_gguf(env.model)["blk.0.attn_q.weight"], merged[0]["blk.0.attn_q.weight"])


def test_a_code_longer_than_a_file_name_is_accepted(env, tmp_path):
    """Its name in the provenance was looked for as a file: File name too long."""
    mark = basis_fingerprint(find_basis(resolve_base(str(env.model)), numbers=200).origin.id)
    code = encode_short_code(ShortCode("tiny", mark, np.linspace(-2, 2, 200, dtype=np.float32)))
    output = ("--type", "F32", "-o", tmp_path / "long.gguf", "--no-fidelity", "--json")
    report = env.thirteen("convert", env.model, "--adapter", code, *output).json
    assert len(code) > 255 and report["adapter"]["id"] == code


def test_ask_and_accuracy_take_an_adapter_in_all_forms(env, tmp_path):
    (data := tmp_path / "questions.jsonl").write_text('{"question": "Why?", "answer": "2"}\n')
    words = ("--data", data, "--max-tokens", 8, "--threads", 1, "--json")
    asked, measured = [], []
    for adapter in (("--adapter", env.lora), ("--adapter", env.code), ("--adapter", env.adapter), ()):
        asked.append(env.thirteen("ask", env.model, "Why?", *SHORT, *adapter).json["text"])
        adapted = env.thirteen("bench", "accuracy", env.model, *adapter, *words).json["adapted"]
        record = json.loads(Path(adapted["records"]).read_text().splitlines()[1])
        measured.append(record["samples"][0]["text"])
    for texts in (asked, measured):
        assert texts[0] == texts[1] == texts[2] != texts[3]


def test_a_code_for_another_base_or_basis_is_refused(env, tmp_path):
    convert(Recipe(env.model, tmp_path / "known.gguf", Uniform("F32"), ids=("smollm2-135m", "")))
    code = encode_short_code(ShortCode("smollm2-360m", env.fingerprint, NUMBERS))
    for line in (
        ("ask", tmp_path / "known.gguf", "Why?", "--adapter", code),
        ("convert", tmp_path / "known.gguf", "--adapter", code, "-o", tmp_path / "no.gguf"),
    ):
        error = env.thirteen(*line).error
        assert "the code is for smollm2-360m" in error and "smollm2-135m" in error
    other = basis_fingerprint("00" * 32)
    wrong = encode_short_code(ShortCode("tiny", other, NUMBERS))
    line = export(env, wrong, "-o", tmp_path / "no.gguf").error
    assert other in line and env.fingerprint in line


def test_an_adapter_that_cannot_be_encoded_is_refused(env, my_lora):
    assert "a short code is for a TinyLoRA; this is LORA" in export(env, my_lora, "--code").error
    assert "no base 'tiny'" in env.thirteen("adapter", env.adapter, "--code").error
