"""Importance matrix files in the GGUF format of llama.cpp's llama-imatrix.

For each matrix a file holds `NAME.in_sum2`, the sums of the squares of its inputs over many tokens, and
`NAME.counts`, the number of tokens. Our files also hold `NAME.sensitivity`, `NAME.in_cov` and `NAME.in_low`,
and for the token embedding `NAME.look_ups`, how often each row was looked up, and `NAME.look_up_sensitivity`.
llama.cpp ignores these.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

from ...errors import FileError, shorten
from ...files.gguf.header import Field, Header, TensorInfo, read_header
from ...files.received_files import file_sha256
from ...files.safetensors import read_items
from ...stats import Floats
from ..source.architecture import EMBEDDING, OUTPUT
from ..source.checkpoint import Checkpoint
from ..tensors import TensorSpec
from ..vocabulary.vocabulary_list import vocabulary_of
from ..write import write_arrays

_SUMS, _COUNTS, _SENSITIVITY = ".in_sum2", ".counts", ".sensitivity"
_COVARIANCE, _LOW_RANK = ".in_cov", ".in_low"
_F32_MAX = float(np.finfo(np.float32).max)
_COVARIANCE_MAX = 1e6  # inputs of length 1 have 1 at most
_LOOKUPS, _LOOKUP_SENSITIVITY = ".look_ups", ".look_up_sensitivity"
_DATASETS, _CHUNK_SIZE, _CHUNK_COUNT = "imatrix.datasets", "imatrix.chunk_size", "imatrix.chunk_count"
_SAME_INPUT = {"attn_k": "attn_q", "attn_v": "attn_q", "ffn_up": "ffn_gate"}
_OPTIONAL = (EMBEDDING, OUTPUT)  # llama-imatrix leaves them out
_TEXT, _U32, _ARRAY = GGUFValueType.STRING, GGUFValueType.UINT32, GGUFValueType.ARRAY
_F32, _LITTLE = GGMLQuantizationType.F32, np.dtype("<f4")


@dataclass(frozen=True)
class Covariance:
    """Covariance of the inputs of one matrix, over tokens whose inputs are normalized to length 1.

    It is full within blocks of neighbouring columns. Between them it is L L', with L of few columns.
    """

    blocks: Floats  # D, (blocks, width, width); the traces sum to 1
    low_rank: Floats  # L, (columns, rank); rank 0 where the coupling between blocks is unknown

    @property
    def variances(self) -> Floats:
        """Variance of each input, (columns,)."""
        return np.diagonal(self.blocks, axis1=1, axis2=2).ravel()

    def multiply(self, vectors: Floats) -> Floats:
        """The covariance times `vectors`, (columns, n)."""
        count, width, _ = self.blocks.shape
        low_rank = self.low_rank.reshape(count, width, -1)
        parts = vectors.reshape(count, width, -1)
        coupled = low_rank.transpose(0, 2, 1) @ parts  # (blocks, rank, n)
        product: Floats = self.blocks @ parts + low_rank @ (coupled.sum(0) - coupled)
        return product.reshape(vectors.shape)

    def emphasized(self, directions: Floats, weight: float) -> "Covariance":
        """The covariance with a larger weight on errors that correlate with inputs along `directions`.

        The added term is `weight` times the energy of the part of the output error that, over the tokens,
        correlates with the inputs' components along the directions. With an adapter's A as directions, that
        is the part of the error that resembles the adapter's effect.

        Args:
            directions: rows that span the subspace, (r, columns).
            weight: factor of the added term.
        """
        projected = self.multiply(np.ascontiguousarray(directions.T))  # (columns, r)
        energies, vectors = np.linalg.eigh(directions.astype(np.float64) @ projected)
        nonzero = energies > 1e-6 * energies.max(initial=0)
        # (columns, ≤ r)
        root = np.sqrt(weight) * (projected @ vectors[:, nonzero]) / np.sqrt(energies[nonzero])
        added = root.astype(np.float32).reshape(*self.blocks.shape[:2], -1)
        return Covariance(
            self.blocks + added @ added.transpose(0, 2, 1),
            np.concatenate([self.low_rank, root.astype(np.float32)], axis=1),
        )


@dataclass(frozen=True)
class Importance:
    """Statistics of the inputs of a model's matrices; mappings are keyed by tensor name in the GGUF."""

    path: Path  # the file
    sha256: str  # its hash
    # mean square of each input of a matrix, (columns,); all ones where it saw no token
    mean_squares: dict[str, Floats]
    datasets: tuple[str, ...]  # names of the calibration texts
    chunk_count: int  # number of chunks of the texts
    # nats of KL divergence per unit of a matrix's output error energy, with inputs of length 1; empty where
    # it was not measured
    sensitivity: dict[str, float]
    # nats per unit of error energy in the rows of the token embedding, with rows of length 1, where a row is
    # the start of a token's computation; None where it was not measured
    lookup_sensitivity: float | None = None
    # number of lookups of each row of the token embedding, (vocabulary,); None where they were not counted
    lookup_counts: Floats | None = None
    # location of the covariances' diagonal blocks in the file; may be empty
    covariance_blocks: dict[str, TensorInfo] = field(default_factory=dict)
    # location of their low-rank parts; may be empty
    covariance_low_rank: dict[str, TensorInfo] = field(default_factory=dict)

    def covariance(self, name: str) -> Covariance | None:
        """Covariance of a matrix's inputs, normalized to length 1; None where the file has none."""
        source = self.input_of(name)
        blocks, sketch = self.covariance_blocks.get(source), self.covariance_low_rank.get(source)
        if blocks is None:
            return None
        diagonal, low_rank = (
            _values(self.path, one, -_COVARIANCE_MAX, _COVARIANCE_MAX) if one else np.zeros(0, np.float32)
            for one in (blocks, sketch)
        )
        columns = prod(blocks.shape[:2])
        return Covariance(diagonal.reshape(blocks.shape), low_rank.reshape(columns, low_rank.size // columns))

    def input_of(self, name: str) -> str:
        """The matrix that stands for all those with the same input as this one; itself if it is fused."""
        for role, first in _SAME_INPUT.items():
            if f".{role}." in name and (other := name.replace(role, first)) in self.mean_squares:
                return other
        return name

    def energy_shares(self, name: str, columns: int) -> Floats:
        """Share of each input of a matrix in the energy of all, (columns,).

        It is taken over inputs normalized to length 1, or, where the file has no covariance, over the inputs
        as they are; without any statistics all inputs have the same share.
        """
        covariance, means = self.covariance(name), self.mean_squares.get(name)
        if covariance is not None:
            return covariance.variances
        if means is not None and means.any():
            return np.asarray(means / means.sum())
        return np.full(columns, 1 / columns, np.float32)

    def check_fits(self, specs: Iterable[TensorSpec]) -> None:
        """Check that this is the importance of the model with these tensors.

        Raises:
            FileError: it names a tensor that the model lacks, has other shapes, or lacks a matrix.
        """
        shapes = {spec.target: spec.shape for spec in specs if spec.is_matrix}
        found = [(name, len(means)) for name, means in self.mean_squares.items()]
        found += [(name, prod(blocks.shape[:2])) for name, blocks in self.covariance_blocks.items()]
        found += [(name, low_rank.shape[0]) for name, low_rank in self.covariance_low_rank.items()]
        here = {name: shape[1] for name, shape in shapes.items()}
        reasons = [
            f"{name!r} has {columns} columns there, but {here.get(name, 'none')} here"
            for name, columns in found
            if columns != here.get(name)
        ]
        counts, rows = self.lookup_counts, shapes[EMBEDDING][0]
        if counts is not None and len(counts) != rows:
            reasons.append(f"it counts {len(counts)} tokens, but this model has {rows}")
        if missing := [name for name in shapes if name not in self.mean_squares and name not in _OPTIONAL]:
            reasons.append(
                f"it lacks {len(missing)} of this model's {len(shapes)} matrices, such as {missing[0]!r}"
            )
        if reasons:
            raise FileError(f"{self.path}: the importance is for another model: {reasons[0]}")

    def select_tokens(self, tokens: Sequence[int]) -> "Importance":
        """The importance of the same model with only these rows of its token embedding.

        Everything else is kept: it describes the columns of matrices, over all calibration texts.
        """
        if self.lookup_counts is None:
            return self
        return replace(self, lookup_counts=self.lookup_counts[np.array(tokens, np.int64)])

    def tied(self) -> "Importance":
        """The importance of the same model with its output matrix stored as the token embedding."""
        if OUTPUT not in self.mean_squares:
            return self
        keyed = ("mean_squares", "sensitivity", "covariance_blocks", "covariance_low_rank")
        moved: dict[str, Any] = {
            part: {
                EMBEDDING if name == OUTPUT else name: value for name, value in getattr(self, part).items()
            }
            for part in keyed
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class ImportanceStats:
    """The content of an importance file to be written; see Importance for fields without a description."""

    sums: Mapping[str, Floats]  # sum of the squares of each input of a matrix, (columns,)
    tokens: int  # number of tokens in each sum
    chunk_size: int  # tokens per evaluated chunk
    chunk_count: int
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    lookup_sensitivity: float | None = None
    lookup_counts: NDArray[np.int64] | None = None
    # `Covariance.blocks`, keyed by the matrix that Importance.input_of() gives
    covariances: Mapping[str, Floats] = field(default_factory=dict)
    sketches: Mapping[str, Floats] = field(default_factory=dict)  # `Covariance.low_rank`, likewise


def read_importance(path: Path) -> Importance:
    """Read an importance file.

    Raises:
        FileError: the file is missing, damaged, no GGUF, or not of a dense model.
    """
    header = read_header(path)
    kind = header.metadata.get("general.type", "model")
    if kind != "imatrix":
        raise FileError(f"{path}: not an importance file: its general.type is {shorten(kind)}, not 'imatrix'")
    sums, counts = _vectors(header, _SUMS), _scalars(header, _COUNTS)
    if not sums or sums.keys() != counts.keys():
        raise FileError(f"{path}: needs both {_SUMS!r} and {_COUNTS!r} of each matrix")
    return Importance(
        path=path,
        sha256=file_sha256(path),
        mean_squares={name: _means(sums[name], round(counts[name])) for name in sums},
        datasets=tuple(header.array(_DATASETS, _TEXT)),
        chunk_count=header.value(_CHUNK_COUNT, _U32),
        sensitivity=_scalars(header, _SENSITIVITY),
        lookup_sensitivity=_scalars(header, _LOOKUP_SENSITIVITY).get(EMBEDDING),
        lookup_counts=_vectors(header, _LOOKUPS).get(EMBEDDING),
        covariance_blocks=_with_suffix(header, _COVARIANCE, 3),
        covariance_low_rank=_with_suffix(header, _LOW_RANK, 2),
    )


def fitting_importance(importance: Importance, base: Checkpoint) -> Importance:
    """The importance for this base, which may be that of all its tokens, or from before it was tied.

    Raises:
        FileError: it is for another model.
    """
    kept, counts = vocabulary_of(base), importance.lookup_counts
    if kept and counts is not None and len(counts) == kept.of:
        importance = importance.select_tokens(kept.tokens)
    if base.architecture.tied:
        importance = importance.tied()
    importance.check_fits(base.specs.values())
    return importance


def write_importance(target: Path, stats: ImportanceStats, datasets: Sequence[str]) -> str:
    """Write an importance file atomically, with the names of its texts: llama-quantize needs at least one.

    Returns:
        The file's SHA-256.

    Raises:
        OutputError: the target cannot be written, or the disk is full. Nothing is left behind then.
    """
    fields = {
        "general.type": Field("imatrix", _TEXT),
        _DATASETS: Field(list(datasets), _ARRAY, _TEXT),
        _CHUNK_COUNT: Field(stats.chunk_count, _U32),
        _CHUNK_SIZE: Field(stats.chunk_size, _U32),
    }
    tensors: dict[str, Any] = {}
    for name, sums in sorted(stats.sums.items()):
        tensors |= {name + _SUMS: sums, name + _COUNTS: [stats.tokens]}
    tensors |= {name + _SENSITIVITY: [value] for name, value in sorted(stats.sensitivity.items())}
    if stats.lookup_sensitivity is not None:
        tensors[EMBEDDING + _LOOKUP_SENSITIVITY] = [stats.lookup_sensitivity]
    if stats.lookup_counts is not None:
        tensors[EMBEDDING + _LOOKUPS] = stats.lookup_counts
    for name, blocks in sorted(stats.covariances.items()):
        tensors[name + _COVARIANCE] = blocks
        if (low_rank := stats.sketches.get(name)) is not None and low_rank.size:  # no empty tensors
            tensors[name + _LOW_RANK] = low_rank
    return write_arrays(target, fields, {name: np.asarray(one) for name, one in tensors.items()})


def _scalars(header: Header, suffix: str) -> dict[str, float]:
    """The values of the one-element tensors whose names end in `suffix`, by the rest of their names."""
    return {name: float(values[0]) for name, values in _vectors(header, suffix).items()}


def _vectors(header: Header, suffix: str) -> dict[str, Floats]:
    """The vectors whose names end in `suffix`, by the rest of their names; finite and not negative."""
    tensors = _with_suffix(header, suffix, 1).items()
    return {name: _values(header.path, tensor, 0, _F32_MAX) for name, tensor in tensors}


def _with_suffix(header: Header, suffix: str, dimensions: int) -> dict[str, TensorInfo]:
    """The tensors whose names end in `suffix`, by the rest of their names."""
    found = {name: tensor for name, tensor in header.tensors.items() if name.endswith(suffix)}
    for name, tensor in found.items():
        # A mixture of experts has a dimension more; of a dense model, it is 1.
        more, shape = tensor.shape[:-dimensions], tensor.shape[-dimensions:]
        if tensor.type is not _F32 or prod(more) != 1 or len(shape) < dimensions or len({*shape[1:]}) > 1:
            raise FileError(
                f"{header.path}: tensor {name!r} is {tensor.type.name} of the shape {tensor.shape}; only "
                "F32 of dense models is read"
            )
    return {name.removesuffix(suffix): tensor for name, tensor in found.items()}


def _values(path: Path, tensor: TensorInfo, lowest: float, highest: float) -> Floats:
    """The values of a tensor, flat; FileError if one is out of this range."""
    values = read_items(path, _LITTLE, prod(tensor.shape), tensor.offset)
    if (invalid := values[~((lowest <= values) & (values <= highest))]).size:
        raise FileError(f"{path}: tensor {tensor.name!r} holds {invalid[0]}")
    return values.astype(np.float32, copy=False)


def _means(sums: Floats, count: int) -> Floats:
    """The mean squares, (columns,); all ones without tokens, as in llama-quantize, and where all are 0."""
    return sums / np.float32(count) if count and sums.any() else np.ones_like(sums)
