"""What `convert` tells of its own file: measured beside the right models, and nothing of them left behind."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig
from safetensors.numpy import load_file, save_file
from thirteen.cli.main import main
from thirteen.convert.adapter.export import export_adapter
from thirteen.convert.pipeline import convert
from thirteen.workflows.fidelity_check import POSITIONS

from ..commands import Commands
from ..convert.peft_adapters import train

Given = Callable[[str], tuple[Path, Path]]
Converted = Callable[..., dict[str, Any]]

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {}),
    "dora": ("llama", {"use_dora": True}),
    "biased": ("qwen2", {"bias": "all"}),
}
TEXT = json.dumps({"text": "Three pens cost $3.60, so one pen costs $1.20. " * 12}) + "\n"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THIRTEEN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def thirteen(cache: Path) -> Iterator[Commands]:
    with Commands() as commands:
        yield commands


@pytest.fixture(scope="module")
def given(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A base and an adapter for it, by the adapter's kind."""
    folder = tmp_path_factory.mktemp("adapters")

    @once
    def given(kind: str) -> tuple[Path, Path]:
        name, options = KINDS[kind]
        config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "up_proj"], **options)
        return base(name), train(base(name), config, folder / kind, step=0.05)

    return given


@pytest.fixture
def converted(thirteen: Commands, cache: Path, tmp_path: Path) -> Converted:
    """The report of a conversion to `model.gguf`; what it warns of also stands on standard error."""

    def converted(*words: object) -> dict[str, Any]:
        done = thirteen("convert", *words, "--threads", "1", "-o", tmp_path / "model.gguf", "--json")
        assert done.status == 0, done
        report = json.loads(done.stdout)
        said = " ".join(done.stderr.split())
        assert all(f"warning: {warning}" in said for warning in report["warnings"])
        assert list(cache.iterdir()) == []
        return report

    return converted


def test_with_an_adapter_a_conversion_tells_what_it_kept_beside_the_right_models(
    converted: Converted, given: Given, tmp_path: Path
) -> None:
    base, adapter = given("lora")
    to, other = tmp_path / "report.json", tmp_path / "other.gguf"
    report = converted(base, "--adapter", adapter, "--type", "Q4_0", "--report", to)
    assert report == json.loads(to.read_text())
    found, files = report["fidelity"], report["fidelity"]["files"]
    assert found["positions"] == POSITIONS
    assert 0 < found["merged"]["divergence"]["kl_mean"]["estimate"] < found["merged"]["divergence"]["kl_p99"]
    for way in ("merged", "run_time"):
        assert 0 < found[way]["effect"]["cosine"]["estimate"] < 1
        assert found[way]["effect"]["slope"]["low"] > 0
    assert found["choice"]["recommended"] in ("merged", "run-time")
    assert (files["shipped"]["path"], files["shipped"]["sha256"]) == (report["output"], report["sha256"])
    assert files["reference"]["sha256"] == convert(base, other, quantization="F16", adapter=adapter).sha256
    assert files["base"]["sha256"] == convert(base, other, quantization="F16").sha256
    assert files["shipped_base"]["sha256"] == convert(base, other, quantization="Q4_0").sha256
    assert files["run_time"]["sha256"] == files["shipped_base"]["sha256"]
    assert files["run_time"]["adapter"]["sha256"] == export_adapter(adapter, base, other)
    assert files["run_time"]["adapter"]["path"] == "adapter.gguf"  # without its folder, which is gone


def test_the_base_is_quantized_to_the_same_types_by_the_same_importance(
    converted: Converted, thirteen: Commands, given: Given, tmp_path: Path
) -> None:
    base, adapter = given("lora")
    texts, importance, other = (tmp_path / name for name in ("texts.jsonl", "importance.gguf", "other.gguf"))
    texts.write_text(TEXT, "utf-8")
    how = ("--calibration", texts, "--threads", "1", "--output", importance)
    assert thirteen("importance", base, *how).status == 0
    size = ("--size", "6.5bpw", "--prefer", "quality")
    report = converted(base, "--adapter", adapter, "--importance", importance, *size)
    assert len(report["types"]) > 2
    shipped, measured = Path(report["output"]), report["fidelity"]["files"]["shipped_base"]["sha256"]
    assert measured == convert(base, other, quantization=shipped, importance=importance).sha256
    assert measured != convert(base, other, quantization=shipped).sha256


def test_nothing_is_measured_without_an_adapter_or_where_that_is_not_wanted(
    converted: Converted, given: Given
) -> None:
    base, adapter = given("lora")
    assert converted(base, "--type", "Q8_0")["fidelity"] is None
    assert converted(base, "--adapter", adapter, "--type", "Q8_0", "--no-fidelity")["fidelity"] is None


