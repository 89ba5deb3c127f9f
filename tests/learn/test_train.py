"""`thirteen train`: what changes, what is saved, resumption, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from thirteen.cli.main import app
from thirteen.convert.adapter.basis import Basis, read_tinylora_numbers
from thirteen.errors import OutputError, ThirteenError
from thirteen.files.progress import Run
from thirteen.learn.base_model import load_base_model
from thirteen.learn.examples import encode_example, held_out_losses
from thirteen.learn.recipe import RECIPES
from thirteen.learn.train import CHECKPOINTS, STATE, remove_state, train
from thirteen.models.adapter import find_basis
from thirteen.models.base import resolve_base
from thirteen.models.rows import read_rows, split_rows

from ..interruption import Interrupted, stop_at
from ..json_lines import write_rows

RUN = Run(threads=1)
ROWS = [
    {"question": f"What is {n} and {n}?", "solution": f"It is {n}+{n} = {2 * n}.", "answer": str(2 * n)}
    for n in range(2, 14)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def basis(base) -> Basis:
    """That of eight numbers in two groups of layers."""
    return find_basis(resolve_base(str(base("llama"))), numbers=8, groups=2)


@pytest.fixture
def request_for(base, data, tmp_path) -> Callable[..., dict[str, Any]]:
    """request_for(kind, basis, **recipe): for a tiny Llama and `data`, of which four rows are held out."""

    def make(kind="lora", output="out", **recipe) -> dict[str, Any]:
        changes = {"learning_rate": 0.05, "epochs": 3, "batch_rows": 4, "max_tokens": 200, "held_out": 4}
        made = replace(RECIPES[kind], **changes | recipe)
        return {"base": str(base("llama")), "data": data, "output": tmp_path / output, "recipe": made}

    return make


@pytest.mark.parametrize(("kind", "numbers"), [("lora", 2_048), ("tinylora", 8)])
def test_the_saved_adapter_has_the_measured_losses(
    base, data, basis, loaded, tmp_path, capsys, kind, numbers
):
    """PEFT loads it over the unchanged base, and its frozen factors are those of the basis."""
    from peft import PeftModel

    options = "--held-out 4 --batch-rows 4 --learning-rate 0.05 --max-tokens 200 --threads 1 --no-bf16 --json"
    words = ["train", base("llama"), "--data", data, "-o", tmp_path / "out", "--kind", kind, *options.split()]
    words += ["--numbers", 8, "--groups", 2] if kind == "tinylora" else []
    app([*map(str, words)], standalone_mode=False)
    facts = json.loads(capsys.readouterr().out)
    assert (facts["trained_numbers"], facts["rows"], facts["steps"]) == (numbers, 8, 2 * RECIPES[kind].epochs)
    assert facts["difference"]["low"] <= facts["difference"]["value"] < 0
    assert facts["difference"]["value"] == pytest.approx(facts["loss_after"] - facts["loss_before"])
    _, held = split_rows(read_rows(data), 4, RECIPES[kind].seed)
    examples = [encode_example(loaded[1], row) for row in held]
    model, tokens = load_base_model(base("llama")), sum(one.answer_tokens for one in examples)
    assert sum(held_out_losses(model, examples)) / tokens == pytest.approx(facts["loss_before"], rel=1e-5)
    PeftModel.from_pretrained(model, tmp_path / "out")
    assert sum(held_out_losses(model, examples)) / tokens == pytest.approx(facts["loss_after"], rel=1e-5)
    if kind == "tinylora":
        saved = read_tinylora_numbers(tmp_path / "out", basis)
        assert saved[:4].any() and saved[4:].any()
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    card = (tmp_path / "out/README.md").read_text()
    assert f"| {facts['loss_before']:.4f} |" in card and "of rows.jsonl" in card
    files = {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    with pytest.raises(OutputError, match=r"out: has adapter_config\.json, which would be"):
        app([*map(str, words)], standalone_mode=False)


@pytest.mark.parametrize("kind", ["lora", pytest.param("tinylora", marks=pytest.mark.exhaustive)])
def test_a_resumed_run_ends_with_the_same_weights(request_for, kind):
    """Lost Adam moments, or a wrong place in the schedule or among the rows, would change the last bits."""
    whole, parts = (request_for(kind, output=name, batch_rows=2) for name in ("whole", "parts"))
    train(**whole, run=RUN)
    interrupt = stop_at(11)  # of twelve steps; ten are saved, in the middle of an epoch
    with pytest.raises(Interrupted):
        train(**parts, run=Run(1, lambda stage: interrupt if stage == "train" else lambda done, total: None))
    with pytest.raises(ThirteenError, match="records of another run: seed is 13 in the file, 14 now"):
        train(**parts | {"recipe": replace(parts["recipe"], seed=14)}, run=RUN)
    done: list[int] = []
    train(**parts, run=Run(1, lambda stage: lambda step, _: done.append(step) if stage == "train" else None))
    assert {*done} == {11, 12}
    names = ("adapter_model.safetensors", "adapter_config.json")
    assert all(
        (whole["output"] / name).read_bytes() == (parts["output"] / name).read_bytes() for name in names
    )
    assert (parts["output"] / STATE).exists() and (parts["output"] / CHECKPOINTS).exists()
    remove_state(parts["output"])
    assert {path.name for path in parts["output"].iterdir()} == {*names}


def test_solutions_to_a_held_out_question_are_one_unit(request_for, tmp_path):
    """Resampled one by one, they made the interval too narrow."""
    rows = [row | {"question": f"How many {number // 3}?"} for number, row in enumerate(ROWS)]
    request = request_for(held_out=6, seed=1) | {"data": write_rows(tmp_path / "rows", rows)}
    assert train(**request, run=RUN).held_out < 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--groups", 2), "--groups: it is for --kind tinylora"),
        (("--held-out", 12), "--held-out 12: must be at least 1 and less than the 12 rows"),
        (("--max-tokens", 3), "--max-tokens 3: all 8 training rows are longer"),
        (("--learning-rate", 0), "should be greater than or equal to 0.000000001"),
    ],
)
def test_bad_options_are_one_line(base, data, tmp_path, options, message):
    words = ["train", base("llama"), "--data", data, "-o", tmp_path / "out", "--held-out", 4, *options]
    with pytest.raises(Exception, match=message):
        app([*map(str, words)], standalone_mode=False)
    assert not (tmp_path / "out/README.md").exists()


def test_a_loss_that_is_no_number_ends_the_run(request_for):
    """With a rate that overflows at once; at the command line's highest, that depends on the processor."""
    request = request_for(learning_rate=1e30)
    with pytest.raises(ThirteenError, match="the loss became nan: lower it"):
        train(**request, run=RUN)
    assert not (request["output"] / "adapter_config.json").exists()


def test_an_output_that_cannot_be_used_is_refused(request_for, base, tmp_path):
    """In the folder of the base the adapter became a part of it; all else is refused before it is loaded."""
    folder = shutil.copytree(base("llama"), tmp_path / "base")
    (tmp_path / "README.md").write_text("A project.")
    for source, output, message in (
        (folder, folder, f"{folder}: is the folder of the base"),
        ("nowhere", tmp_path, r"README\.md: is not of an adapter, and would be overwritten"),
        ("nowhere", tmp_path / "README.md" / "out", r"README\.md is a file, not a folder"),
    ):
        with pytest.raises(ThirteenError, match=message):
            train(**request_for() | {"base": str(source), "output": output}, run=RUN)
