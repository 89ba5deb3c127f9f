"""The divergence between two models and its gradients, against those of torch."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from thirteen.convert.calibration_weights import WeightsByGgufName
from thirteen.convert.merged_view import MergedView
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.runtime.calibration.decoder import Array
from thirteen.runtime.calibration.distillation import Distillation
from transformers import AutoModelForCausalLM

from .weights import weights_of

CHUNKS = [tuple(np.random.default_rng(seed).integers(0, 250, 40).tolist()) for seed in range(3)]


class Recorder(WeightsByGgufName):
    """Weights that keep the gradients they are given, by name."""

    def __init__(self, path: Path) -> None:
        super().__init__(MergedView(open_checkpoint(path), None, ""))
        self.gradients: dict[str, Array] = {}
        self.targets = {spec.target: spec for spec in open_checkpoint(path).specs.values()}

    def add_gradient(self, name: str, start: int, gradient: Array) -> None:
        whole = self.gradients.setdefault(name, np.zeros(self.targets[name].shape, np.float32))
        whole[start : start + len(gradient)] += gradient


def log_probabilities(model: torch.nn.Module) -> torch.Tensor:
    return torch.log_softmax(model(torch.tensor(CHUNKS)).logits, -1)


@pytest.mark.parametrize("name", ["llama", "llama untied", "llama long", "qwen2", "qwen2 f16 tied"])
def test_the_divergence_and_the_gradients_of_all_weights_are_those_of_torch(
    base: Callable[[str], Path], name: str
) -> None:
    folder = base(name)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    teacher, student = weights_of(folder), Recorder(folder)
    scale_last_norm(other, teacher)
    wanted, found = log_probabilities(other).detach(), log_probabilities(model)
    divergence = (wanted.exp() * (wanted - found)).sum(-1)
    divergence.mean().backward()
    with ThreadPoolExecutor(2) as pool:
        distillation = Distillation(teacher, student, pool)
        targets = distillation.targets(CHUNKS)
        losses = distillation.divergence(targets)
        mean = distillation.add_gradients(targets)
    assert np.allclose(losses, divergence.detach().numpy().ravel(), rtol=1e-2, atol=1e-5)
    assert mean == pytest.approx(divergence.mean().item(), rel=1e-3)
    parameters = dict(model.named_parameters())
    assert student.gradients.keys() == student.targets.keys()
    for target, spec in student.targets.items():
        gradient = parameters[spec.source].grad
        assert gradient is not None
        error = np.linalg.norm(student.gradients[target] - gradient.numpy())
        assert error < 2e-3 * max(np.linalg.norm(gradient.numpy()), 1e-6), target


def scale_last_norm(model: torch.nn.Module, weights: WeightsByGgufName) -> None:
    """Make the teacher another model: its last norm is half as large again, in torch and here."""
    with torch.no_grad():
        model.model.norm.weight *= 1.5
    rows = weights.rows

    def scaled(name: str, start: int, stop: int) -> Array:
        return rows(name, start, stop) * np.float32(1.5 if name == "output_norm.weight" else 1)

    weights.rows = scaled  # type: ignore[method-assign]
