"""Files whose scales are tuned: nearer to their base on text that was held out, or as they were."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import LoraConfig
from thirteen.convert.pipeline import convert
from thirteen.errors import RequestError
from thirteen.files.gguf.header import read_header
from thirteen.files.hashing import file_sha256
from thirteen.runtime.llama.model import Model
from thirteen.workflows import refine
from thirteen.workflows.refine import refine_file

from ..convert.peft_adapters import save_random_adapter


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    lines = [{"text": f"{n} pens cost ${n * 3}, so one pen costs $3. " * 40} for n in range(2, 12)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_refined_file_is_nearer_to_its_base(
    base: Callable[[str], Path], texts: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    size = convert(base("llama"), path, quantization="Q4_0", refine=True).file_bytes
    before = read_header(path)
    report = refine_file(path, base("llama"), 0.1, calibration=texts, threads=1)
    assert report.steps > 0
    assert report.divergence_after < report.divergence_before
    after = read_header(path)
    assert report.sha256 == file_sha256(path)
    assert path.stat().st_size == size
    assert after.tensors == before.tensors
    assert after.metadata["thirteen.refine.steps"] == report.steps
    with Model(path) as model:  # llama.cpp accepts it
        assert model.vocabulary_size


def test_without_a_better_version_the_file_stays(
    base: Callable[[str], Path], texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine, "_STEP_SIZE", 10.0)  # nothing but harm
    path = tmp_path / "model.gguf"
    convert(base("qwen2"), path, quantization="Q8_0", refine=True)
    before = path.read_bytes()
    report = refine_file(path, base("qwen2"), 0.03, calibration=texts, threads=1)
    assert (report.steps, report.divergence_after) == (0, report.divergence_before)
    assert path.read_bytes() == before


def test_the_base_has_the_adapter_merged(base: Callable[[str], Path], texts: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    lora = save_random_adapter(base("llama"), config, tmp_path / "lora")
    convert(base("llama"), path, quantization="Q8_0", adapter=lora, refine=True)
    with_adapter = refine_file(path, base("llama"), 0.001, adapter=lora, calibration=texts, threads=1)
    without = refine_file(path, base("llama"), 0.001, calibration=texts, threads=1)
    assert with_adapter.divergence_before < without.divergence_before / 2


@pytest.mark.parametrize("text", ["Two pens.", "a" * 2000], ids=["short", "the same chunk again"])
def test_too_little_text_is_an_error(base: Callable[[str], Path], tmp_path: Path, text: str) -> None:
    path, texts = tmp_path / "model.gguf", tmp_path / "short.jsonl"
    convert(base("llama"), path, quantization="Q8_0", refine=True)
    before = path.read_bytes()
    texts.write_text(json.dumps({"text": text}) + "\n")
    with pytest.raises(RequestError, match=r"short.jsonl: --refine needs at least 512 tokens of text$"):
        refine_file(path, base("llama"), 0.001, calibration=texts)
    assert path.read_bytes() == before
