"""Supervised training: what changes, resumption, and the adapter that is saved."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from thirteen.convert.adapter.basis import BasisOrigin, make_basis
from thirteen.convert.adapter.tinylora_folder import read_tinylora_numbers
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import ThirteenError
from thirteen.learn import sft
from thirteen.learn.base_model import attach_adapter, load_base_model
from thirteen.learn.examples import Example, encode_example, held_out_losses
from thirteen.learn.job import TrainCheckpoint, TrainingJob
from thirteen.learn.recipe import RECIPES
from thirteen.learn.sft import HeldOutLoss, fit_adapter, train_sft
from thirteen.models.rows import TrainingRow

from ..interruption import Interrupted, stop_at

ROWS = [TrainingRow(f"What is {n} and {n}?", f"It is {n}+{n} = {2 * n}.", str(2 * n)) for n in range(2, 14)]
RECIPE = replace(
    RECIPES["tinylora"], learning_rate=0.05, epochs=6, batch_rows=4, held_out=4, threads=1, max_tokens=200
)


@pytest.fixture
def fresh(base, loaded):
    """A base without an adapter, and the examples of ROWS."""
    return load_base_model(base("llama")), [encode_example(loaded[1], row) for row in ROWS]


def test_only_the_thirteen_numbers_change(fresh):
    import torch

    model, examples = fresh
    start = sum(held_out_losses(model, examples))
    attach_adapter(model, RECIPE)
    assert sum(held_out_losses(model, examples)) == pytest.approx(start, rel=1e-6)  # v starts at zero
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    losses = fit_adapter(model, examples, RECIPE).losses
    assert len(losses) == 18
    assert [p.numel() for p in model.parameters() if p.requires_grad] == [13]
    assert sum(held_out_losses(model, examples)) < start * 0.99
    now = dict(model.named_parameters())
    assert all(torch.equal(weight, now[name]) and now[name].grad is None for name, weight in frozen.items())


def test_the_saved_adapter_has_the_measured_losses(base, loaded, tmp_path):
    """PEFT loads it, and its frozen factors are those of the basis."""
    from peft import PeftModel
    from safetensors.numpy import load_file

    out, checkpoint = tmp_path / "adapter", open_checkpoint(base("llama"))
    basis = make_basis(checkpoint, BasisOrigin("tiny", checkpoint.sha256()))
    result = train_sft(TrainingJob(base("llama"), out, RECIPE, basis, "some/base"), ROWS[4:], ROWS[:4])
    assert (result.trained_numbers, result.rows, result.steps) == (13, 8, 12)
    model, tokenizer = load_base_model(base("llama")), loaded[1]
    examples = [encode_example(tokenizer, row) for row in ROWS[:4]]
    assert held_out_losses(model, examples) == pytest.approx(result.held_out.before, rel=1e-5)
    PeftModel.from_pretrained(model, out)
    assert held_out_losses(model, examples) == pytest.approx(result.held_out.after, rel=1e-5)
    assert read_tinylora_numbers(out, basis).any()
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert (config["base_model_name_or_path"], config["save_projection"]) == ("some/base", True)
    assert {str(array.dtype) for array in load_file(out / "adapter_model.safetensors").values()} == {
        "float32"
    }


@pytest.mark.parametrize("kind", ["lora", "tinylora"])
def test_a_resumed_run_ends_with_the_same_weights(base, loaded, tmp_path, kind):
    """Lost Adam moments or a wrong place in the schedule would change the last bits."""
    import torch

    recipe = replace(RECIPES[kind], learning_rate=0.01, epochs=3, batch_rows=4, micro_rows=2, threads=1)

    def run(path, stop):
        torch.manual_seed(recipe.seed)
        model, tokenizer = load_base_model(base("llama")), loaded[1]
        attach_adapter(model, recipe)
        examples = [encode_example(tokenizer, row) for row in ROWS]
        checkpoint = TrainCheckpoint(path, "run", 2)
        interrupt = stop_at(stop)
        fit_adapter(model, examples, recipe, checkpoint, lambda state, steps: interrupt(state.step, steps))
        return [p.detach().clone() for p in model.parameters() if p.requires_grad]

    whole = run(tmp_path / "whole", None)
    for stop in (3, 6):
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", stop)
    parts = run(tmp_path / "parts", None)
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_a_run_resumes_on_another_day_and_no_other_run_does(dated, templated, tmp_path):
    """With the date in its prompts it was another run. The places of the weights were no part of its id."""
    training, held = ROWS[:2], ROWS[2:4]
    job = TrainingJob(dated, tmp_path / "out", replace(RECIPE, epochs=6, batch_rows=1))
    with pytest.raises(Interrupted):  # at the eleventh step; ten are saved
        train_sft(job, training, held, lambda stage: stop_at(11 if stage == "train" else None))
    others = [
        (job, training[::-1]),
        (replace(job, base=templated("Hello.")), training),
        (replace(job, recipe=replace(job.recipe, final_line=False)), training),
    ]
    for other, rows in others:
        with pytest.raises(ThirteenError, match="checkpoint of a run with another base"):
            train_sft(other, rows, held)
    done = []
    assert train_sft(job, training, held, lambda name: lambda step, _: done.append((name, step))).steps == 12
    assert [step for name, step in done if name == "train"] == [11, 12]


def test_solutions_to_a_held_out_question_are_one_unit(base, loaded, tmp_path):
    """Resampled one by one, they made the interval too narrow."""
    model, tokenizer = loaded
    held = [replace(ROWS[n], question=f"How many {n // 3}?") for n in (0, 0, 0, 3, 3, 3)]
    job = TrainingJob(base("llama"), tmp_path / "out", replace(RECIPE, epochs=1))
    found = train_sft(job, ROWS[:2], held).held_out
    alone = encode_example(tokenizer, held[0], final_line=job.recipe.final_line)
    assert len(found.tokens) == len(found.before) == len(found.after) == 2
    assert found.tokens[0] == 3 * alone.answer_tokens
    assert found.before[0] == pytest.approx(3 * held_out_losses(model, [alone])[0], rel=1e-5)


def test_a_step_does_not_depend_on_the_micro_batch(base, loaded):
    losses = []
    for micro in (3, 8):
        model, tokenizer = load_base_model(base("llama")), loaded[1]
        attach_adapter(model, RECIPE)
        examples = [encode_example(tokenizer, row) for row in ROWS[:8]]
        recipe = replace(RECIPE, epochs=4, batch_rows=8, micro_rows=micro)
        losses.append(fit_adapter(model, examples, recipe).losses)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] < losses[0][0]


def test_the_interval_is_paired():
    """Rows differ much more from each other than each row does before and after."""
    before = tuple(float(n) for n in range(10, 210))
    after = tuple(loss - 0.1 - 0.001 * (n % 3) for n, loss in enumerate(before))
    held = HeldOutLoss((10,) * 200, before, after)
    difference = held.difference
    assert difference.estimate == pytest.approx(held.loss_after - held.loss_before)
    assert difference.low <= difference.estimate <= difference.high < -0.0100
    assert difference.high - difference.low < 1e-4


def test_a_nan_loss_stops_the_run(monkeypatch):
    import torch

    monkeypatch.setattr(sft, "row_losses", lambda model, batch, **_: model.weight.sum() * torch.nan)
    with pytest.raises(ThirteenError, match=r"learning_rate 0\.05: the loss became nan"):
        fit_adapter(torch.nn.Linear(2, 2), [Example([0] * 4, 2)] * 8, RECIPE)


def test_the_import_does_not_load_torch():
    modules = "thirteen.workflows.learning, thirteen.workflows.training"
    code = f"import sys, {modules}; print({{'torch', 'transformers', 'peft'}} & {{*sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
