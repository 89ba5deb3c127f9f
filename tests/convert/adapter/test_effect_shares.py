"""Adapters of which only the matrices with the most effect are exported."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig
from thirteen.convert.adapter.adapter import load_adapter
from thirteen.convert.adapter.effect_shares import keep_effect, predict_effects
from thirteen.convert.adapter.export import export_adapter
from thirteen.convert.pipeline import convert
from thirteen.convert.quantize.importance import read_importance
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import AdapterError
from thirteen.files.gguf.header import read_header
from thirteen.workflows.importance_cache import measure_importance

from ..peft_adapters import save_random_adapter
from ..vocabulary.kept_lists import closed_list, tables_of

TEXT = '{"text": "Three pens cost $3.60, so one pen costs $1.20. Two pens cost $2.40."}\n'


@pytest.fixture(scope="module")
def llama(base: Callable[[str], Path]) -> Path:
    return base("llama")


@pytest.fixture(scope="module")
def importance(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("importance")
    (folder / "texts.jsonl").write_text(TEXT)
    measure_importance(llama, None, folder / "importance.gguf", calibration=folder / "texts.jsonl", threads=1)
    return folder / "importance.gguf"


@pytest.fixture(scope="module")
def adapter(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LoraConfig(r=3, target_modules=["q_proj", "down_proj", "up_proj"])
    return save_random_adapter(llama, config, tmp_path_factory.mktemp("adapter") / "lora")


def effects_of(adapter: Path, llama: Path, importance: Path, *, covariance: bool = True) -> dict[str, float]:
    checkpoint, statistics = open_checkpoint(llama), read_importance(importance)
    if not covariance:
        statistics = replace(statistics, covariance_blocks={})
    deltas = load_adapter(adapter).for_base(checkpoint).deltas
    return predict_effects(deltas, {name: checkpoint.specs[name].target for name in deltas}, statistics)


@pytest.mark.parametrize("covariance", [True, False])
def test_effects_are_those_of_the_whole_matrices(adapter, llama, importance, covariance):
    statistics, checkpoint = read_importance(importance), open_checkpoint(llama)
    effects = effects_of(adapter, llama, importance, covariance=covariance)
    assert len(effects) == 6
    for name, delta in load_adapter(adapter).deltas.items():
        target, change = checkpoint.specs[name].target, delta.b @ delta.a  # (out, in)
        columns = change.shape[1]
        if covariance:
            inputs = statistics.covariance(target).multiply(np.eye(columns, dtype=np.float32))
        else:
            inputs = np.diag(statistics.mean_squares[target] / statistics.mean_squares[target].sum())
        expected = statistics.sensitivity[target] * np.trace(change @ inputs @ change.T)
        assert effects[name] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_the_fewest_tensors_are_kept(adapter, llama, importance, share, tmp_path):
    effects = effects_of(adapter, llama, importance)
    kept = keep_effect(adapter, llama, importance, share)
    total, chosen = sum(effects.values()), sorted(effects, key=effects.get, reverse=True)
    assert kept.names == {*chosen[: len(kept.names)]} and kept.of == 6
    assert kept.share == pytest.approx(sum(effects[name] for name in kept.names) / total)
    assert kept.share >= share - 1e-9
    without_last = sum(effects[name] for name in chosen[: len(kept.names) - 1])
    assert len(kept.names) == 1 or without_last < share * total
    export_adapter(adapter, llama, tmp_path / "lora.gguf", tensors=kept.names)
    checkpoint = open_checkpoint(llama)
    found = {
        name.removesuffix(".lora_a").removesuffix(".lora_b")
        for name in read_header(tmp_path / "lora.gguf").tensors
    }
    assert found == {checkpoint.specs[name].target for name in kept.names}


def test_the_importance_of_all_tokens_serves_for_a_trimmed_base(adapter, llama, importance, tmp_path):
    """Refused, though convert accepts the two."""
    kept = closed_list(tables_of(llama), [261])
    convert(llama, tmp_path / "trimmed.gguf", quantization="F32", vocabulary=kept)
    expected = keep_effect(adapter, llama, importance, 0.9)
    assert keep_effect(adapter, tmp_path / "trimmed.gguf", importance, 0.9) == expected


def test_an_importance_without_sensitivities_is_refused(adapter, llama, importance):
    statistics = replace(read_importance(importance), sensitivity={})
    with pytest.raises(AdapterError, match=r"importance.gguf: has no sensitivity of 'blk.0.attn_q.weight'"):
        predict_effects({"q": None}, {"q": "blk.0.attn_q.weight"}, statistics)
