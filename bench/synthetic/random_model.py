"""Models of random weights in any type, written as quickly as the disk takes them: to be timed, not asked."""

from collections.abc import Iterator, Sequence
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

from ...convert.quantize.ggml import quantize_rows
from ...convert.source.architecture import Architecture, metadata_fields, rope_factors, tensor_specs
from ...convert.tensors import TensorPlan, TensorSpec, plan_tensor
from ...convert.write import write_gguf
from ...files.gguf_header import Field

_ROPE_FACTORS = "rope_freqs.weight"
_SEED = 13
_TILE = (64, 1024)  # weights that are quantized; a matrix repeats their bytes
_SCALE = 0.02  # standard deviation, as Llama is initialised: nothing overflows


def count_matrix_weights(architecture: Architecture) -> int:
    """How many weights the matrices have, all together."""
    shapes = (spec.shape for spec in tensor_specs(architecture).values())
    return sum(prod(shape) for shape in shapes if len(shape) > 1)


def write_uniform_model(
    path: Path, architecture: Architecture, layer: GGMLQuantizationType, embedding: GGMLQuantizationType
) -> None:
    """Write a model whose layers' matrices are of one type and whose token embedding is of another.

    Args:
        path: the GGUF file to write.
        architecture: with widths that are multiples of the types' blocks, and at least 256 tokens.
        layer: of every matrix in the layers.
        embedding: of the token embedding, which is the output matrix too if they are tied.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    specs = tensor_specs(architecture).values()
    write_planned_model(
        path, architecture, [plan_tensor(spec, _type(spec, layer, embedding)) for spec in specs]
    )


def write_planned_model(
    path: Path, architecture: Architecture, plans: Sequence[TensorPlan], name: str = ""
) -> None:
    """Write a model whose tensors are as planned.

    Args:
        path: the GGUF file to write.
        architecture: with at least 256 tokens.
        plans: of all its tensors.
        name: of the model, for its metadata.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    fields = metadata_fields(architecture) | _vocabulary(architecture.vocab)
    if name:
        fields["general.name"] = Field(name, GGUFValueType.STRING)
    factors = rope_factors(architecture)
    if factors is not None:
        spec = TensorSpec(_ROPE_FACTORS, _ROPE_FACTORS, factors.shape)
        plans = [plan_tensor(spec, GGMLQuantizationType.F32), *plans]
    write_gguf(path, architecture.name, fields, plans, _blocks(plans, factors))


def _type(
    spec: TensorSpec, layer: GGMLQuantizationType, embedding: GGMLQuantizationType
) -> GGMLQuantizationType:
    if len(spec.shape) == 1:
        return GGMLQuantizationType.F32
    return layer if spec.target.startswith("blk.") else embedding


def _blocks(plans: Sequence[TensorPlan], factors: NDArray[np.float32] | None) -> Iterator[bytes]:
    """The tensors' bytes: rotary factors as they are, norms of one, matrices of repeated tiles."""
    tiles = {plan.type: _tile(plan.type) for plan in plans if len(plan.shape) > 1}
    for plan in plans:
        if plan.target == _ROPE_FACTORS and factors is not None:
            yield factors.tobytes()
            continue
        if len(plan.shape) == 1:
            yield np.ones(plan.shape, np.float32).tobytes()
            continue
        tile = tiles[plan.type]
        whole, rest = divmod(plan.nbytes, len(tile))
        yield from [tile] * whole
        if rest:
            yield tile[:rest]


@cache
def _tile(type_: GGMLQuantizationType) -> bytes:
    """Random weights as ggml quantizes them; some types want an importance of each column, here all alike."""
    weights = np.random.default_rng(_SEED).normal(0, _SCALE, _TILE).astype(np.float32)  # (rows, columns)
    return quantize_rows(weights, type_, "random weights", np.ones(_TILE[1], np.float32))


def _vocabulary(count: int) -> dict[str, Field]:
    """A byte-level vocabulary of `count` ordinary tokens: the 256 bytes first, as GPT-2 writes them."""
    text, array = GGUFValueType.STRING, GGUFValueType.ARRAY
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = [*map(chr, shown), *(chr(256 + n) for n in range(256 - len(shown)))]
    names += [f"token{n}" for n in range(len(names), count)]
    return {
        "tokenizer.ggml.model": Field("gpt2", text),
        "tokenizer.ggml.pre": Field("llama-bpe", text),
        "tokenizer.ggml.tokens": Field(names, array, text),
        "tokenizer.ggml.token_type": Field([1] * count, array, GGUFValueType.INT32),
        "tokenizer.ggml.merges": Field(["a b"], array, text),
    }
