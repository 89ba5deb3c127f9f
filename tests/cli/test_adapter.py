"""Short codes in place of adapters in all commands, and the errors of invalid ones."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from peft import LoraConfig
from thirteen.convert.adapter.basis import read_basis
from thirteen.convert.adapter.short_code import ShortCode, basis_fingerprint, encode_short_code
from thirteen.convert.adapter.tinylora_folder import write_tinylora_folder
from thirteen.convert.pipeline import convert
from thirteen.convert.provenance import SourceIds

from ..commands import CommandResult, Commands
from ..convert.peft_adapters import read_gguf, save_random_adapter

NUMBERS = np.random.default_rng(3).normal(0, 2.0, 13).astype(np.float32)
SHORT = ("--max-tokens", "8", "--threads", "1", "--context", "64", "--json")


@pytest.fixture(scope="module")
def env(base, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A model, its cached basis named `tiny`, an adapter over it, and the command line."""
    folder = tmp_path_factory.mktemp("env")
    model = folder / "model.gguf"
    convert(base("llama"), model, quantization="F32", ids=SourceIds("tiny"))
    previous = os.environ.get("THIRTEEN_CACHE")
    os.environ["THIRTEEN_CACHE"] = str(folder / "cache")
    (folder / "cache").mkdir()
    try:
        with Commands() as thirteen:
            made = json_of(
                thirteen(
                    "adapter", "basis", base("llama"), "--name", "tiny", "-o", folder / "basis", "--json"
                )
            )
            basis = read_basis(folder / "basis")
            (folder / "basis").rename(folder / "cache" / f"basis-{made['mark']}.safetensors")
            write_tinylora_folder(basis, NUMBERS, folder / "adapter", "tiny")
            yield SimpleNamespace(
                folder=folder,
                model=model,
                basis=basis,
                basis_file=folder / "cache" / f"basis-{made['mark']}.safetensors",
                adapter=folder / "adapter",
                base=base("llama"),
                thirteen=thirteen,
                code=encode_short_code(
                    ShortCode("tiny", basis_fingerprint(basis.origin.id), NUMBERS, exact=True)
                ),
            )
    finally:
        os.environ.pop("THIRTEEN_CACHE")
        if previous is not None:
            os.environ["THIRTEEN_CACHE"] = previous


def json_of(done: CommandResult):
    assert done.status == 0, done
    return json.loads(done.stdout)


def refused(done: CommandResult) -> str:
    assert done.status == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done
    return done.stderr


def test_a_code_decodes_to_its_adapter(env):
    result = json_of(
        env.thirteen("adapter", "encode", env.adapter, "--basis", env.basis_file, "--float32", "--json")
    )
    assert result == {"code": env.code, "characters": len(env.code), "rounded_by": 0.0}
    out = env.folder / "decoded"
    read = json_of(env.thirteen("adapter", "decode", env.code, "-o", out, "--json"))
    assert np.array(read["numbers"], np.float32).tobytes() == NUMBERS.tobytes()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (out / name).read_bytes() == (env.adapter / name).read_bytes()


def test_decode_writes_no_adapter_into_another(env):
    """It replaced the files of an adapter that was there."""
    for out, reason in ((env.adapter, "the folder is not empty"), (env.model, "is a file, not a folder")):
        before = {path: path.read_bytes() for path in env.folder.rglob("*") if path.is_file()}
        assert reason in refused(env.thirteen("adapter", "decode", env.code, "-o", out))
        assert {path: path.read_bytes() for path in env.folder.rglob("*") if path.is_file()} == before
    (env.folder / "empty").mkdir()
    json_of(env.thirteen("adapter", "decode", env.code, "-o", env.folder / "empty", "--json"))


def test_rounding_to_bfloat16_is_a_warning(env):
    done = env.thirteen("adapter", "encode", env.adapter, "--basis", env.basis_file, "--json")
    result = json_of(done)
    assert 0 < result["rounded_by"] < 2.0**-8 and "bfloat16 rounds" in done.stderr
    assert result["characters"] <= 80


