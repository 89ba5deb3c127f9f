"""Conversion with the types of another file, tensor by tensor."""

from collections.abc import Callable
from pathlib import Path

import pytest
from thirteen.convert.pipeline import convert
from thirteen.convert.tensors import TensorPlan
from thirteen.convert.write import write_gguf
from thirteen.errors import ModelFileError, OutputError
from thirteen.files.gguf.header import read_header

from ..runtime.conftest import write_gguf as write_tiny
from .peft_adapters import save_random_adapter
from .test_merge import lora

Base = Callable[[str], Path]


def tensors(path: Path) -> dict[str, bytes]:
    """Bytes of a file's tensors."""
    raw = path.read_bytes()
    return {t.name: raw[t.offset : t.offset + t.nbytes] for t in read_header(path).tensors.values()}


def mixed(one: Path, other: Path, path: Path) -> Path:
    """A file with every other tensor from another file."""
    headers = [read_header(file) for file in (one, other)]
    chosen = [headers[i % 2].tensors[name] for i, name in enumerate(headers[0].tensors)]
    plans = [TensorPlan(t.name, t.name, t.shape, t.type, t.nbytes) for t in chosen]
    data = [tensors(file) for file in (one, other)]
    fields = {key: field for key, field in headers[0].fields.items() if key != "general.architecture"}
    blocks = (data[i % 2][t.name] for i, t in enumerate(chosen))
    write_gguf(path, headers[0].metadata["general.architecture"], fields, plans, blocks)
    return path


@pytest.mark.parametrize("name", ["llama", "llama long", "qwen2"])
@pytest.mark.parametrize("type_", ["Q4_K", "F16"])
def test_base_with_types_of_adapted_file_equals_base_converted_to_that_type(
    name: str, type_: str, base: Base, tmp_path: Path
) -> None:
    plain, adapted, alike = (tmp_path / f"{part}.gguf" for part in ("plain", "adapted", "alike"))
    convert(base(name), plain, quantization=type_)
    adapter = save_random_adapter(base(name), lora(2, 4), tmp_path / "adapter")
    convert(base(name), adapted, quantization=type_, adapter=adapter)
    report = convert(base(name), alike, quantization=adapted)
    assert alike.read_bytes() == plain.read_bytes() != adapted.read_bytes()
    assert report.adapter is None


def test_each_tensor_gets_its_own_type(base: Base, tmp_path: Path) -> None:
    plain = [tmp_path / f"{type_}.gguf" for type_ in ("Q8_0", "Q4_0")]
    for path in plain:
        convert(base("llama"), path, quantization=path.stem)
    model = mixed(*plain, tmp_path / "mixed.gguf")
    report = convert(base("llama"), tmp_path / "alike.gguf", quantization=model)
    assert tensors(tmp_path / "alike.gguf") == tensors(model)
    assert set(report.types) == {"Q8_0", "Q4_0", "F32"}
    types = [[t.type for t in read_header(p).tensors.values()] for p in (tmp_path / "alike.gguf", model)]
    assert types[0] == types[1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("llama untied", "only one of the two has tensor 'output.weight'"),
        ("qwen2", "only one of the two has tensor 'blk.0.attn_k.bias'"),
        ("llama wide", "only one of the two has tensor 'blk.1.attn_k.weight'"),
    ],
)
def test_file_with_other_tensors_is_refused(other: str, message: str, base: Base, tmp_path: Path) -> None:
    convert(base(other), tmp_path / "other.gguf", quantization="Q8_0")
    with pytest.raises(ModelFileError, match=r"other\.gguf: a different model: " + message):
        convert(base("llama"), tmp_path / "alike.gguf", quantization=tmp_path / "other.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["other.gguf"]


def test_file_with_another_shape_is_refused(base: Base, tmp_path: Path) -> None:
    """It has as many layers, but fewer heads and tokens."""
    write_tiny(tmp_path / "tiny.gguf", {}, {})
    with pytest.raises(ModelFileError, match=r"has the shape \(\d+, 64\), not \(\d+, 64\)"):
        convert(base("llama"), tmp_path / "alike.gguf", quantization=tmp_path / "tiny.gguf")


def test_file_that_is_not_a_gguf_is_refused(base: Base, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"config\.json: not a GGUF file"):
        convert(base("llama"), tmp_path / "alike.gguf", quantization=base("llama") / "config.json")


def test_output_must_not_be_the_file_whose_types_are_used(base: Base, tmp_path: Path) -> None:
    convert(base("llama"), tmp_path / "q8.gguf", quantization="Q8_0")
    with pytest.raises(OutputError, match="is an input of this command"):
        convert(base("llama"), tmp_path / "q8.gguf", quantization=tmp_path / "q8.gguf")
