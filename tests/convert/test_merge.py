"""A merge by `convert` equals PEFT's `merge_and_unload`, tensor by tensor, up to rounding in float32."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import IA3Config, LoHaConfig, LoraConfig, PeftConfig, TinyLoraConfig, TrainableTokensConfig
from thirteen.convert import tensors
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.files.gguf.header import read_header
from thirteen.files.progress import Run

from .peft_adapters import Arrays, base_tensors, merged_tensors, peft_merged, read_gguf, save_random_adapter

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PATTERNS = {
    "rank_pattern": {"q_proj": 3, r"layers\.1\.mlp\.up_proj": 5, "model.layers.0.mlp.up_proj": 1},
    "alpha_pattern": {"k_proj": 2, r".*\.0\.mlp\.(up|down)_proj": 24},
}


def lora(r: int = 4, alpha: float = 6, targets: Any = ALL, **options: Any) -> LoraConfig:
    return LoraConfig(r=r, lora_alpha=alpha, target_modules=targets, **options)


def tiny(u: int, r: int, tying: float, targets: Any = ALL, **options: Any) -> TinyLoraConfig:
    return TinyLoraConfig(
        u=u, r=r, weight_tying=tying, target_modules=targets, init_weights="uniform", **options
    )


STREAMED: dict[str, tuple[str, PeftConfig]] = {
    "lora, initialised at random": ("qwen2", lora(init_lora_weights=False)),
    "lora on all but k_proj": ("llama", lora(targets="all-linear", exclude_modules=["k_proj"])),
    "patterns with rslora": ("qwen2", lora(use_rslora=True, **PATTERNS)),
    "dora with rslora and patterns": ("qwen2", lora(use_dora=True, use_rslora=True, **PATTERNS)),
    "lora on the untied lm_head": ("llama untied", lora(targets=["lm_head", "q_proj"])),
    "lora on the untied embedding": ("qwen2", lora(targets=["embed_tokens", "q_proj"])),
    "dora on the untied lm_head": ("qwen2", lora(targets=["lm_head"], use_dora=True)),
    "lora on bf16 in shards": ("llama bf16 in shards", lora()),
    "tinylora of rank 1, u 3, redrawn": ("llama", tiny(3, 1, 1.0, save_projection=False, projection_seed=7)),
    "tinylora in uneven groups, redrawn": ("llama", tiny(5, 2, 0.3, save_projection=False)),
    "tinylora on the untied lm_head": (
        "llama untied",
        tiny(4, 2, 0.0, ["lm_head", "v_proj"], save_projection=False),
    ),
}
BY_PEFT: dict[str, tuple[str, PeftConfig]] = {
    "loha": ("llama", LoHaConfig(r=3, alpha=4, target_modules=ALL)),
    "ia3": (
        "qwen2",
        IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    ),
    "pissa": ("llama", lora(init_lora_weights="pissa")),
    "dora on the untied embedding": ("qwen2", lora(targets=["q_proj", "embed_tokens"], use_dora=True)),
    "lora with a new norm": ("llama", lora(modules_to_save=["norm"])),
    "lora with trained tokens": ("qwen2", lora(trainable_token_indices=[3, 270])),
    "trained tokens of a tied base": ("llama", lora(targets=["q_proj"], trainable_token_indices=[5, 261])),
    "tokens alone": ("qwen2", TrainableTokensConfig(token_indices=[3, 270])),
    "lora with a bias": ("qwen2", lora(bias="all")),
}


def check_merged(actual: Arrays, expected: Arrays, base: Arrays, exact: bool = False) -> None:
    """Check for a relative error of 1e-6; the deltas must be large enough for an error to show."""
    changed = [name for name in actual if not np.array_equal(expected[name], base[name])]
    assert changed
    for name in actual:
        if exact or name not in changed:
            np.testing.assert_array_equal(actual[name], expected[name], name)
        else:
            error, delta = (one[name].astype(np.float64) - expected[name] for one in (actual, base))
            assert np.linalg.norm(delta) > 0.003 * np.linalg.norm(base[name]), name
            assert np.linalg.norm(error) < 1e-6 * np.linalg.norm(expected[name].astype(np.float64)), name
            assert np.linalg.norm(error) < 2e-5 * np.linalg.norm(delta), name


@pytest.mark.parametrize("kind", STREAMED | BY_PEFT)
def test_a_merge_equals_pefts_and_one_without_factors_is_made_by_peft_with_a_warning(
    kind, base, tmp_path, monkeypatch
):
    monkeypatch.setattr(tensors, "BLOCK_WEIGHTS", 1000)  # the heads of permuted rows stay whole
    name, config = (STREAMED | BY_PEFT)[kind]
    step, by_peft = 1.0 if isinstance(config, TinyLoraConfig) else 0.2, kind in BY_PEFT
    folder = save_random_adapter(base(name), config, tmp_path / "adapter", step=step)
    report = convert(Recipe(base(name), tmp_path / "model.gguf", Uniform("F32"), adapter=folder))
    written, expected = merged_tensors(tmp_path / "model.gguf"), peft_merged(base(name), folder)
    check_merged(written, expected, base_tensors(base(name)), exact=by_peft)
    assert report.adapter is not None
    assert report.adapter.merged_by == ("peft" if by_peft else "thirteen")
    assert ["merged by PEFT" in warning for warning in report.warnings] == [True] * by_peft


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("llama long", lora(use_dora=True)),
        ("llama untied", lora(targets=["embed_tokens", "lm_head", "k_proj"])),
        ("qwen2", LoHaConfig(r=3, target_modules=ALL)),
    ],
)
def test_gguf_base_gives_the_same_file_as_its_folder(name, config, base, tmp_path):
    folder = save_random_adapter(base(name), config, tmp_path / "adapter")
    convert(Recipe(base(name), tmp_path / "base.gguf", Uniform("F32")))
    reports = [
        convert(Recipe(source, tmp_path / f"{i}.gguf", Uniform("F32"), adapter=folder, ids=("b", "")))
        for i, source in enumerate((base(name), tmp_path / "base.gguf"))
    ]
    first, second = (read_gguf(Path(report.output)) for report in reports)
    assert first.keys() == second.keys()
    for tensor, array in first.items():
        np.testing.assert_array_equal(array, second[tensor], tensor)
    assert ("rope_freqs.weight" in first) == (name == "llama long")


@pytest.mark.parametrize("type_", ["F32", "Q4_K"])
@pytest.mark.parametrize("config", [lora(1), lora(5, use_dora=True)], ids=["lora", "dora"])
def test_file_is_bit_identical_for_any_number_of_threads(type_, config, base, tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "BLOCK_WEIGHTS", 4096)  # many blocks, like a real model
    folder = save_random_adapter(base("llama wide"), config, tmp_path / "adapter")
    hashes = {
        convert(
            Recipe(base("llama wide"), tmp_path / "model.gguf", Uniform(type_), adapter=folder), Run(threads)
        ).sha256
        for threads in (1, 3)
    }
    assert len(hashes) == 1
    assert hashlib.sha256((tmp_path / "model.gguf").read_bytes()).hexdigest() in hashes


def test_report_and_file_record_the_provenance(base, tmp_path):
    folder = save_random_adapter(base("llama"), tiny(13, 2, 1.0), tmp_path / "adapter")
    seen: list[tuple[int, int]] = []
    ids, run = ("some/base", "some/adapter"), Run(stage=lambda name: lambda *done: seen.append(done))
    report = convert(Recipe(base("llama"), tmp_path / "model.gguf", Uniform("Q8_0"), folder, ids=ids), run)
    written = read_header(tmp_path / "model.gguf")
    provenance = {key.removeprefix("thirteen."): value for key, value in written.metadata.items()}
    assert report.adapter is not None
    assert (report.base.id, report.adapter.id) == ("some/base", "some/adapter")
    assert (provenance["base.id"], provenance["adapter.id"]) == ("some/base", "some/adapter")
    sha256 = hashlib.sha256((base("llama") / "model.safetensors").read_bytes()).hexdigest()
    assert provenance["base.sha256"] == sha256
    assert [provenance[f"adapter.{key}"] for key in ("kind", "trained", "rank")] == ["tinylora", "13", "2"]
    assert {name: share.tensors for name, share in report.layout.types.items()} == {"F32": 5, "Q8_0": 15}
    assert seen[-1] == (written.weights, written.weights)
    assert seen == sorted(seen)
