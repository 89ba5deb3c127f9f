"""Every setting and tensor of an adapter is applied or refused by name, never ignored.

Damages that `thirteen adapter` refuses too are in tests/cli/test_bad_input.py.
"""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import LoHaConfig, LoraConfig, TinyLoraConfig
from safetensors.numpy import load_file, save_file
from thirteen.convert.adapter.adapter import load_adapter
from thirteen.convert.adapter.basis import NUMBERS_MAX
from thirteen.convert.adapter.delta import Delta
from thirteen.convert.convert import convert
from thirteen.convert.merged_model import MergedModel
from thirteen.convert.quantization import Uniform
from thirteen.convert.recipe import Recipe
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import FileError

from ...refusals import refused
from ..peft_adapters import peft_merged, save_random_adapter
from ..vocabulary.kept_lists import closed_list, tables_of

Config = dict[str, Any]
Tensors = dict[str, np.ndarray]
Change = Callable[[Config, Tensors], Any]

TARGETS = ["q_proj", "up_proj"]
GOOD = {
    "lora": LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS),
    "dora": LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, use_dora=True),
    "tiny": TinyLoraConfig(u=5, r=2, weight_tying=0.5, target_modules=TARGETS, init_weights="uniform"),
    "loha": LoHaConfig(r=2, target_modules=TARGETS),
}
Q = "base_model.model.model.layers.0.self_attn.q_proj"
UP = "base_model.model.model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def good(base, tmp_path_factory):
    """Adapters of the tied Llama as PEFT saves them, keyed like GOOD."""
    return cache(
        lambda name: save_random_adapter(
            base("llama"), GOOD[name], tmp_path_factory.mktemp("adapters") / name
        )
    )


def change(folder: Path, target: Path, how: Change) -> Path:
    """A copy of an adapter whose config and tensors `how` changed."""
    shutil.copytree(folder, target)
    config, weights = target / "adapter_config.json", target / "adapter_model.safetensors"
    settings, tensors = json.loads(config.read_text()), load_file(weights)
    how(settings, tensors)
    config.write_text(json.dumps(settings))
    save_file(tensors, weights)
    return target


def config(**values: Any) -> Change:
    return lambda settings, _: settings.update(values)


def drop(*keys: str) -> Change:
    return lambda _, tensors: [tensors.pop(key) for key in keys]


def put(key: str, value: Any) -> Change:
    return lambda _, tensors: tensors.update({key: np.asarray(value, np.float32)})


def scaled(factor: float, part: str) -> Change:
    return lambda _, tensors: tensors.update(
        {key: value * np.float32(factor) for key, value in tensors.items() if part in key}
    )


def spoiled(key: str, value: float) -> Change:
    def spoil(_: Config, tensors: Tensors) -> None:
        tensors[key].flat[3] = value

    return spoil


REFUSED: dict[str, tuple[str, Change, str]] = {
    "an alpha of zero": ("lora", config(lora_alpha=0), "zero"),
    "too many patterns": (
        "lora",
        config(alpha_pattern={f"{n}.*": 4 for n in range(101)}),
        "'100.*' is too complex",
    ),
    "a repeated group": ("lora", config(alpha_pattern={"(?x:(.*) *!)": 4}), "too complex"),
    "many repeats": ("lora", config(rank_pattern={".*" * 9 + "!": 4}), "!' is too complex"),
    "a missing module": (
        "lora",
        drop(f"{UP}.lora_A.weight", f"{UP}.lora_B.weight"),
        "model.layers.1.mlp.up_proj",
    ),
    "a leftover bias": ("lora", put(f"{Q}.base_layer.bias", [1.0]), "bias"),
    "a tensor that occurs twice": ("lora", put(f"{Q}.lora_A", np.ones((4, 64))), "twice"),
    "nothing trained, with magnitudes": ("dora", config(), "zero"),
    "a magnitude of another length": ("dora", put(f"{Q}.lora_magnitude_vector", np.ones(95)), "(95,)"),
    "a missing vector": ("tiny", drop("base_model.tinylora_v.1"), "1 trained vectors for 2"),
    "some projections missing": ("tiny", drop(f"{Q}.tinylora_P"), "tinylora_P"),
    "projections of another shape": ("tiny", put(f"{Q}.tinylora_P", np.ones((5, 3, 3))), "(5, 3, 3)"),
    "LoHa's missing factor": ("loha", drop(f"{Q}.hada_w1_a"), "hada_w1_a"),
    "LoHa's factor that is not a number": ("loha", spoiled(f"{Q}.hada_w1_a", np.nan), "NaN"),
    "LoHa, nothing trained": ("loha", scaled(0, "hada_w2_a"), "changes nothing"),
}


