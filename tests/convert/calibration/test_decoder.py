"""The NumPy decoder against transformers: hidden states, logits, and gradients of all matrices' outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from thirteen.convert.calibration.decoder import DecoderLayer, DecoderWeights, RmsNorm
from thirteen.convert.merged_model import MergedModel
from thirteen.convert.quantize.importance import fitting_importance, read_importance, write_importance
from thirteen.convert.source.architecture import EMBEDDING
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.source.families import INPUTS
from thirteen.stats import Floats
from transformers import AutoModelForCausalLM

from ...checkpoints import FAMILIES
from .conftest import stats_of

TOKENS = np.random.default_rng(3).integers(0, 250, 150)  # more than a block of queries, and than a window
NAMES = [*FAMILIES, "llama long", "llama wide", "qwen2 f16 tied"]


class Oracle:
    """A model of transformers, whose matrices' inputs and outputs and whose layers' outputs are kept."""

    def __init__(self, folder: Path, weights: DecoderWeights) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.inputs: dict[str, torch.Tensor] = {}
        self.outputs: dict[str, torch.Tensor] = {}
        for index, layer in enumerate(self.model.model.layers):
            layer.register_forward_hook(self._hook(f"{index}"))
            for module, kind in weights.architecture.kinds(index).items():
                if kind in INPUTS:
                    layer.get_submodule(module).register_forward_hook(self._hook(f"{index}.{kind}"))

    def _hook(self, name: str) -> Callable[..., None]:
        def keep(module: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            output.retain_grad()
            self.inputs[name], self.outputs[name] = inputs[0], output

        return keep

    def run(self, direction: Floats) -> torch.Tensor:
        """The logits; the gradient is that of their product with `direction`."""
        logits: torch.Tensor = self.model(torch.tensor(TOKENS)[None]).logits
        (logits * torch.tensor(direction)).sum().backward()
        return logits


def near(found: Floats, expected: torch.Tensor | None) -> None:
    assert expected is not None
    wanted = expected.detach().numpy()[0]
    assert np.linalg.norm(found - wanted) < 1e-4 * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", NAMES)
def test_activations_and_gradients_are_those_of_transformers(base, name):
    weights = DecoderWeights(MergedModel(open_checkpoint(base(name))))
    oracle, shape = Oracle(base(name), weights), weights.architecture
    direction = np.random.default_rng(5).standard_normal((len(TOKENS), shape.vocab), np.float32)
    logits = oracle.run(direction)
    hidden = weights.tensor(EMBEDDING)[TOKENS] * shape.embedding_scale
    layers = [DecoderLayer(weights, index) for index in range(shape.layers)]
    made = []
    for index, layer in enumerate(layers):
        near(hidden, oracle.inputs[f"{index}"])
        made.append(layer.forward(hidden))
        hidden = layer.output(made[-1])
        near(hidden, oracle.outputs[f"{index}"])
        multiplied = [inputs for block in made[-1] for inputs in (block.inputs, block.inner)]
        for projection, inputs in zip(layer.projections, multiplied, strict=True):
            for matrix in projection.names:
                near(inputs, oracle.inputs[f"{index}.{matrix}"])
    norm, output = RmsNorm(weights.tensor(weights.output_norm), shape.rms_eps), weights.tensor(weights.output)
    near(norm.forward(hidden) @ output.T / shape.logit_scale, logits)
    gradient = norm.backward(hidden, direction @ output / shape.logit_scale)
    for index in reversed(range(shape.layers)):
        near(gradient, oracle.outputs[f"{index}"].grad)
        gradient, gradients = layers[index].backward(made[index], gradient)
        assert gradients.keys() == set(shape.kinds(index).values()) & INPUTS.keys()
        for matrix, found in gradients.items():
            near(found, oracle.outputs[f"{index}.{matrix}"].grad)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_importance_covers_every_matrix(base, tmp_path, name):
    checkpoint, path = open_checkpoint(base(name)), tmp_path / "importance.gguf"
    write_importance(path, stats_of(base(name), [tuple(TOKENS[:40].tolist())]), ["test"])
    importance = fitting_importance(read_importance(path), checkpoint)
    matrices = {spec.target for spec in checkpoint.specs.values() if spec.is_matrix}
    matrices -= {EMBEDDING} if not checkpoint.architecture.tied else set()
    assert importance.sensitivity.keys() == matrices
    assert min(importance.sensitivity.values()) > 0
    assert all(importance.covariance(matrix) for matrix in matrices)


@pytest.mark.parametrize("name", ["lm_head", "model.embed_tokens", "model.layers.1.mlp.up_proj"])
def test_sensitivities_with_scales_predict_the_divergence(base, name):
    """The errors of a matrix of Granite are random. Its embedding, residuals and logits are scaled."""
    stats = stats_of(base("granite"), [tuple(TOKENS.tolist())])
    target = {"lm_head": "output.weight", "model.layers.1.mlp.up_proj": "blk.1.ffn_up.weight"}.get(name)
    model = AutoModelForCausalLM.from_pretrained(base("granite"), dtype=torch.float32)
    weights = model.get_submodule(name).weight
    exact, random, found, predicted = weights.detach().clone(), torch.Generator().manual_seed(2), [], []
    reference = _log_probabilities(model)
    for _ in range(4):
        error = 0.01 * torch.randn(exact.shape, generator=random)
        weights.data = exact + error
        changed = _log_probabilities(model)
        found.append(float((reference.exp() * (reference - changed)).sum(-1).mean()))
        if target:
            blocks = stats.covariances[target.replace("ffn_up", "ffn_gate")]
            shares = np.diagonal(blocks, axis1=1, axis2=2).ravel()
            predicted.append(stats.sensitivity[target] * float((error.numpy() ** 2 @ shares).sum()))
        else:
            energy = float(error[TOKENS].square().sum() / exact[TOKENS].square().sum())
            predicted.append(stats.lookup_sensitivity * energy)
    assert 0.7 < np.mean(found) / np.mean(predicted) < 1.4


@torch.no_grad()
def _log_probabilities(model: Any) -> torch.Tensor:
    return torch.log_softmax(model(torch.tensor(TOKENS)[None]).logits[0].double(), -1)
