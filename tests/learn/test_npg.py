"""The natural policy gradient on rollouts of a tiny Llama, with PEFT as the oracle of the gradients."""

from dataclasses import replace

import numpy as np
import pytest
from thirteen.convert.adapter.adapter import adapter_sha256
from thirteen.convert.adapter.basis import Basis, BasisOrigin, make_basis
from thirteen.convert.adapter.tinylora_folder import read_tinylora_numbers
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import AdapterError, RequestError, ThirteenError
from thirteen.learn import npg, solution_scores
from thirteen.learn.base_model import attach_adapter, load_base_model
from thirteen.learn.cards import npg_card
from thirteen.learn.examples import encode_sampled, row_losses
from thirteen.learn.job import TrainCheckpoint, TrainingJob
from thirteen.learn.npg import train_npg
from thirteen.learn.recipe import RECIPES
from thirteen.learn.rollouts import read_advantage_rows

from .rollout_files import MIXED, write_rollouts

NUMBERS = 8


@pytest.fixture(scope="module")
def basis(base) -> Basis:
    checkpoint = open_checkpoint(base("llama"))
    return make_basis(checkpoint, BasisOrigin("tiny", checkpoint.sha256(), numbers=NUMBERS, groups=2))


@pytest.fixture(scope="module")
def sampled(loaded, tmp_path_factory):
    path = write_rollouts(tmp_path_factory.mktemp("rollouts") / "file", loaded[1], outcomes=MIXED)
    return read_advantage_rows(path)


@pytest.fixture
def job(base, basis, tmp_path) -> TrainingJob:
    recipe = replace(RECIPES["tinylora"], numbers=NUMBERS, threads=1)
    return TrainingJob(base("llama"), tmp_path / "adapter", recipe, basis, "some/base")


@pytest.mark.parametrize("start", [None, np.linspace(-0.5, 1, NUMBERS, dtype=np.float32)])
def test_the_scores_are_those_of_the_peft_adapter(base, basis, sampled, job, start):
    import torch

    model, tokenizer = load_base_model(base("llama"))
    examples = [encode_sampled(tokenizer, row) for row in sampled.rows[:7]]
    adapted = attach_adapter(load_base_model(base("llama"))[0], job.recipe, basis)
    (trained,) = (p for p in adapted.parameters() if p.requires_grad)

    def gradients():
        found = (torch.autograd.grad(-row_losses(adapted, [one]).sum(), trained)[0] for one in examples)
        return torch.stack(list(found)).numpy()

    expected, scale = gradients(), np.abs(gradients()).max()
    if start is not None:
        at_zero = expected
        trained.data.copy_(torch.from_numpy(start))
        expected = gradients()
        assert np.abs(at_zero - expected).max() > 0.01 * scale
    else:
        rounded = solution_scores.solution_scores(model, basis, examples, batch_rows=3, bf16=True)
        assert (rounded * expected).sum() / np.linalg.norm(rounded) / np.linalg.norm(expected) > 0.99
    found = solution_scores.solution_scores(model, basis, examples, batch_rows=3, start=start)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4 * scale)


def test_the_gradient_is_that_at_the_temperature_of_the_samples(base, basis, sampled):
    """It was that at temperature 1. At 0.5 the logits are twice as large."""
    import torch

    model, tokenizer = load_base_model(base("llama"))
    examples = [encode_sampled(tokenizer, row) for row in sampled.rows[:2]]
    found = solution_scores.solution_scores(model, basis, examples, temperature=0.5)
    at_one = solution_scores.solution_scores(model, basis, examples)
    output = model.get_output_embeddings()
    output.weight = torch.nn.Parameter(2 * output.weight, requires_grad=False)
    expected = solution_scores.solution_scores(model, basis, examples)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5 * np.abs(expected).max())
    assert np.abs(at_one - expected).max() > 0.1 * np.abs(expected).max()


def test_right_solutions_become_likelier_than_wrong_ones(job, sampled):
    """By as much as the divergence says: a solution's log-ratio has the mean square 2 * KL."""
    import torch
    from peft import PeftModel

    rows, kl = sampled.rows, 1e-4
    result = train_npg(job, sampled, kl)
    assert (result.trained_numbers, result.questions, result.solutions) == (NUMBERS, 14, len(rows))
    model, tokenizer = load_base_model(job.base)
    examples = [encode_sampled(tokenizer, row) for row in rows]
    with torch.no_grad():
        before = row_losses(model, examples).numpy()
        after = row_losses(PeftModel.from_pretrained(model, job.out).base_model.model, examples).numpy()
    assert ((before - after) * [row.weight for row in rows]).sum() > 0
    expected = 2 * kl * np.mean([example.answer_tokens for example in examples])
    assert ((before - after) ** 2).mean() == pytest.approx(expected, rel=0.1)