def test_without_an_adapter_the_models_own_loss_is_measured_where_that_is_asked(
    converted: Converted, given: Given, tmp_path: Path
) -> None:
    """The base is a GGUF here, and quantized: high precision is that of what it holds."""
    source = tmp_path / "source.gguf"
    convert(given("lora")[0], source, quantization="Q8_0")
    coarse, fine = (
        converted(source, "--type", type_, "--fidelity")["fidelity"] for type_ in ("Q4_0", "Q8_0")
    )
    bounds = [found["merged"]["divergence"]["kl_mean"] for found in (coarse, fine)]
    assert bounds[0]["low"] > bounds[1]["high"] > 0
    assert coarse["merged"]["effect"] is coarse["run_time"] is coarse["files"]["base"] is None
    reference = convert(source, tmp_path / "reference.gguf", quantization="F16").sha256
    assert coarse["files"]["reference"]["sha256"] == fine["files"]["reference"]["sha256"] == reference


@pytest.mark.parametrize(
    ("kind", "says"), [("dora", "dora: DoRA rescales the base's rows"), ("biased", "only a merge by PEFT")]
)
def test_an_adapter_that_cannot_be_kept_at_run_time_is_measured_merged_and_says_so(
    kind: str, says: str, converted: Converted, given: Given
) -> None:
    base, adapter = given(kind)
    report = converted(base, "--adapter", adapter, "--type", "Q8_0")
    assert report["fidelity"]["merged"]["effect"]["cosine"]["estimate"] > 0.5
    assert report["fidelity"]["run_time"] is report["fidelity"]["choice"] is None
    (warning,) = (text for text in report["warnings"] if "at run time was not measured" in text)
    assert says in warning


def test_the_table_has_the_figures_and_the_advice(thirteen: Commands, given: Given, tmp_path: Path) -> None:
    base, adapter = given("lora")
    how = ("--type", "Q4_0", "--threads", "1", "-o", tmp_path / "model.gguf")
    done = thirteen("convert", base, "--adapter", adapter, *how)
    assert done.status == 0, done
    for text in ("KL divergence", "99th percentile", "same top token", "perplexity", "recommended: "):
        assert text in done.stdout
    for effect in ("merged effect", "run-time effect"):
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(effect))
        assert "slope" in line and "cosine" in line


def test_the_help_tells_over_how_many_positions(thirteen: Commands) -> None:
    assert f"{POSITIONS:,} positions" in " ".join(thirteen("convert", "--help").stdout.split())


def test_a_disk_without_the_room_makes_a_warning(
    given: Given,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The file itself still has room: only the cache's disk is full."""
    real = shutil.disk_usage

    def usage(path: Path) -> Any:
        found = real(path)
        return found._replace(free=1_000) if Path(path).is_relative_to(cache) else found

    monkeypatch.setattr(shutil, "disk_usage", usage)
    (base, adapter), output, other = given("lora"), tmp_path / "model.gguf", tmp_path / "other.gguf"
    words = ("convert", base, "--adapter", adapter, "--type", "Q8_0", "-o", output, "--json")
    monkeypatch.setattr(sys, "argv", ["thirteen", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["fidelity"] is None
    assert report["file_bytes"] == output.stat().st_size
    assert list(cache.iterdir()) == []
    (warning,) = report["warnings"]
    told = re.search(r"needs ([\d,]+) bytes for a while, but 1,000 are free", warning)
    assert told, warning
    needed = report["file_bytes"] + 2 * convert(base, other, quantization="F16", threads=1).file_bytes
    assert int(told[1].replace(",", "")) == pytest.approx(needed, rel=0.02)


def test_a_model_that_high_precision_cannot_hold_is_converted_all_the_same(
    converted: Converted, given: Given, tmp_path: Path
) -> None:
    """70,000 is more than F16 has, but not more than BF16."""
    base, adapter = given("lora")
    large = shutil.copytree(base, tmp_path / "large")
    arrays = {name: array.copy() for name, array in load_file(base / "model.safetensors").items()}
    arrays["model.layers.0.self_attn.k_proj.weight"][0, 0] = 7e4
    save_file(arrays, large / "model.safetensors")
    report = converted(large, "--adapter", adapter, "--type", "BF16")
    assert report["fidelity"] is None
    (warning,) = report["warnings"]
    assert warning.startswith("fidelity was not measured: tensor") and "70000" in warning


@pytest.mark.parametrize("sign", [".reference F16.gguf.part", "adapter.gguf"])
def test_ctrl_c_in_the_measurement_leaves_the_file_and_nothing_else(
    sign: str, thirteen: Commands, cache: Path, tmp_path: Path
) -> None:
    """While the first model is written, and when all are there and are loaded."""
    target = tmp_path / "model.gguf"
    command = [sys.executable, "-m", "thirteen", "convert", "embedded", "--threads", "1", "-o", target]
    command += ["--adapter", "smollm2-135m-gsm8k-13", "--type", "Q4_0"]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as running:  # noqa: PLW1509
        while not any(cache.glob(f"*/{sign}")):
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.005)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors.split()) == (130, ["interrupted"])
    assert list(cache.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    assert thirteen("inspect", target).status == 0
