"""Test helpers: adapters saved and merged by PEFT, and tensors read back from a GGUF."""

import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from thirteen.convert.source.checkpoint import open_checkpoint
from transformers import AutoModelForCausalLM

Arrays = dict[str, np.ndarray]


def load(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def save_random_adapter(base: Path, config: PeftConfig, folder: Path, step: float = 0.2) -> Path:
    """Save an adapter with a random step added to every trained parameter, so that its delta is not zero."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(7)
        model = get_peft_model(load(base), config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(step * torch.randn_like(parameter))
        model.save_pretrained(folder)
    return folder


def peft_merged(base: Path, folder: Path) -> Arrays:
    """The base's tensors after PEFT's merge, by transformers' names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = PeftModel.from_pretrained(load(base), folder).merge_and_unload()
    return {name: tensor.numpy() for name, tensor in merged.state_dict().items()}


def base_tensors(base: Path) -> Arrays:
    """The base's tensors in float32, by transformers' names."""
    return {name: tensor.numpy() for name, tensor in load(base).state_dict().items()}


def merged_tensors(path: Path) -> Arrays:
    """A GGUF's tensors in float32, by transformers' names and in its order of rows."""
    checkpoint = open_checkpoint(path)
    return {name: checkpoint.rows(name, 0, spec.shape[0]) for name, spec in checkpoint.specs.items()}


def read_gguf(path: Path) -> Arrays:
    """A GGUF's tensors as the gguf package reads them; quantized tensors are rows of bytes."""
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
