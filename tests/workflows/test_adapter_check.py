"""`thirteen adapter check`: the verdict on adapters with an effect, without one, and with a lost one."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig
from safetensors.numpy import load_file, save_file
from thirteen.models.catalogue import adapter_folder
from thirteen.quality.fidelity.adapter_effect import AdapterEffect
from thirteen.quality.fidelity.kl_divergence import Divergence
from thirteen.stats.interval import Interval
from thirteen.workflows.adapter_check import MeasuredEffect, changes_table, find_problem

from ..convert.peft_adapters import save_random_adapter
from ..leftovers import leftovers

ADAPTER = "smollm2-135m-sums-13"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Without the time limit of Commands: on a busy machine it takes minutes."""
    command = [sys.executable, "-m", "thirteen", "adapter", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def scaled(factor: float, folder: Path) -> Path:
    """A copy of the shipped adapter with its numbers times `factor`."""
    shutil.copytree(adapter_folder(ADAPTER), folder)
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    for name in tensors:
        if "tinylora_v" in name:
            tensors[name] *= np.float32(factor)
    save_file(tensors, weights)
    return folder


@pytest.mark.exhaustive  # a minute
def test_a_good_adapter_has_an_effect_that_survives(cache):
    done = run("check", ADAPTER, "--json")
    assert done.returncode == 0, done.stderr
    check = json.loads(done.stdout)
    assert check["effective"] and check["verdict"].startswith("the adapter has an effect")
    assert len(check["changes"]) == 30 * 7 and all(0 < change < 0.1 for change in check["changes"].values())
    effect = check["effect"]
    assert effect["positions"] == 384
    assert effect["moved"]["kl_mean"]["estimate"] > 0.001
    assert effect["agreement"]["cosine"]["estimate"] > 0.98
    assert effect["agreement"]["slope"]["estimate"] == pytest.approx(1, abs=0.05)
    for kept in (effect["merged"], effect["run_time"]):
        assert min(kept["slope"]["estimate"], kept["cosine"]["estimate"]) > 0.5
    assert leftovers(cache) == []


@pytest.mark.exhaustive  # half a minute
def test_an_effect_that_is_lost_at_low_bits_is_status_1_and_one_line(cache, tmp_path):
    adapter = scaled(0.1, tmp_path / "weak")
    done = run("check", adapter, "--type", "Q4_0", "--tokens", "128")
    assert done.returncode == 1, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert line.startswith("error: effect lost: merged in Q4_0 it has slope ")
    assert line.endswith("; take a type with more bits")
    assert "layer 29" in done.stdout and "changed top tokens" in done.stdout


def test_a_zero_adapter_is_status_1_and_one_line(thirteen, tmp_path):
    adapter = scaled(0, tmp_path / "zero")
    done = thirteen("adapter", "check", adapter)
    assert (done.status, done.stderr) == (1, "error: zero: every delta is zero: it changes nothing\n"), done
    report = json.loads(thirteen("adapter", "check", adapter, "--json").stdout)
    assert (report["effective"], report["effect"], report["changes"]) == (False, None, {})


def test_an_adapter_of_another_base_is_status_2(thirteen, base, tmp_path):
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"])
    other = save_random_adapter(base("llama"), config, tmp_path / "other")
    done = thirteen("adapter", "check", other)
    assert (done.status, done.stderr.count("\n")) == (2, 1), done
    assert "trained on another model" in done.stderr
    adapter = scaled(1, tmp_path / "named")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "HuggingFaceTB/SmolLM2-360M-Instruct"
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    done = thirteen("adapter", "check", adapter)
    assert done.status == 2
    assert done.stderr == "error: named: was trained on smollm2-360m, but the base is smollm2-135m\n"


@pytest.mark.parametrize("dora", [False, True])
def test_an_effect_is_measured_merged_and_at_run_time_where_it_has_that_form(
    dora, thirteen, base, cache, tmp_path
):
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "up_proj"], use_dora=dora)
    adapter = save_random_adapter(base("llama"), config, tmp_path / "adapter")
    words = ("--base", base("llama"), "--type", "Q8_0", "--tokens", 64, "--threads", 1, "--json")
    done = thirteen("adapter", "check", adapter, *words)
    assert done.status == 0, done
    check = json.loads(done.stdout)
    assert check["effective"] and check["effect"]["merged"]["cosine"]["estimate"] > 0.9
    for name in ("agreement", "run_time"):
        assert (check["effect"][name] is None) == dora
    assert ("DoRA rescales the base's rows" in done.stderr) == dora
    assert leftovers(cache) == []


def effect(slope: float, cosine: float) -> AdapterEffect:
    values = (Interval(one, one, one) for one in (slope, cosine, 0.0))
    return AdapterEffect(*values)


def divergence(kl: float) -> Divergence:
    one = Interval(1.0, 1.0, 1.0)
    return Divergence(Interval(kl, kl, kl), kl, kl, one, one, one, one)


GOOD = MeasuredEffect(384, divergence(0.01), effect(1, 1), effect(0.9, 0.9), effect(0.95, 0.95))


def test_each_fault_has_its_own_line():
    assert find_problem(GOOD, "Q4_K") is None
    assert find_problem(replace(GOOD, merged=effect(0.5, 0.5)), "Q4_K") is None
    faults = {
        "no effect: the adapter moves": replace(GOOD, moved=divergence(1e-7)),
        "no effect once it is merged": replace(GOOD, merged=None),
        "in F16 the effect at run time is not that of the merged": replace(GOOD, agreement=effect(1, 0.5)),
        "effect lost: merged in Q4_K it has slope 0.10, cosine 0.80": replace(GOOD, merged=effect(0.1, 0.8)),
        "effect lost: merged in Q4_K it has slope 0.90, cosine 0.20": replace(GOOD, merged=effect(0.9, 0.2)),
    }
    for line, measured in faults.items():
        assert (find_problem(measured, "Q4_K") or "").startswith(line)
    both = replace(GOOD, merged=effect(0.1, 0.1), run_time=effect(0.1, 0.1))
    assert (find_problem(both, "Q2_K") or "").endswith("take a type with more bits")


def test_changes_are_told_by_layer_and_module():
    changes = {
        "model.layers.0.self_attn.q_proj.weight": 0.01,
        "model.layers.0.mlp.up_proj.weight": 0.002,
        "model.layers.10.self_attn.q_proj.weight": 0.5,
        "lm_head.weight": 0.25,
    }
    table = changes_table(changes)
    assert [str(column.header) for column in table.columns][1:] == ["q_proj", "up_proj", "lm_head"]
    cells = [list(column.cells) for column in table.columns]
    assert cells == [["layer 0", "layer 10", "others"], ["1", "50", ""], ["0.2", "", ""], ["", "", "25"]]
