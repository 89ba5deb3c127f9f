"""Models with random weights in any type, for timing only: all in layers, or all in the output matrix."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.convert.source.architecture import Architecture, tensor_specs
from thirteen.convert.source.model_metadata import metadata_fields
from thirteen.convert.tensors import TensorPlan, count_weights, plan_stored
from thirteen.convert.vocabulary.tokenizer_tables import BYTE_TEXTS
from thirteen.convert.write import write_gguf
from thirteen.files.gguf.header import Field

_SEED = 13
_TILE_SHAPE = (64, 1024)  # of the weights that are quantized; matrices repeat their bytes
_SCALE = 0.02  # standard deviation, that of Llama's initialization: nothing overflows
_MINIMAL_TYPE = GGMLQuantizationType.Q8_0  # of the tensors that all models have in common


def count_matrix_weights(architecture: Architecture) -> int:
    """Count the weights of all matrices."""
    return count_weights(spec for spec in tensor_specs(architecture).values() if spec.is_matrix)


def write_uniform_model(
    path: Path, architecture: Architecture, layer: GGMLQuantizationType, embedding: GGMLQuantizationType
) -> None:
    """Write a model with one type for the matrices in its layers and one for the token embedding.

    Args:
        path: the GGUF file to write.
        architecture: shapes; widths are multiples of the types' block sizes, with at least 256 tokens,
            without RoPE scaling.
        layer: type of every matrix in the layers.
        embedding: type of the token embedding, which is also the output matrix if they are tied.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    specs = tensor_specs(architecture).values()
    plans = [plan_stored(spec, layer if spec.target.startswith("blk.") else embedding) for spec in specs]
    write_gguf(path, random_fields(architecture), plans, random_blocks(plans))


def random_fields(architecture: Architecture) -> dict[str, Field]:
    """Metadata of a model of this architecture, with at least 256 tokens."""
    return metadata_fields(architecture) | _vocabulary(architecture.vocab)


def random_blocks(plans: Sequence[TensorPlan]) -> Iterator[bytes]:
    """Bytes of each tensor: norms of ones, and matrices of repeated tiles."""
    for plan in plans:
        if len(plan.shape) == 1:
            yield np.ones(plan.shape, np.float32).tobytes()
        else:
            tile = _tile(plan.type)
            repeats, rest = divmod(plan.nbytes, len(tile))
            yield from [tile] * repeats
            if rest:
                yield tile[:rest]


@cache
def _tile(type_: GGMLQuantizationType) -> bytes:
    """Random weights quantized by ggml, with equal importances, which some types require."""
    weights = np.random.default_rng(_SEED).normal(0, _SCALE, _TILE_SHAPE).astype(np.float32)
    return quantize_rows(weights, type_, "random weights", np.ones(_TILE_SHAPE[1], np.float32))


def _vocabulary(count: int) -> dict[str, Field]:
    """A byte-level vocabulary of `count` normal tokens: GPT-2's 256 byte tokens, then numbered ones."""
    text, array = GGUFValueType.STRING, GGUFValueType.ARRAY
    names = sorted(BYTE_TEXTS)
    names += [f"token{n}" for n in range(len(names), count)]
    return {
        "tokenizer.ggml.model": Field("gpt2", text),
        "tokenizer.ggml.pre": Field("llama-bpe", text),
        "tokenizer.ggml.tokens": Field(names, array, text),
        "tokenizer.ggml.token_type": Field([1] * count, array, GGUFValueType.INT32),
        "tokenizer.ggml.merges": Field(["a b"], array, text),
    }


@dataclass(frozen=True, slots=True)
class ProbeShape:
    """Shape of the models: by default as wide as Llama 3.2 1B, and larger than any processor's cache.

    Attributes:
        hidden: row width of most matrices, and of the output matrix.
        ffn: row width of the others.
        heads: attention heads of the model that is all layers.
        kv_heads: its KV heads.
        head_dim: width of a head.
        layers: layers of the model that is all layers.
        vocabulary: rows of the output matrix of the model that is all output.
    """

    hidden: int = 2048
    ffn: int = 8192
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 64
    layers: int = 3
    vocabulary: int = 1 << 16

    @property
    def minimal(self) -> Architecture:
        """As wide, but with next to no weights: its time per token is the overhead that costs exclude."""
        return Architecture(
            name="llama",
            layers=1,
            hidden=self.hidden,
            ffn=256,
            heads=1,
            kv_heads=1,
            head_dim=self.head_dim,
            vocab=512,
            context=4096,
            rms_eps=1e-5,
            rope_theta=500000.0,
            tied=True,
        )

    @property
    def all_layers(self) -> Architecture:
        """The model whose weights are in its layers."""
        return replace(
            self.minimal, layers=self.layers, ffn=self.ffn, heads=self.heads, kv_heads=self.kv_heads
        )

    @property
    def all_output(self) -> Architecture:
        """The model whose weights are in its output matrix, tied to the token embedding."""
        return replace(self.minimal, vocab=self.vocabulary)


def write_probe_models(
    folder: Path, shape: ProbeShape, types: Sequence[GGMLQuantizationType]
) -> Iterator[Path]:
    """Write the minimal model, then two models of each type: all layers, all output.

    Yields:
        The path of each model.

    Raises:
        OutputError: a file cannot be written, or the disk is full.
    """
    models = [("minimal", shape.minimal, _MINIMAL_TYPE, _MINIMAL_TYPE)]
    for type_ in types:
        models.append((f"{type_.name}-layers", shape.all_layers, type_, _MINIMAL_TYPE))
        models.append((f"{type_.name}-output", shape.all_output, _MINIMAL_TYPE, type_))
    for name, architecture, layer, embedding in models:
        path = folder / f"{name}.gguf"
        write_uniform_model(path, architecture, layer, embedding)
        yield path
