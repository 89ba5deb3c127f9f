"""How much each column of each matrix matters: files in the GGUF format of llama.cpp's llama-imatrix.

For each matrix a file holds `NAME.in_sum2`, the sums of the squares of its inputs over many tokens, and
`NAME.counts`, how many those were. Ours also hold `NAME.sensitivity`, `NAME.in_cov` and `NAME.in_low`, and of
the token embedding `NAME.look_ups`, how often each row was looked up, and `NAME.look_up_sensitivity`. All of
these llama.cpp passes over.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

from ...errors import ModelFileError
from ...files.gguf_header import MAGIC, Field, Header, TensorInfo, read_header
from ...files.hashing import file_sha256
from ..source.architecture import EMBEDDING, OUTPUT
from ..tensors import TensorPlan, TensorSpec
from ..write import write_gguf
from .covariance import Covariance, no_sketch

Vector = NDArray[np.float32]

SUMS, COUNTS, SENSITIVITY, COVARIANCE, LOW = ".in_sum2", ".counts", ".sensitivity", ".in_cov", ".in_low"
LOOK_UPS, LOOK_UP_SENSITIVITY = ".look_ups", ".look_up_sensitivity"
_SAME_INPUT = {"attn_k": "attn_q", "attn_v": "attn_q", "ffn_up": "ffn_gate"}
DATASETS, CHUNK, CHUNKS = "imatrix.datasets", "imatrix.chunk_size", "imatrix.chunk_count"
OPTIONAL = (EMBEDDING, OUTPUT)  # which llama-imatrix leaves out
_TEXT, _U32, _ARRAY = GGUFValueType.STRING, GGUFValueType.UINT32, GGUFValueType.ARRAY
_F32 = GGMLQuantizationType.F32


@dataclass(frozen=True)
class Importance:
    """What a model's matrices were given, by their names in its GGUF.

    Attributes:
        path: the file.
        sha256: its hash.
        means: of each matrix, the mean square of every input, (columns,); all ones where it met no token.
        counts: of each matrix, how many tokens it met.
        datasets: what the model read.
        chunk: tokens that it read together.
        chunks: how many times.
        sensitivity: of each matrix, nats of KL divergence for a unit of output error energy where the input
            has length 1; empty where that was not measured.
        look_up_sensitivity: nats for a unit of error energy in the rows of the token embedding, where they
            have length 1 and a token's row is what its computation begins with; None likewise.
        look_ups: how often each row of the token embedding was looked up, (vocabulary,); None likewise.
        blocks: where the covariances of the inputs lie in the file; empty where there are none.
        low: where their parts of low rank lie; likewise.
    """

    path: Path
    sha256: str
    means: dict[str, Vector]
    counts: dict[str, int]
    datasets: tuple[str, ...]
    chunk: int
    chunks: int
    sensitivity: dict[str, float]
    look_up_sensitivity: float | None = None
    look_ups: Vector | None = None
    blocks: dict[str, TensorInfo] = field(default_factory=dict)
    low: dict[str, TensorInfo] = field(default_factory=dict)

    def covariance(self, name: str) -> Covariance | None:
        """How a matrix' inputs vary together where they have length 1; None where the file does not tell."""
        given = self.given(name)
        if given not in self.blocks:
            return None
        blocks = self._array(self.blocks[given])
        return Covariance(blocks, self._array(self.low[given]) if given in self.low else no_sketch(blocks))

    def given(self, name: str) -> str:
        """The first of the matrices that are given the same as this one."""
        for role, first in _SAME_INPUT.items():
            name = name.replace(f".{role}.", f".{first}.")
        return name

    def _array(self, tensor: TensorInfo) -> Vector:
        values = np.fromfile(self.path, "<f4", prod(tensor.shape), offset=tensor.offset)
        if not np.isfinite(values).all():
            raise ModelFileError(f"{self.path}: tensor {tensor.name!r} holds what is not finite")
        return values.reshape(tensor.shape).astype(np.float32, copy=False)

    def shares(self, name: str, columns: int) -> Vector:
        """What each input of a matrix has of the energy of all, (columns,).

        That is over tokens whose inputs have length 1, or, where the file does not tell that, over inputs as
        they are; where it tells nothing, inputs are all alike.
        """
        covariance, means = self.covariance(name), self.means.get(name)
        if covariance is not None:
            return covariance.variances
        if means is not None and means.any():
            shares: Vector = means / means.sum()
            return shares
        return np.full(columns, 1 / columns, np.float32)

    def fit(self, specs: Iterable[TensorSpec]) -> None:
        """Check that this is the importance of the model with these tensors.

        Raises:
            ModelFileError: it names what the model has not, has other columns, or lacks a matrix.
        """
        shapes = {spec.target: spec.shape for spec in specs if len(spec.shape) == 2}
        columns = {name: shape[1] for name, shape in shapes.items()}
        for name in (*self.means, *self.sensitivity):
            if name not in columns:
                raise self._foreign(f"it has {name!r}, which this model has not")
        if self.look_ups is not None and len(self.look_ups) != shapes[EMBEDDING][0]:
            raise self._foreign(
                f"it counts {len(self.look_ups)} tokens, but this model has {shapes[EMBEDDING][0]}"
            )
        for name, means in self.means.items():
            if len(means) != columns[name]:
                raise self._foreign(f"{name!r} has {len(means)} columns there, but {columns[name]} here")
        for name, block in self.blocks.items():
            if len(block.shape) != 3 or block.shape[1] != block.shape[2]:
                raise ModelFileError(f"{self.path}: tensor {block.name!r} has the shape {block.shape}")
            if block.type is not _F32 or columns.get(name) != block.shape[0] * block.shape[1]:
                raise self._foreign(f"the covariance of {name!r} has the shape {block.shape}")
        for name, low in self.low.items():
            if name not in self.blocks or len(low.shape) != 2 or low.type is not _F32:
                raise ModelFileError(f"{self.path}: tensor {low.name!r} has the shape {low.shape}")
            if columns.get(name) != low.shape[0]:
                raise self._foreign(f"the covariance of {name!r} has the shape {low.shape}")
        missing = [name for name in columns if name not in self.means and name not in OPTIONAL]
        if missing:
            raise self._foreign(
                f"it lacks {len(missing)} of this model's {len(columns)} matrices, such as {missing[0]!r}"
            )

    def _foreign(self, reason: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: the importance is for another model: {reason}")


def read_importance(path: Path) -> Importance:
    """Read an importance file.

    Raises:
        ModelFileError: it is missing, damaged, of the older format, or not the importance of a dense model.
    """
    header = _header(path)
    sums, tokens = _vectors(header, SUMS, least=0), _numbers(header, COUNTS, least=0)
    if odd := sums.keys() ^ tokens.keys():
        raise ModelFileError(f"{path}: {min(odd)!r} has not both {SUMS!r} and {COUNTS!r}")
    if not sums:
        raise ModelFileError(f"{path}: it holds no tensor {SUMS!r}")
    counts = {name: round(tokens[name]) for name in sums}
    return Importance(
        path=path,
        sha256=file_sha256(path),
        means={name: _means(sums[name], count) for name, count in counts.items()},
        counts=counts,
        datasets=tuple(_value(header, DATASETS, _ARRAY, _TEXT)),
        chunk=_value(header, CHUNK, _U32),
        chunks=_value(header, CHUNKS, _U32),
        sensitivity=_numbers(header, SENSITIVITY, least=0),
        look_up_sensitivity=_numbers(header, LOOK_UP_SENSITIVITY, least=0).get(EMBEDDING),
        look_ups=_vectors(header, LOOK_UPS, least=0).get(EMBEDDING),
        blocks=_ending(header, COVARIANCE),
        low=_ending(header, LOW),
    )


def write_importance(  # noqa: PLR0913 - what there is to be said of an importance
    target: Path,
    sums: Mapping[str, Vector],
    counts: Mapping[str, int],
    *,
    chunk: int,
    chunks: int,
    datasets: Sequence[str],
    sensitivity: Mapping[str, float] | None = None,
    look_up_sensitivity: float | None = None,
    look_ups: NDArray[np.int64] | None = None,
    covariances: Mapping[str, Covariance] | None = None,
) -> str:
    """Write an importance file, which appears whole or not at all.

    Args:
        target: the file.
        sums: of each matrix, the sum of the squares of every input, (columns,).
        counts: of each matrix, over how many tokens.
        chunk: tokens that the model read together.
        chunks: how many times.
        datasets: names of what it read, at least one: llama-quantize refuses a file without.
        sensitivity: see Importance.
        look_up_sensitivity: likewise.
        look_ups: likewise.
        covariances: by the first of the matrices with the same input, see Importance.covariance().

    Returns:
        The file's SHA-256.

    Raises:
        OutputError: the target cannot be written, or the disk is full. Nothing is left behind then.
    """
    assert datasets and sums.keys() == counts.keys(), (datasets, sums.keys() ^ counts.keys())
    fields = {
        "general.type": Field("imatrix", _TEXT),
        DATASETS: Field(list(datasets), _ARRAY, _TEXT),
        CHUNKS: Field(chunks, _U32),
        CHUNK: Field(chunk, _U32),
    }
    vectors: dict[str, Any] = {}
    for name in sorted(sums):
        vectors |= {name + SUMS: sums[name], name + COUNTS: [counts[name]]}
    vectors |= {name + SENSITIVITY: [value] for name, value in sorted((sensitivity or {}).items())}
    if look_up_sensitivity is not None:
        vectors[EMBEDDING + LOOK_UP_SENSITIVITY] = [look_up_sensitivity]
    if look_ups is not None:
        vectors[EMBEDDING + LOOK_UPS] = look_ups
    arrays = {name: np.asarray(values, "<f4") for name, values in vectors.items()}  # (columns,) or (1,)
    for name, of in sorted((covariances or {}).items()):
        arrays[name + COVARIANCE] = np.asarray(of.blocks, "<f4")
        if of.low.size:  # the format has no empty tensors
            arrays[name + LOW] = np.asarray(of.low, "<f4")
    plans = [TensorPlan(name, name, array.shape, _F32, array.nbytes) for name, array in arrays.items()]
    # An empty architecture is left out: the file is no model.
    return write_gguf(target, "", fields, plans, (array.tobytes() for array in arrays.values()))


def _header(path: Path) -> Header:
    try:
        header = read_header(path)
    except ModelFileError:
        if not _begins_otherwise(path):
            raise
        raise ModelFileError(
            f"{path}: not a GGUF file; if it is llama-imatrix's older format, this makes it one: "
            f"llama-imatrix --model MODEL --in-file {path} --output-format gguf -o importance.gguf"
        ) from None
    kind = header.metadata.get("general.type", "model")
    if kind != "imatrix":
        raise ModelFileError(
            f"{path}: not an importance file: its general.type is {kind!r:.80}, not 'imatrix'"
        )
    return header


def _begins_otherwise(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) != MAGIC
    except OSError:
        return False


def _value(header: Header, key: str, type_: GGUFValueType, element: GGUFValueType | None = None) -> Any:
    field = header.fields.get(key)
    if field is None:
        raise ModelFileError(f"{header.path}: metadata key {key!r} is missing")
    if (field.type, field.element) != (type_, element):
        raise ModelFileError(f"{header.path}: metadata key {key!r} is {field.value!r:.80}, of another type")
    return field.value


def _numbers(header: Header, suffix: str, least: float = -np.inf) -> dict[str, float]:
    """The tensors of one number with names that end so, by the rest of their names."""
    vectors = _vectors(header, suffix, least)
    for name, values in vectors.items():
        if len(values) != 1:
            raise ModelFileError(
                f"{header.path}: tensor {name + suffix!r} has {len(values)} numbers, not one"
            )
    return {name: float(values[0]) for name, values in vectors.items()}


def _vectors(header: Header, suffix: str, least: float = -np.inf) -> dict[str, Vector]:
    """The tensors whose names end so, by the rest of their names; all finite, and at least `least`."""
    vectors = {name: _vector(header.path, tensor) for name, tensor in _ending(header, suffix).items()}
    for name, values in vectors.items():
        wrong = values[~(np.isfinite(values) & (values >= least))]
        if wrong.size:
            raise ModelFileError(f"{header.path}: tensor {name + suffix!r} holds {wrong[0]}")
    return vectors


def _ending(header: Header, suffix: str) -> dict[str, TensorInfo]:
    """The tensors whose names end so, by the rest of their names."""
    return {name.removesuffix(suffix): t for name, t in header.tensors.items() if name.endswith(suffix)}


def _vector(path: Path, tensor: TensorInfo) -> Vector:
    if tensor.type is not _F32:
        raise ModelFileError(f"{path}: tensor {tensor.name!r} is {tensor.type.name}, not F32")
    rows = prod(tensor.shape[:-1])
    if rows != 1:
        raise ModelFileError(
            f"{path}: tensor {tensor.name!r} is of {rows} experts; only dense models are supported"
        )
    values = np.fromfile(path, "<f4", tensor.shape[-1], offset=tensor.offset)  # (columns,)
    return values.astype(np.float32, copy=False)


def _means(sums: Vector, count: int) -> Vector:
    """The mean squares, (columns,); all ones where there was nothing, as llama-quantize has them."""
    return sums / np.float32(count) if count else np.ones_like(sums)
