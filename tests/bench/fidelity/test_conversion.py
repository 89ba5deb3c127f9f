"""The fidelity that `convert` measures: it compares the right models and leaves no temporary files."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from thirteen.bench.fidelity.conversion import POSITIONS
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Like, Recipe, Uniform

from ...json_lines import write_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(base, my_lora):
    return base("llama"), my_lora


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THIRTEEN_CACHE", str(folder))
        yield folder


@pytest.fixture
def converted(thirteen, cache, tmp_path):
    """Convert to `model.gguf` and return the report; its warnings must also be on standard error."""

    def converted(*words: object) -> dict[str, Any]:
        done = thirteen("convert", *words, "--threads", 1, "-o", tmp_path / "model.gguf", "--json", "--force")
        report: dict[str, Any] = done.json
        errors = " ".join(done.stderr.split())
        assert all(f"warning: {warning}" in errors for warning in report["warnings"])
        # The choice of settings is meant to stay.
        assert all(path.name.startswith("compute-") for path in cache.iterdir())
        return report

    return converted


def test_fidelity_with_an_adapter_compares_the_right_models(converted, sources, tmp_path):
    base, adapter = sources
    other = tmp_path / "other.gguf"
    report = converted(base, "--adapter", adapter, "--type", "Q4_0")
    files = fidelity = report["fidelity"]
    assert fidelity["positions"] == POSITIONS
    assert 0 < fidelity["divergence"]["kl_mean"]["estimate"] < fidelity["divergence"]["kl_p99"]
    assert 0 < fidelity["effect"]["cosine"]["estimate"] < 1
    assert fidelity["effect"]["slope"]["low"] > 0
    assert (files["shipped"]["path"], files["shipped"]["sha256"]) == (report["output"], report["sha256"])
    assert files["reference"]["sha256"] == convert(Recipe(base, other, Uniform("F16"), adapter)).sha256
    assert files["base"]["sha256"] == convert(Recipe(base, other, Uniform("F16"))).sha256
    assert files["shipped_base"]["sha256"] == convert(Recipe(base, other, Uniform("Q4_0"))).sha256
    assert files["base"]["path"] == "base F16.gguf"  # without its temporary folder


def test_base_is_quantized_to_the_same_types_with_the_same_importance(converted, thirteen, sources, tmp_path):
    base, adapter = sources
    importance, other = tmp_path / "importance.gguf", tmp_path / "other.gguf"
    text = "Three pens cost $3.60, so one pen costs $1.20. " * 12
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": text}])
    options = ("--dry-run", "--texts", texts, "--threads", "1", "--importance", importance)
    assert thirteen("convert", base, *options).status == 0
    size = ("--size", "6.5bpw", "--prefer", "quality", "--target", "x86")
    report = converted(base, "--adapter", adapter, "--importance", importance, *size)
    assert len(report["types"]) > 2
    shipped, measured = Path(report["output"]), report["fidelity"]["shipped_base"]["sha256"]
    assert measured == convert(Recipe(base, other, Like(shipped), importance=importance)).sha256
    assert measured != convert(Recipe(base, other, Like(shipped))).sha256


def test_nothing_is_measured_without_an_adapter_or_with_no_fidelity(converted, sources):
    base, adapter = sources
    assert converted(base, "--type", "Q8_0")["fidelity"] is None
    assert converted(base, "--adapter", adapter, "--type", "Q8_0", "--no-fidelity")["fidelity"] is None


def test_loss_without_an_adapter_is_measured_on_request(converted, sources, tmp_path):
    """The base is a quantized GGUF here; the reference is its dequantized weights."""
    source = tmp_path / "source.gguf"
    convert(Recipe(sources[0], source, Uniform("Q8_0")))
    coarse, fine = (
        converted(source, "--type", type_, "--fidelity")["fidelity"] for type_ in ("Q4_0", "Q8_0")
    )
    kl = [fidelity["divergence"]["kl_mean"] for fidelity in (coarse, fine)]
    assert kl[0]["low"] > kl[1]["high"] > 0
    assert coarse["effect"] is coarse["base"] is None
    reference = convert(Recipe(source, tmp_path / "reference.gguf", Uniform("F16"))).sha256
    assert coarse["reference"]["sha256"] == fine["reference"]["sha256"] == reference


def test_model_beyond_the_range_of_f16_is_converted_with_a_warning(converted, sources, tmp_path):
    """70,000 exceeds F16, but not BF16."""
    base, adapter = sources
    large = shutil.copytree(base, tmp_path / "large")
    arrays = {name: array.copy() for name, array in load_file(base / "model.safetensors").items()}
    arrays["model.layers.0.self_attn.k_proj.weight"][0, 0] = 7e4
    save_file(arrays, large / "model.safetensors")
    report = converted(large, "--adapter", adapter, "--type", "BF16")
    assert report["fidelity"] is None
    (warning,) = report["warnings"]
    assert warning.startswith("fidelity was not measured: tensor") and "70000" in warning
