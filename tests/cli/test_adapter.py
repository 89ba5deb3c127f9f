"""A code in the place of an adapter, everywhere; and what is said of those that cannot be one."""

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
from thirteen.convert.merged_view import SourceIds
from thirteen.convert.pipeline import convert

from ..commands import CommandResult, Commands
from ..convert.peft_adapters import read_gguf, train

NUMBERS = np.random.default_rng(3).normal(0, 2.0, 13).astype(np.float32)
SHORT = ("--max-tokens", "8", "--threads", "1", "--context", "64", "--json")


@pytest.fixture(scope="module")
def place(base, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A model, its basis in the cache under the name `tiny`, an adapter over it, and the command line."""
    folder = tmp_path_factory.mktemp("place")
    model = folder / "model.gguf"
    convert(base("llama"), model, quantization="F32", ids=SourceIds("tiny"))
    previous = os.environ.get("THIRTEEN_CACHE")
    os.environ["THIRTEEN_CACHE"] = str(folder / "cache")
    (folder / "cache").mkdir()
    try:
        with Commands() as thirteen:
            made = said(
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


def said(done: CommandResult):
    assert done.status == 0, done
    return json.loads(done.stdout)


def refused(done: CommandResult) -> str:
    assert done.status == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done
    return done.stderr


def test_a_code_goes_there_and_back(place):
    told = said(
        place.thirteen("adapter", "encode", place.adapter, "--basis", place.basis_file, "--float32", "--json")
    )
    assert told == {"code": place.code, "characters": len(place.code), "rounded_by": 0.0}
    out = place.folder / "decoded"
    read = said(place.thirteen("adapter", "decode", place.code, "-o", out, "--json"))
    assert np.array(read["numbers"], np.float32).tobytes() == NUMBERS.tobytes()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (out / name).read_bytes() == (place.adapter / name).read_bytes()


def test_rounding_to_bfloat16_is_told(place):
    done = place.thirteen("adapter", "encode", place.adapter, "--basis", place.basis_file, "--json")
    told = said(done)
    assert 0 < told["rounded_by"] < 2.0**-8 and "bfloat16 rounds" in done.stderr
    assert told["characters"] <= 80


def test_the_qr_code_reads_as_the_code(place):
    done = place.thirteen("adapter", "encode", place.adapter, "--basis", place.basis_file, "--qr")
    code, drawing = done.stdout.split("\n", 1)
    from thirteen.cli.qr_code import qr_text

    assert drawing.rstrip("\n") == qr_text(code)
    assert {len(line) for line in drawing.splitlines() if line} == {len(drawing.splitlines()[0])}
    target = place.folder / "code.svg"
    said(
        place.thirteen(
            "adapter", "encode", place.adapter, "--basis", place.basis_file, "--json", "--qr-file", target
        )
    )
    assert target.read_text().startswith("<?xml")
    assert "must end in .svg or .png" in refused(
        place.thirteen("adapter", "encode", place.adapter, "--qr-file", place.folder / "code.jpg")
    )


def test_convert_merges_a_code_as_it_does_the_folder(place):
    merged = []
    for name, adapter in (("folder", place.adapter), ("code", place.code)):
        output = place.folder / f"{name}.gguf"
        said(
            place.thirteen(
                "convert",
                place.base,
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
    plain = read_gguf(place.model)
    assert not np.array_equal(plain["blk.0.attn_q.weight"], merged[0]["blk.0.attn_q.weight"])


def test_ask_answers_with_a_code_as_with_the_exported_file(place):
    exported = place.folder / "exported.gguf"
    said(place.thirteen("adapter", "export", place.code, "--base", place.model, "-o", exported, "--json"))
    with_file, with_code, with_folder, plain = (
        said(place.thirteen("ask", place.model, "Why?", *SHORT, *adapter))["text"]
        for adapter in (("--adapter", exported), ("--adapter", place.code), ("--adapter", place.adapter), ())
    )
    assert with_file == with_code == with_folder != plain


def test_show_tells_of_a_code(place):
    told = said(place.thirteen("adapter", "show", place.code, "--json"))
    assert (told["kind"], told["trained_numbers"], told["trained_on"]) == ("tinylora", 13, "tiny")


def other(place, **changes) -> str:
    told = {
        "name": "tiny",
        "fingerprint": basis_fingerprint(place.basis.origin.id),
        "numbers": NUMBERS,
    } | changes
    return encode_short_code(ShortCode(**told))


def test_a_code_for_another_base_is_refused_by_name(place):
    code = other(place, name="smollm2-360m")
    for line in (
        ("convert", "smollm2-135m@x", "--adapter", code, "-o", place.folder / "no.gguf"),
        ("ask", "embedded-model.gguf", "Why?", "--adapter", code),
    ):
        assert "smollm2-360m" in refused(place.thirteen(*line)) or line[0] == "convert"
    model = place.folder / "provenance.gguf"
    convert(place.base, model, quantization="F32", ids=SourceIds("smollm2-135m"))
    for line in (
        ("ask", model, "Why?", "--adapter", code),
        ("serve", model, "--adapter", f"math={code}", "--port", "0"),
        ("convert", model, "--adapter", code, "-o", place.folder / "no.gguf"),
        ("adapter", "export", code, "--base", model, "-o", place.folder / "no.gguf"),
    ):
        said_of_it = refused(place.thirteen(*line))
        assert "the code is for smollm2-360m" in said_of_it and "smollm2-135m" in said_of_it
    assert not (place.folder / "no.gguf").exists()


def test_a_code_with_another_basis_is_refused(place):
    code = other(place, fingerprint=basis_fingerprint("00" * 32))
    line = refused(place.thirteen("adapter", "decode", code, "--basis", place.basis_file))
    assert basis_fingerprint("00" * 32) in line and basis_fingerprint(place.basis.origin.id) in line


def test_a_damaged_code_is_refused_wherever_it_is_given(place):
    wrong = place.code[:-1] + ("q" if place.code[-1] != "q" else "p")
    for line in (
        ("convert", place.base, "--adapter", wrong, "-o", place.folder / "no.gguf"),
        ("ask", place.model, "Why?", "--adapter", wrong),
        ("serve", place.model, "--adapter", f"math={wrong}", "--port", "0"),
        ("adapter", "show", wrong),
        ("adapter", "decode", wrong),
    ):
        assert "checksum does not match" in refused(place.thirteen(*line))


def test_an_adapter_that_no_code_can_hold_is_refused(place):
    config = LoraConfig(r=2, target_modules=["q_proj"])
    folder = train(place.base, config, place.folder / "lora")
    assert "LORA with 0 vectors" in refused(
        place.thirteen("adapter", "encode", folder, "--basis", place.basis_file)
    )
    assert "use --basis" in refused(place.thirteen("adapter", "encode", folder))


def test_a_basis_is_the_same_file_every_time_and_no_other_file_is_one(place):
    again = place.folder / "again"
    said(place.thirteen("adapter", "basis", place.base, "--name", "tiny", "-o", again, "--json"))
    assert again.read_bytes() == place.basis_file.read_bytes()
    assert "not a basis" in refused(
        place.thirteen(
            "adapter", "decode", place.code, "--basis", place.adapter / "adapter_model.safetensors"
        )
    )
    assert "a code, which takes up to 20" in refused(
        place.thirteen("adapter", "basis", place.base, "--name", "A B", "-o", place.folder / "no")
    )
    assert "is a folder" in refused(
        place.thirteen("adapter", "basis", place.base, "--name", "a", "-o", place.folder)
    )


def test_a_full_disk_leaves_no_basis(place):
    target = place.folder / "full"
    done = place.thirteen("adapter", "basis", place.base, "--name", "tiny", "-o", target, file_limit=4096)
    assert "cannot write" in refused(done)
    assert not [path for path in place.folder.iterdir() if "full" in path.name]


def test_the_shipped_adapters_base_is_known_by_all_its_names():
    from thirteen.models.fetch import embedded
    from thirteen.workflows.adapter_resolver import catalogue_name

    names = ("embedded", "smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", str(embedded()))
    assert {catalogue_name(name) for name in names} == {"smollm2-135m"}
    assert catalogue_name("some/one") is None and catalogue_name(str(Path(__file__))) is None
