"""Random models for measuring the cost of a weight: one that is all layers, one that is all output matrix."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gguf import GGMLQuantizationType

from ...convert.source.architecture import Architecture
from .random_model import write_uniform_model

_MINIMAL_TYPE = GGMLQuantizationType.Q8_0  # of the tensors that all models have in common


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
            scaling=None,
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
