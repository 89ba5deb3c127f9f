"""Models with random weights in any type, written at disk speed, for timing only."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from ...convert.quantize.ggml import quantize_rows
from ...convert.source.architecture import Architecture, metadata_fields, tensor_specs
from ...convert.tensors import TensorPlan, count_weights, plan_stored
from ...convert.vocabulary.tokenizer_tables import BYTE_TEXTS
from ...convert.write import write_gguf
from ...files.gguf.header import Field

_SEED = 13
_TILE_SHAPE = (64, 1024)  # of the weights that are quantized; matrices repeat their bytes
_SCALE = 0.02  # standard deviation, that of Llama's initialization: nothing overflows


def count_matrix_weights(architecture: Architecture) -> int:
    """Count the weights of all matrices."""
    return count_weights(spec for spec in tensor_specs(architecture).values() if len(spec.shape) > 1)


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
