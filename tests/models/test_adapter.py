"""Bases and adapters by all their names; an exported adapter is used again only if nothing has changed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFValueType
from peft import LoraConfig
from thirteen import Engine
from thirteen.convert.adapter.basis import Basis
from thirteen.convert.adapter.short_code import ShortCode, basis_fingerprint
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import FileError
from thirteen.files.gguf.header import read_header
from thirteen.models import adapter as adapter_module
from thirteen.models.adapter import basis_of_code, find_adapter, find_basis
from thirteen.models.base import base_name, resolve_base
from thirteen.models.catalogue import catalogue
from thirteen.models.embedded import embedded

from ..convert.peft_adapters import save_random_adapter
from ..json_changes import change_json, put
from ..runtime.conftest import write_gguf


@pytest.fixture
def adapter(base, tmp_path):
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"])
    return save_random_adapter(base("llama"), config, tmp_path / "lora")


@pytest.fixture
def model(base, tmp_path, monkeypatch):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    convert(Recipe(base("llama"), tmp_path / "model.gguf", Uniform("F32")))
    return tmp_path / "model.gguf"


def lora(source: object, model: Path) -> Path:
    return find_adapter(str(source), str(model)).lora(model)


def basis_of(source: object) -> Basis:
    return find_basis(resolve_base(str(source), original=True))


def factor(path: Path) -> np.ndarray:
    tensor = read_header(path).tensors["blk.0.attn_q.weight.lora_b"]
    return np.fromfile(path, "<f4", tensor.nbytes // 4, offset=tensor.offset)


def test_another_alpha_or_exporter_is_another_file(adapter, model, monkeypatch):
    """The name was a hash of the weights alone: an adapter a hundred times as strong was never exported."""
    weak = lora(adapter, model)
    assert lora(adapter, model) == weak
    change_json(adapter / "adapter_config.json", put("lora_alpha", value=400))
    strong = lora(adapter, model)
    assert strong != weak
    assert np.allclose(factor(strong), 100 * factor(weak))
    monkeypatch.setattr(adapter_module, "EXPORT_VERSION", 0)
    assert lora(adapter, model) not in (weak, strong)


def test_an_engine_takes_adapters_as_a_command_does(adapter, model):
    """`adapter="my-adapter"` was "not a regular file"."""
    with Engine(model, adapter=str(adapter), adapters={"other": adapter}, threads=1) as engine:
        assert engine.adapters == ("base", "other", "adapter")


def test_a_cached_basis_has_the_name_by_which_its_base_is_asked_for(model, tmp_path):
    """The file keeps the first name; a code of the other name could not be decoded."""
    copy = Path(shutil.copy(model, tmp_path / "other.gguf"))
    first, second = basis_of(model), basis_of(copy)
    assert (first.origin.name, second.origin.name) == ("model", "other")
    assert len(list((tmp_path / "cache").glob("basis-*.safetensors"))) == 1
    code = ShortCode("other", basis_fingerprint(first.origin.id), np.zeros(13, np.float32))
    assert basis_of_code(code).origin.name == "other"


@pytest.mark.parametrize("name", ["a" * 300, "/a" * 3000], ids=["name", "path"])
def test_a_base_whose_name_is_no_path_is_unknown(tmp_path, name):
    """The name of a base in a file's metadata is anyone's; one of 300 characters ended in an OSError."""
    path = write_gguf(tmp_path / "a.gguf", {"thirteen.base.id": (name, GGUFValueType.STRING, None)}, {})
    assert base_name(str(path)) is None
    assert catalogue().base_name(name) is None


@pytest.mark.parametrize("name", ["smollm2-135m", "embedded", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_a_folder_with_a_name_of_the_catalogue_is_the_folder(base, tmp_path, monkeypatch, name):
    """fetch() took the folder, and what was made of it the catalogue's base."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert base_name(name) == "smollm2-135m"
    shutil.copytree(base("llama"), name)
    assert base_name(name) is None
    assert basis_of(name).origin.base_sha256 == open_checkpoint(base("llama")).sha256()
    assert catalogue().base_name(name) == "smollm2-135m", "an adapter's config does not mean that folder"


@pytest.mark.parametrize(
    ("file", "name"),
    [("Llama-3.2-1B.GGUF", "llama-3.2-1b"), ("_TinyLlama_v1 (chat).gguf", "tinyllama-v1--chat-")],
)
def test_a_base_has_its_whole_name_up_to_twenty_characters(model, file, name):
    """Folders of Llamas of 1 and 3 billion parameters were both "llama-3"."""
    assert basis_of(shutil.copy(model, model.with_name(file))).origin.name == name


def test_a_shipped_code_names_the_file_that_it_is_for(model):
    with pytest.raises(FileError, match=r"it was made for: qwen2\.5-coder-.*\.gguf, SHA-256 1d961463"):
        lora("qwen2.5-coder-0.5b-svamp", model)


def test_all_names_of_the_default_base_are_known():
    names = ("embedded", "smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", str(embedded()))
    assert {base_name(name) for name in names} == {"smollm2-135m"}
    assert base_name("some/one") is None and base_name(str(Path(__file__))) is None