def test_convert_merges_a_code_like_its_folder(env):
    merged = []
    for name, adapter in (("folder", env.adapter), ("code", env.code)):
        output = env.folder / f"{name}.gguf"
        json_of(
            env.thirteen(
                "convert",
                env.base,
                "--adapter",
                adapter,
                "--type",
                "F32",
                "-o",
                output,
                "--no-fidelity",
                "--json",
            )
        )
        merged.append(read_gguf(output))
    assert all(np.array_equal(merged[0][name], merged[1][name]) for name in merged[0])
    plain = read_gguf(env.model)
    assert not np.array_equal(plain["blk.0.attn_q.weight"], merged[0]["blk.0.attn_q.weight"])


def test_a_code_longer_than_a_file_name_is_accepted(env):
    """Its name in the provenance was looked for as a file: File name too long."""
    many = env.folder / "many"
    made = json_of(
        env.thirteen("adapter", "basis", env.base, "--name", "tiny", "--numbers", 200, "-o", many, "--json")
    )
    many.rename(env.folder / "cache" / f"basis-{made['mark']}.safetensors")
    numbers = np.linspace(-2, 2, 200, dtype=np.float32)
    code = encode_short_code(ShortCode("tiny", made["mark"], numbers, exact=True))
    assert len(code) > 1000
    shown = json_of(env.thirteen("adapter", "show", code, "--json"))
    assert (shown["adapter"], shown["trained_numbers"]) == (code, 200)
    output = ("--type", "F32", "-o", env.folder / "long.gguf", "--no-fidelity", "--json")
    report = json_of(env.thirteen("convert", env.base, "--adapter", code, *output))
    assert report["adapter"]["id"] == code


def test_ask_applies_a_code_like_its_exported_file(env):
    exported = env.folder / "exported.gguf"
    json_of(env.thirteen("adapter", "export", env.code, "--base", env.model, "-o", exported, "--json"))
    with_file, with_code, with_folder, plain = (
        json_of(env.thirteen("ask", env.model, "Why?", *SHORT, *adapter))["text"]
        for adapter in (("--adapter", exported), ("--adapter", env.code), ("--adapter", env.adapter), ())
    )
    assert with_file == with_code == with_folder != plain


@pytest.mark.parametrize("output", ["", "missing/out.gguf", "model.gguf"])
def test_an_export_checks_its_output_before_it_measures(env, output):
    """The importance of a large base was measured first, for minutes."""
    out = env.folder / output
    flags = ("--base", env.model, "--keep", 0.9, "--importance", env.folder / "unread", "-o", out)
    assert refused(env.thirteen("adapter", "export", env.adapter, *flags)).startswith(f"error: {out}: ")


def test_accuracy_applies_a_code_like_its_exported_file(env):
    """It took only a GGUF LoRA; a code was a file that does not exist."""
    exported, data = env.folder / "measured.gguf", env.folder / "questions.jsonl"
    json_of(env.thirteen("adapter", "export", env.code, "--base", env.model, "-o", exported, "--json"))
    data.write_text('{"question": "Why?", "answer": "2"}\n')
    words = ("--data", data, "--max-tokens", 8, "--threads", 1, "--records", env.folder / "records", "--json")
    texts = []
    for adapter in (("--adapter", exported), ("--adapter", env.code), ("--adapter", env.adapter), ()):
        adapted = json_of(env.thirteen("bench", "accuracy", env.model, *adapter, *words))["adapted"]
        assert (adapted["adapter"] is None) == (adapter == ())
        record = json.loads(Path(adapted["records"]).read_text().splitlines()[1])
        texts.append(record["samples"][0]["text"])
    assert texts[0] == texts[1] == texts[2] != texts[3]


def test_show_accepts_a_code(env):
    result = json_of(env.thirteen("adapter", "show", env.code, "--json"))
    assert (result["kind"], result["trained_numbers"], result["trained_on"]) == ("tinylora", 13, "tiny")


