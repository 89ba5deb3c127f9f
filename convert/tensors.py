"""Tensors of a GGUF to write: names, shapes, ggml types, sizes and alignment."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from ..errors import FileError, OptionError
from ..files.gguf.header import row_bytes
from ..stats import Floats

# Of a block that is quantized at once. A constant: the file is bit-identical on any machine and with any
# number of threads.
BLOCK_WEIGHTS = 1 << 22
ALIGNMENT = 32  # of tensor data: the default of the metadata key general.alignment

_NAMES = (
    "F32 F16 BF16 Q8_0 Q6_K Q5_K Q5_1 Q5_0 Q4_K Q4_1 Q4_0 MXFP4 IQ4_NL IQ4_XS Q3_K IQ3_S IQ3_XXS Q2_K "
    "IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S TQ2_0 TQ1_0"
)
GGML_TYPES = {name: GGMLQuantizationType[name] for name in _NAMES.split()}

# For rows that are not a multiple of a type's 256-wide block, as in llama.cpp's `tensor_type_fallback`.
_FALLBACK = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a model."""

    source: str  # its name in the checkpoint
    target: str  # its name in the GGUF
    shape: tuple[int, ...]  # (rows, columns) or (rows,)
    heads: int = 0  # number of heads within which GGUF permutes the rows; 0 if it does not
    offset: float = 0.0  # what GGUF adds to the values that transformers has

    @property
    def is_matrix(self) -> bool:
        """Whether it may be quantized: vectors and the kernels of convolutions stay in F32."""
        return len(self.shape) == 2 and not self._is_kernel

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Its shape in a folder of safetensors: there a kernel of a convolution has its one input channel."""
        return (self.shape[0], 1, self.shape[1]) if self._is_kernel else self.shape

    def from_stored(self, rows: Floats) -> Floats:
        """Rows of a folder of safetensors, (n, …), with the shape and the values of a GGUF."""
        rows = rows.reshape(len(rows), *self.shape[1:])
        return rows + np.float32(self.offset) if self.offset else rows

    def to_stored(self, rows: Floats) -> Floats:
        """Invert from_stored(), but for the shape."""
        return rows - np.float32(self.offset) if self.offset else rows

    @property
    def _is_kernel(self) -> bool:
        return self.target.endswith(".conv.weight")


@dataclass(frozen=True)
class TensorPlan:
    """A tensor to write."""

    source: str  # its name in the checkpoint
    target: str  # its name in the GGUF
    shape: tuple[int, ...]  # (rows, columns) or (rows,)
    type: GGMLQuantizationType  # its ggml type
    nbytes: int  # its size, without padding
    offset: int = 0  # where it begins in the file; 0 before the file is laid out


def count_weights(specs: Iterable[TensorSpec]) -> int:
    """Number of weights of some tensors."""
    return sum(prod(spec.shape) for spec in specs)


def row_ranges(shape: tuple[int, ...], heads: int = 0) -> Iterator[tuple[int, int]]:
    """Split a tensor into blocks of about BLOCK_WEIGHTS weights; a permuted one between heads."""
    step = max(1, BLOCK_WEIGHTS // prod(shape[1:]))
    if heads:
        head_rows = shape[0] // heads
        step = max(1, step // head_rows) * head_rows
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def padded(nbytes: int) -> int:
    """Round a size up to the alignment of tensor data."""
    return nbytes + -nbytes % ALIGNMENT


def parse_type(name: str, *others: str) -> GGMLQuantizationType:
    """Parse the name of a ggml type, in upper or lower case.

    Raises:
        OptionError: there is no such type; the message lists the supported ones, and the `others` that the
            option takes.
    """
    if name.upper() not in GGML_TYPES:
        supported = ", ".join((*GGML_TYPES, *others))
        raise OptionError("type", f"no such type; supported: {supported}; {{size}} mixes types", repr(name))
    return GGML_TYPES[name.upper()]


def plan_uniform(specs: Iterable[TensorSpec], type_: GGMLQuantizationType) -> list[TensorPlan]:
    """Plan every matrix in `type_`, or in llama.cpp's fallback for its row length, and vectors in F32."""
    return [plan_tensor(spec, _compatible_type(spec, type_)) for spec in specs]


def plan_tensor(spec: TensorSpec, type_: GGMLQuantizationType) -> TensorPlan:
    """Plan one tensor in a type whose block divides its rows."""
    nbytes = prod(spec.shape[:-1]) * row_bytes(spec.shape[-1], type_)
    return TensorPlan(spec.source, spec.target, spec.shape, type_, nbytes)


def plan_stored(spec: TensorSpec, type_: GGMLQuantizationType) -> TensorPlan:
    """Plan a matrix in the type that it has in another file, and a vector in F32.

    Raises:
        FileError: matrices cannot be written in that type.
    """
    if type_.name not in GGML_TYPES:
        raise FileError(f"tensor {spec.target!r} is in {type_.name}, which cannot be written")
    return plan_tensor(spec, type_ if spec.is_matrix else GGMLQuantizationType.F32)


def _compatible_type(spec: TensorSpec, type_: GGMLQuantizationType) -> GGMLQuantizationType:
    if not spec.is_matrix:
        return GGMLQuantizationType.F32
    for candidate in (type_, GGML_TYPES[_FALLBACK.get(type_.name, type_.name)]):
        if spec.shape[-1] % GGML_QUANT_SIZES[candidate][0] == 0:
            return candidate
    return GGMLQuantizationType.F16
