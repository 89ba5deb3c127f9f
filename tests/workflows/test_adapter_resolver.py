"""Adapters in the cache: an exported one is used again only if all that it depends on is the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig
from thirteen.convert.adapter.short_code import ShortCode, basis_fingerprint
from thirteen.convert.pipeline import convert
from thirteen.errors import AdapterError
from thirteen.files.gguf.header import read_header
from thirteen.workflows import adapter_resolver
from thirteen.workflows.adapter_resolver import basis_for_code, resolve_basis, resolve_runtime_lora

from ..convert.peft_adapters import save_random_adapter


@pytest.fixture
def adapter(base: Callable[[str], Path], tmp_path: Path) -> Path:
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"])
    return save_random_adapter(base("llama"), config, tmp_path / "lora")


@pytest.fixture
def model(base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    convert(base("llama"), tmp_path / "model.gguf", quantization="F32", threads=1)
    return tmp_path / "model.gguf"


def factor(path: Path) -> np.ndarray:
    tensor = read_header(path).tensors["blk.0.attn_q.weight.lora_b"]
    return np.fromfile(path, "<f4", tensor.nbytes // 4, offset=tensor.offset)


def test_another_alpha_is_another_file(adapter: Path, model: Path) -> None:
    """The name was a hash of the weights alone: an adapter a hundred times as strong was never exported."""
    weak = resolve_runtime_lora(str(adapter), model)
    assert resolve_runtime_lora(str(adapter), model) == weak
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 400}))
    strong = resolve_runtime_lora(str(adapter), model)
    assert strong != weak
    assert np.allclose(factor(strong), 100 * factor(weak))


def test_a_cached_basis_has_the_name_by_which_its_base_is_asked_for(model: Path, tmp_path: Path) -> None:
    """The file keeps the first name; a code of the other name could not be decoded."""
    copy = Path(shutil.copy(model, tmp_path / "other.gguf"))
    first, second = resolve_basis(str(model)), resolve_basis(str(copy))
    assert (first.origin.name, second.origin.name) == ("model", "other")
    (cached,) = (tmp_path / "cache").glob("basis-*.safetensors")
    code = ShortCode("other", basis_fingerprint(first.origin.id), np.zeros(13, np.float32))
    with pytest.raises(AdapterError, match=r"the code is for other, but the basis of .* is for model"):
        basis_for_code(code, cached)
    assert basis_for_code(code).origin.name == "other"


def test_another_exporter_or_version_is_another_file(
    adapter: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {resolve_runtime_lora(str(adapter), model)}
    monkeypatch.setattr(adapter_resolver, "EXPORT_VERSION", 0)
    files.add(resolve_runtime_lora(str(adapter), model))
    monkeypatch.setattr(adapter_resolver, "version", lambda _: "0.0.0")
    files.add(resolve_runtime_lora(str(adapter), model))
    assert len(files) == 3
