"""The NumPy decoder against transformers: hidden states, and the gradients of every matrix's outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from thirteen.convert.calibration.decoder import DecoderLayer, rms_norm, rms_norm_gradient
from thirteen.convert.source.architecture import INPUTS
from thirteen.stats.arrays import Floats
from transformers import AutoModelForCausalLM

from .weights import weights_of

TOKENS = np.random.default_rng(3).integers(0, 250, 90)
MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
NAMES = ["llama", "llama long", "llama wide", "qwen2", "qwen2 f16 tied"]


class Oracle:
    """A model of transformers, whose matrices' inputs and outputs are kept."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).model
        self.inputs: dict[str, torch.Tensor] = {}
        self.outputs: dict[str, torch.Tensor] = {}
        for index, layer in enumerate(self.model.layers):
            for name, module in (MODULES | NORMS).items():
                layer.get_submodule(module).register_forward_hook(self._hook(f"{index}.{name}"))

    def _hook(self, name: str) -> Callable[..., None]:
        def keep(module: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            output.retain_grad()
            self.inputs[name], self.outputs[name] = inputs[0], output

        return keep

    def run(self, tokens: Floats, direction: Floats) -> tuple[Floats, Floats, torch.Tensor]:
        """The embeddings and the normalized last hidden state; the gradient is that of its product."""
        embedded = self.model.embed_tokens(torch.tensor(tokens)[None]).detach().requires_grad_()
        last = self.model(inputs_embeds=embedded).last_hidden_state
        (last * torch.tensor(direction)).sum().backward()
        return embedded.detach().numpy()[0], last.detach().numpy()[0], embedded.grad


def near(found: Floats, expected: torch.Tensor) -> None:
    wanted = expected.detach().numpy()[0]
    assert np.linalg.norm(found - wanted) < 2e-4 * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", NAMES)
def test_activations_and_gradients_are_those_of_transformers(base: Callable[[str], Path], name: str) -> None:
    oracle, weights = Oracle(base(name)), weights_of(base(name))
    shape = weights.architecture
    direction = np.random.default_rng(5).standard_normal((len(TOKENS), shape.hidden), np.float32)
    hidden, last, embedding_gradient = oracle.run(TOKENS, direction)
    layers = [DecoderLayer(weights, index) for index in range(shape.layers)]
    before, made = [], []
    for index, layer in enumerate(layers):
        before.append(hidden)
        made.append(layer.forward(hidden))
        hidden = layer.output(made[-1])
        for matrix, field in INPUTS.items():
            near(getattr(made[-1], field), oracle.inputs[f"{index}.{matrix}"])
    norm = weights.tensor("output_norm.weight")
    assert np.allclose(rms_norm(hidden, norm, shape.rms_eps), last, atol=1e-3)
    gradient = rms_norm_gradient(hidden, direction * norm, shape.rms_eps)
    for index in reversed(range(shape.layers)):
        gradient, gradients = layers[index].backward(before[index], made[index], gradient)
        assert gradients.keys() == MODULES.keys() | NORMS.keys()
        for matrix, found in gradients.items():
            near(found, _gradient(oracle.outputs[f"{index}.{matrix}"]))
    near(gradient, embedding_gradient)


def _gradient(output: torch.Tensor) -> Any:
    assert output.grad is not None
    return output.grad


def test_a_sequence_of_one_token(base: Callable[[str], Path]) -> None:
    layer = DecoderLayer(weights_of(base("llama")), 0)
    hidden = np.random.default_rng(1).standard_normal((3, 64), np.float32)
    whole, first = (layer.output(layer.forward(states)) for states in (hidden, hidden[:1]))
    assert np.allclose(whole[:1], first, atol=1e-4)
