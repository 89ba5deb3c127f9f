"""Models with a base's shapes: every tensor of the base, in the requested types."""

import json
from math import prod
from pathlib import Path

import numpy as np
import pytest
from thirteen.bench.harness.workload import Workload
from thirteen.bench.peers.llama_quantize import StockFormat, quantize_stock
from thirteen.bench.speed import latency
from thirteen.bench.synthetic import random_model
from thirteen.bench.synthetic.shapes import _plans, temporary_shape_models, write_shape_model
from thirteen.convert.source.architecture import Llama3Scaling, from_config, rope_factors
from thirteen.errors import DownloadError, ModelFileError, OutputError
from thirteen.files.gguf.header import read_header
from thirteen.models.catalogue import catalogue
from thirteen.runtime.engine.engine import Engine

BASE = "smollm2-135m"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("shape") / "small.gguf"
    write_shape_model(BASE, "Q4_0/Q8_0", path)
    return path


def types(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.type.name for tensor in read_header(path).tensors.values()}


def plan_file(folder: Path, types_: dict[str, str], **changes: str) -> Path:
    """Write the part of the output of thirteen plan --json that is read."""
    path = folder / "plan.json"
    tensors = [{"target": name, "type": type_, "nbytes": 1} for name, type_ in (types_ | changes).items()]
    path.write_text(json.dumps({"tensors": tensors}))
    return path


def test_a_shape_model_has_all_weights_of_the_base_in_the_requested_types(small):
    header = read_header(small)
    assert sum(prod(tensor.shape) for tensor in header.tensors.values()) == catalogue().bases[BASE].parameters
    assert header.metadata["llama.block_count"] == 30
    for name, type_ in types(small).items():
        expected = "F32" if "norm" in name else "Q8_0" if name == "token_embd.weight" else "Q4_0"
        assert type_ == expected, name


@pytest.mark.slow
def test_a_shape_model_runs_and_can_be_measured(small):
    report = latency.run_latency(small, small, workload=Workload(3, 2, threads=1), questions=(), rounds=8)
    assert report.decode.base_median > 0
    with Engine(small, context=8, slots=1, threads=1, batch=8) as engine:
        assert np.isfinite(engine.logits((1, 2, 3))).all()


def test_types_from_a_plan_or_a_gguf(small, tmp_path):
    expected = types(small) | {"blk.3.ffn_up.weight": "Q5_0"}
    write_shape_model(BASE, str(plan_file(tmp_path, expected)), tmp_path / "planned.gguf")
    assert types(tmp_path / "planned.gguf") == expected
    write_shape_model(BASE, str(tmp_path / "planned.gguf"), tmp_path / "like.gguf")
    assert types(tmp_path / "like.gguf") == expected
    assert (tmp_path / "like.gguf").read_bytes() == (tmp_path / "planned.gguf").read_bytes()


@pytest.mark.slow
def test_types_of_a_mix_equal_those_of_llama_cpps_quantizer(tmp_path):
    write_shape_model(BASE, "q4_k_m", tmp_path / "mix.gguf")
    write_shape_model(BASE, "F16", tmp_path / "f16.gguf")
    quantize_stock(tmp_path / "f16.gguf", tmp_path / "stock.gguf", StockFormat("mix", "Q4_K_M"), threads=1)
    assert types(tmp_path / "mix.gguf") == types(tmp_path / "stock.gguf")
    assert len(set(types(tmp_path / "mix.gguf").values())) > 2


def test_temporary_shape_models_are_deleted_and_equal_types_share_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    with temporary_shape_models(BASE, ("Q4_0", "Q4_0/Q8_0", "Q4_0")) as (one, other, again):
        assert one == again != other
        assert types(other)["token_embd.weight"] == "Q8_0"
        assert len(list(one.parent.iterdir())) == 2
    with pytest.raises(OutputError, match="no such type"), temporary_shape_models(BASE, ("Q4_0", "Q9_X")):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(catalogue().bases))
def test_every_base_of_the_catalogue_can_be_planned_in_common_types(name):
    architecture = from_config(catalogue().bases[name].config, name)
    for type_ in ("Q4_K", "Q4_0/Q6_K", "f16"):
        assert (
            sum(prod(plan.shape) for plan in _plans(architecture, type_))
            == catalogue().bases[name].parameters
        )


def test_a_base_with_scaled_rope_has_its_factors(tmp_path):
    """Without them llama.cpp silently rotates positions as in another model."""
    from dataclasses import replace

    from ..speed.test_type_costs import TINY

    architecture = replace(TINY.all_layers, scaling=Llama3Scaling(32.0, 1.0, 4.0, 8192))
    plans = _plans(architecture, "Q8_0")
    random_model.write_planned_model(tmp_path / "long.gguf", architecture, plans)
    (tensor,) = (
        t for t in read_header(tmp_path / "long.gguf").tensors.values() if t.name == "rope_freqs.weight"
    )
    data = (tmp_path / "long.gguf").read_bytes()[tensor.offset : tensor.offset + tensor.nbytes]
    assert np.array_equal(np.frombuffer(data, np.float32), rope_factors(architecture))
    with Engine(tmp_path / "long.gguf", context=8, slots=1, threads=1, batch=8) as engine:
        assert np.isfinite(engine.logits((1, 2, 3))).all()
    again = tmp_path / "again.gguf"
    random_model.write_planned_model(again, architecture, _plans(architecture, str(tmp_path / "long.gguf")))
    assert types(again) == types(tmp_path / "long.gguf")


def refused(tmp_path, error, message, types_, name=BASE):
    target = tmp_path / "no.gguf"
    with pytest.raises(error, match=message) as raised:
        write_shape_model(name, types_, target)
    assert not target.exists() and "\n" not in str(raised.value)


def test_bad_types_and_plans_are_refused_and_leave_no_file(small, tmp_path, tiny):
    refused(tmp_path, DownloadError, "no base 'llama'", "Q4_0", name="llama")
    refused(tmp_path, OutputError, "no such type", "Q9_X")
    refused(tmp_path, ModelFileError, "a different model", str(tiny))
    plan = types(small)
    refused(tmp_path, OutputError, "'extra'", str(plan_file(tmp_path, plan, extra="Q4_0")))
    refused(
        tmp_path,
        OutputError,
        "do not fit Q4_K",
        str(plan_file(tmp_path, plan, **{"blk.0.attn_q.weight": "Q4_K"})),
    )
    refused(
        tmp_path, OutputError, "a vector", str(plan_file(tmp_path, plan, **{"output_norm.weight": "F16"}))
    )
    del plan["output_norm.weight"]
    refused(tmp_path, OutputError, "'output_norm.weight'", str(plan_file(tmp_path, plan)))
    for text in ("", "{}", '{"tensors": [3]}', "[" * 100_000):
        (tmp_path / "odd.json").write_text(text)
        refused(tmp_path, OutputError, "neither a GGUF nor the output", str(tmp_path / "odd.json"))
    with pytest.raises(OutputError, match="is an input of this command"):
        write_shape_model(BASE, str(small), small)
