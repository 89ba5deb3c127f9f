"""Test helpers: adapters saved and merged by PEFT, and tensors read back from a GGUF."""

import json
import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from peft import PeftConfig, PeftModel, get_peft_model
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


def as_gguf(base: Path, arrays: Arrays) -> Arrays:
    """A checkpoint's tensors with llama.cpp's names and its order of q and k rows."""
    config = json.loads((base / "config.json").read_text())
    kind = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}[config["model_type"]]
    names = gguf.get_tensor_name_map(kind, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    converted = {}
    for name, array in arrays.items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        module = name.split(".")[-2]
        permuted = kind is gguf.MODEL_ARCH.LLAMA and module in heads
        converted[names.get_name(name, (".weight", ".bias"))] = (
            llama_cpp_permute(array, heads[module]) if permuted else array
        )
    return converted


def llama_cpp_permute(weights: np.ndarray, n_head: int) -> np.ndarray:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    return (
        weights.reshape(n_head, 2, weights.shape[0] // n_head // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def read_gguf(path: Path) -> Arrays:
    """A GGUF's tensors as the gguf package reads them; quantized tensors are rows of bytes."""
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
