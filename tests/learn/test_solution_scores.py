"""Gradients of solutions of a tiny Llama, with PEFT as the oracle."""

from functools import partial

import numpy as np
import pytest
from thirteen.convert.adapter.basis import Basis, BasisOrigin, make_basis
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import ThirteenError
from thirteen.files.journal import Journal
from thirteen.learn import solution_scores as scores
from thirteen.learn.base_model import load_base_model
from thirteen.learn.examples import Example, encode_example, row_losses
from thirteen.learn.rollouts import TEMPERATURE
from thirteen.learn.train import attach_adapter
from thirteen.models.rows import TrainingRow

NUMBERS = 8


@pytest.fixture(scope="module")
def basis(base) -> Basis:
    checkpoint = open_checkpoint(base("llama"))
    return make_basis(checkpoint, BasisOrigin("tiny", checkpoint.sha256(), numbers=NUMBERS, groups=2))


@pytest.fixture(scope="module")
def examples(loaded) -> list[Example]:
    rows = (TrainingRow(f"What is {n} and {n}?", "It is so. " * n + str(2 * n)) for n in range(9))
    return [encode_example(loaded[1], row) for row in rows]


def test_the_scores_are_those_of_the_peft_adapter(base, loaded, basis, examples, tmp_path):
    import torch

    adapted = attach_adapter(load_base_model(base("llama")), basis)
    (trained,) = (p for p in adapted.parameters() if p.requires_grad)
    loss = partial(row_losses, adapted, temperature=TEMPERATURE)
    gradients = (torch.autograd.grad(-loss([one]).sum(), trained)[0] for one in examples)
    expected = torch.stack(list(gradients)).numpy()
    found, rounded = (
        scores.solution_scores(model, basis, examples, Journal(tmp_path / f"scores {number}", {}, "scores"))
        for number, model in enumerate((loaded[0], load_base_model(base("llama"), bf16=True)))
    )
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4 * np.abs(expected).max())
    assert (rounded * expected).sum() / np.linalg.norm(rounded) / np.linalg.norm(expected) > 0.99


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_a_prefix_that_prompts_share_is_computed_once_with_the_same_scores(
    base, family, monkeypatch, tmp_path
):
    checkpoint, model = open_checkpoint(base(family)), load_base_model(base(family))
    basis = make_basis(checkpoint, BasisOrigin("tiny", checkpoint.sha256(), numbers=NUMBERS))
    rng = np.random.default_rng(0)
    shown = rng.integers(3, 60, 70).tolist()
    examples = [
        Example([*shown, *rng.integers(3, 60, 2 + n).tolist(), *rng.integers(3, 60, 5).tolist()], 72 + n)
        for n in range(2 * NUMBERS)
    ]
    tokens = []

    def losses(model, batch, *, cache, **options):
        tokens.append(cache.get_seq_length() if cache else 0)
        return row_losses(model, batch, cache=cache, **options)

    monkeypatch.setattr(scores, "row_losses", losses)
    found = scores.solution_scores(model, basis, examples, Journal(tmp_path / "found", {}, "scores"))
    monkeypatch.setattr(scores, "_TOKENS_MIN", 100)
    expected = scores.solution_scores(model, basis, examples, Journal(tmp_path / "expected", {}, "scores"))
    assert tokens == [70] * 4 + [0] * 4
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4 * np.abs(expected).max())


def test_at_half_the_temperature_the_logits_are_twice_as_large(base, loaded, examples):
    """The gradient was that at temperature 1, whatever the samples' was."""
    import torch

    plain, rounded = (row_losses(loaded[0], examples[:2], bf16=bf16).tolist() for bf16 in (False, True))
    assert rounded == pytest.approx(plain, rel=0.01) and rounded != pytest.approx(plain, rel=1e-6)

    found = row_losses(loaded[0], examples[:2], temperature=0.5)
    model = load_base_model(base("llama"))
    output = model.get_output_embeddings()
    output.weight = torch.nn.Parameter(2 * output.weight, requires_grad=False)
    assert found.tolist() == pytest.approx(row_losses(model, examples[:2]).tolist(), rel=1e-4)


def test_a_gradient_that_is_not_finite_is_not_saved(loaded, basis, examples, monkeypatch, tmp_path):
    """Every later run would have failed on it."""
    monkeypatch.setattr(scores, "row_losses", lambda *args, **options: np.nan * row_losses(*args, **options))
    with Journal(tmp_path / "scores", {}, "scores") as journal, pytest.raises(ThirteenError, match="finite"):
        scores.solution_scores(loaded[0], basis, examples, journal=journal)
    assert not (tmp_path / "scores").exists()