def as_initialized(base: Path) -> Change:
    """DoRA before its first step: no delta, and the norms of the base as magnitudes."""

    def reset(_: Config, tensors: Tensors) -> None:
        checkpoint = open_checkpoint(base)
        for key in tensors:
            if "lora_B" in key:
                tensors[key] = np.zeros_like(tensors[key])
            if "magnitude" in key:
                name = key.removeprefix("base_model.model.").replace("lora_magnitude_vector", "weight")
                tensors[key] = np.linalg.norm(checkpoint.rows(name, 0, len(tensors[key])), axis=1)

    return reset


@pytest.mark.parametrize("case", REFUSED)
def test_an_unsupported_adapter_is_refused_by_name(case, base, good, tmp_path):
    kind, how, named = REFUSED[case]
    if case == "nothing trained, with magnitudes":
        how = as_initialized(base("llama"))
    folder = change(good(kind), tmp_path / "adapter", how)
    with refused("", named, FileError) as error:
        MergedModel(open_checkpoint(base("llama")), folder)
    assert str(error.value).startswith((str(folder), "adapter: "))  # its path or its name


def test_a_complex_pattern_does_not_hang_and_a_usual_one_is_applied(good, tmp_path):
    usual = {r"model\.layers\.(0|1)\.self_attn\.q_proj": 4, "^model.layers.[0-9]+.mlp.up_proj": 4}
    usual |= {f"model.layers.{n}.mlp.down_proj": 8 for n in range(998)}
    adapter = load_adapter(change(good("lora"), tmp_path / "adapter", config(rank_pattern=usual, r=99)))
    assert adapter.rank == 4


def test_a_pattern_with_a_future_warning_prints_nothing(good, tmp_path, recwarn):
    """It was printed with the path of a source file here."""
    pattern = "[[]?q_proj|up_proj"
    load_adapter(change(good("lora"), tmp_path / "adapter", config(rank_pattern={pattern: 4}, r=99)))
    assert not recwarn.list


def unsaved_projections(folder: Path, layers: int, numbers: int, rank: int) -> Path:
    """A TinyLoRA of small files whose projections are redrawn."""
    module = "base_model.model.model.layers.{}.mlp.up_proj"
    tensors = {"base_model.tinylora_v.0": np.ones(numbers, np.float32)}
    for layer in range(layers):
        tensors[f"{module.format(layer)}.tinylora_A"] = np.ones((rank, rank), np.float32)
        tensors[f"{module.format(layer)}.tinylora_B"] = np.ones((rank, rank), np.float32)
    settings = {"peft_type": "TINYLORA", "u": numbers, "r": 64, "weight_tying": 1.0, "projection_seed": 1}
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"target_modules": ["up_proj"]}))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_the_projections_to_redraw_are_bounded(tmp_path, monkeypatch):
    """An adapter of 256 KB took 8 GB. The most numbers and the largest rank of a basis here are allowed."""
    drawn: list[tuple[int, ...]] = []

    def draw(seed: int, std: float, shape: tuple[int, ...]) -> np.ndarray:
        drawn.append(shape)
        return np.broadcast_to(np.float32(1), shape)

    monkeypatch.setattr("thirteen.convert.adapter.tinylora.torch_normal", draw)
    load_adapter(unsaved_projections(tmp_path / "largest", 4, NUMBERS_MAX, 64))
    assert drawn == [(4096, 64, 64)] * 4
    with pytest.raises(FileError, match=r"projections of \(4097, 64, 64\) are more than 16,777,216 numbers"):
        load_adapter(unsaved_projections(tmp_path / "module", 1, 4097, 64))
    with pytest.raises(FileError, match="its projections are more than 67,108,864 numbers"):
        load_adapter(unsaved_projections(tmp_path / "adapter", 5, NUMBERS_MAX, 64))


def test_a_copy_without_dimensions_is_refused_for_a_trimmed_base(base, tmp_path):
    """It ended in numpy's TypeError."""
    trained = save_random_adapter(
        base("llama untied"), LoraConfig(r=2, target_modules=["lm_head"]), tmp_path / "trained"
    )
    folder = change(trained, tmp_path / "adapter", put("base_model.model.lm_head.base_layer.weight", 1.0))
    kept = closed_list(tables_of(base("llama untied")), [261])
    convert(Recipe(base("llama untied"), tmp_path / "trimmed.gguf", Uniform("F32"), vocabulary=kept))
    with pytest.raises(FileError, match=r"its copy of 'lm_head\.weight' differs"):
        load_adapter(folder).for_base(open_checkpoint(tmp_path / "trimmed.gguf"))