def other(env, **changes) -> str:
    fields = {
        "name": "tiny",
        "fingerprint": basis_fingerprint(env.basis.origin.id),
        "numbers": NUMBERS,
    } | changes
    return encode_short_code(ShortCode(**fields))


def test_a_code_for_another_base_is_refused(env):
    code = other(env, name="smollm2-360m")
    refused(env.thirteen("convert", "smollm2-135m@x", "--adapter", code, "-o", env.folder / "no.gguf"))
    model = env.folder / "provenance.gguf"
    convert(env.base, model, quantization="F32", ids=SourceIds("smollm2-135m"))
    for line in (
        ("ask", model, "Why?", "--adapter", code),
        ("serve", model, "--adapter", f"math={code}", "--port", "0"),
        ("convert", model, "--adapter", code, "-o", env.folder / "no.gguf"),
        ("adapter", "export", code, "--base", model, "-o", env.folder / "no.gguf"),
    ):
        error = refused(env.thirteen(*line))
        assert "the code is for smollm2-360m" in error and "smollm2-135m" in error
    assert not (env.folder / "no.gguf").exists()


def test_a_code_with_another_basis_is_refused(env):
    code = other(env, fingerprint=basis_fingerprint("00" * 32))
    line = refused(env.thirteen("adapter", "decode", code, "--basis", env.basis_file))
    assert basis_fingerprint("00" * 32) in line and basis_fingerprint(env.basis.origin.id) in line


def test_a_damaged_code_is_refused_by_all_commands(env):
    wrong = env.code[:-1] + ("q" if env.code[-1] != "q" else "p")
    for line in (
        ("convert", env.base, "--adapter", wrong, "-o", env.folder / "no.gguf"),
        ("ask", env.model, "Why?", "--adapter", wrong),
        ("serve", env.model, "--adapter", f"math={wrong}", "--port", "0"),
        ("adapter", "show", wrong),
        ("adapter", "decode", wrong),
    ):
        assert "checksum does not match" in refused(env.thirteen(*line))


def test_an_adapter_that_cannot_be_encoded_is_refused(env):
    config = LoraConfig(r=2, target_modules=["q_proj"])
    folder = save_random_adapter(env.base, config, env.folder / "lora")
    assert "LORA with 0 vectors" in refused(
        env.thirteen("adapter", "encode", folder, "--basis", env.basis_file)
    )
    assert "use --basis" in refused(env.thirteen("adapter", "encode", folder))


def test_a_basis_is_reproducible_and_other_files_are_refused(env):
    again = env.folder / "again"
    json_of(env.thirteen("adapter", "basis", env.base, "--name", "tiny", "-o", again, "--json"))
    assert again.read_bytes() == env.basis_file.read_bytes()
    assert "not a basis" in refused(
        env.thirteen("adapter", "decode", env.code, "--basis", env.adapter / "adapter_model.safetensors")
    )
    assert "a code, which takes up to 20" in refused(
        env.thirteen("adapter", "basis", env.base, "--name", "A B", "-o", env.folder / "no")
    )
    assert "is a folder" in refused(
        env.thirteen("adapter", "basis", env.base, "--name", "a", "-o", env.folder)
    )


def test_a_full_disk_leaves_no_basis(env):
    target = env.folder / "full"
    done = env.thirteen("adapter", "basis", env.base, "--name", "tiny", "-o", target, file_limit=4096)
    assert "cannot write" in refused(done)
    assert not [path for path in env.folder.iterdir() if "full" in path.name]


def test_all_names_of_the_default_base_resolve():
    from thirteen.models.embedded import embedded
    from thirteen.workflows.adapter_resolver import catalogue_name

    names = ("embedded", "smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", str(embedded()))
    assert {catalogue_name(name) for name in names} == {"smollm2-135m"}
    assert catalogue_name("some/one") is None and catalogue_name(str(Path(__file__))) is None