def test_another_divergence_on_another_day_uses_the_gradients_of_the_first_run(
    job, dated, tmp_path, monkeypatch
):
    """With the date in its prompts, it was taken for another run."""
    job, vectors = replace(job, base=dated), []
    sampled = read_advantage_rows(
        write_rollouts(tmp_path / "file", load_base_model(dated)[1], outcomes=MIXED)
    )
    for kl in (0.01, 0.04):
        train_npg(job, sampled, kl)
        vectors.append(read_tinylora_numbers(job.out, job.basis))
        monkeypatch.delattr(solution_scores, "row_losses", raising=False)
    assert vectors[1] == pytest.approx(2 * vectors[0], rel=1e-5)


def test_the_scores_over_another_basis_are_not_used(job, sampled):
    """Of one base, with one group: its scores are as many and as long."""
    basis = replace(job.basis, origin=replace(job.basis.origin, groups=1))
    train_npg(replace(job, basis=basis), sampled, kl=0.01)
    other = replace(basis, origin=replace(basis.origin, base_sha256="other"))
    with pytest.raises(ThirteenError, match="checkpoint of a run with another base, basis"):
        train_npg(replace(job, basis=other), sampled, kl=0.01)


def test_a_second_step_starts_from_the_adapter(job, sampled, loaded, tmp_path):
    """Its rollouts must be of that adapter."""
    train_npg(job, sampled, kl=0.01)
    identity = {"adapter_sha256": "of the GGUF", "peft_sha256": adapter_sha256(job.out)}
    rollouts = write_rollouts(tmp_path / "second", loaded[1], outcomes=MIXED, **identity)
    first = read_tinylora_numbers(job.out, job.basis)
    second = replace(job, out=tmp_path / "two")
    result = train_npg(second, read_advantage_rows(rollouts, job.out), kl=1e-8)
    numbers = read_tinylora_numbers(second.out, job.basis)
    assert numbers == pytest.approx(first, abs=0.01 * np.abs(first).max()) and (numbers != first).any()
    assert f"It starts from the adapter {job.out.name}, which" in npg_card(second, result, 1e-8, "", "")
    for adapter, key in ((second.out, "peft_sha256"), (None, "adapter_sha256")):
        with pytest.raises(RequestError, match=f"rollouts with another adapter: {key} is"):
            read_advantage_rows(rollouts, adapter)


def test_a_resumed_run_gives_the_same_numbers(job, sampled, monkeypatch):
    train_npg(job, sampled, kl=0.01)
    expected = read_tinylora_numbers(job.out, job.basis)
    again = replace(job, out=job.out.with_name("again"), recipe=replace(job.recipe, micro_rows=4))
    passes = []

    def interrupted(*args, **options):
        passes.append(len(args[1]))
        if len(passes) == 4:
            raise KeyboardInterrupt
        return row_losses(*args, **options)

    monkeypatch.setattr(solution_scores, "row_losses", interrupted)
    monkeypatch.setattr(npg, "TrainCheckpoint", lambda *args: TrainCheckpoint(*args, every=2))
    with pytest.raises(KeyboardInterrupt):
        train_npg(again, sampled, kl=0.01)
    train_npg(again, sampled, kl=0.01)
    again_passed = 8  # solutions: the third pass had not been saved, and the fourth had failed
    assert sum(passes) == len(sampled.rows) + again_passed
    assert read_tinylora_numbers(again.out, job.basis) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_a_gradient_that_is_not_finite_is_not_saved(job, sampled, monkeypatch):
    """Every later run would have failed on it."""
    monkeypatch.setattr(
        solution_scores, "row_losses", lambda *args, **options: np.nan * row_losses(*args, **options)
    )
    with pytest.raises(ThirteenError, match="is not finite: try --no-bf16"):
        train_npg(job, sampled, kl=0.01)
    assert not (job.out / ".scores.pt").exists()


def test_a_basis_of_other_modules_is_refused(base, job, sampled):
    lacking = replace(job.basis, factors=dict(list(job.basis.factors.items())[1:]))
    checkpoint = open_checkpoint(base("qwen2"))
    other = make_basis(checkpoint, BasisOrigin("other", checkpoint.sha256(), numbers=NUMBERS))
    for basis, message in ((lacking, "of tiny: it lacks the model's"), (other, "of other: its")):
        with pytest.raises(AdapterError, match=f"the basis is {message}"):
            train_npg(replace(job, basis=basis), sampled, kl=0.01)