def test_an_adapter_beside_the_base_is_refused_where_peft_merges(base, good, tmp_path):
    """transformers loads it too, and instead of a GGUF the base that its config names."""
    both = Path(shutil.copytree(base("llama"), tmp_path / "both"))
    convert(Recipe(both, both / "base.gguf", Uniform("F32")))
    shutil.copytree(good("lora"), both, dirs_exist_ok=True)
    for source in (both, both / "base.gguf"):
        with pytest.raises(FileError, match=r"both/adapter_config\.json: transformers would load this"):
            convert(Recipe(source, tmp_path / "model.gguf", Uniform("F32"), adapter=good("loha")))
        convert(Recipe(source, tmp_path / "model.gguf", Uniform("F32"), adapter=good("lora")))


def test_some_zero_deltas_are_a_warning(base, good, tmp_path):
    folder = change(good("lora"), tmp_path / "adapter", scaled(0, f"{UP}.lora_B"))
    assert MergedModel(open_checkpoint(base("llama")), folder).warnings == ["1 of 4 deltas are zero"]


def test_an_output_delta_on_a_tied_base_is_refused_where_peft_would_merge_it(base, tmp_path):
    """PEFT writes it into the shared tensor, which changes the embedding too."""
    folder = save_random_adapter(
        base("llama"), LoHaConfig(r=2, target_modules=["lm_head"]), tmp_path / "adapter"
    )
    with pytest.raises(FileError, match="of a base that ties the two"):
        convert(Recipe(base("llama"), tmp_path / "model.gguf", Uniform("F32"), adapter=folder))


def test_tokens_that_were_trained_on_a_tied_base_are_merged_as_by_peft(base, tmp_path):
    """They change the embedding and the output alike; adapters.md promised them, and they were refused."""
    settings = LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[5, 261])
    folder = save_random_adapter(base("llama"), settings, tmp_path / "adapter")
    model, expected = MergedModel(open_checkpoint(base("llama")), folder), peft_merged(base("llama"), folder)
    assert model.base.architecture.tied
    for name, spec in model.base.specs.items():
        np.testing.assert_allclose(
            model.rows(name, 0, spec.shape[0]), expected[name], rtol=1e-6, err_msg=name
        )


def test_a_differing_copy_of_a_base_tensor_is_refused(base, tmp_path):
    """PEFT saves the base's output matrix with its delta; it must be that of this base."""
    trained = save_random_adapter(
        base("llama untied"), LoraConfig(r=2, target_modules=["lm_head"]), tmp_path / "trained"
    )
    key = "base_model.model.lm_head.base_layer.weight"
    convert(Recipe(base("llama untied"), tmp_path / "model.gguf", Uniform("F32"), adapter=trained))
    folder = change(trained, tmp_path / "adapter", scaled(1.01, key))
    with pytest.raises(FileError, match="copy of 'lm_head"):
        convert(Recipe(base("llama untied"), tmp_path / "model.gguf", Uniform("F32"), adapter=folder))


def test_a_loaded_adapter_describes_itself(good, base):
    tiny, lora = load_adapter(good("tiny"), "mine"), load_adapter(good("lora"))
    assert (tiny.id, tiny.kind, tiny.rank, tiny.trained_parameters) == ("mine", "tinylora", 2, 10)
    assert (lora.id, lora.kind, lora.rank, lora.trained_on) == ("lora", "lora", 4, str(base("llama")))
    assert lora.trained_parameters == 2 * (4 * 64 + 96 * 4) + 2 * (4 * 64 + 96 * 4)


def test_a_changed_alpha_changes_the_hash(good, tmp_path):
    other = change(good("lora"), tmp_path / "adapter", config(lora_alpha=9))
    assert load_adapter(other).sha256 != load_adapter(good("lora")).sha256


def test_the_norm_is_the_frobenius_norm_of_the_product():
    random = np.random.default_rng(1)
    b, a = random.normal(size=(30, 3)).astype(np.float32), random.normal(size=(3, 20)).astype(np.float32)
    assert Delta(b, a).norm == pytest.approx(np.linalg.norm(b.astype(float) @ a), rel=1e-12)
