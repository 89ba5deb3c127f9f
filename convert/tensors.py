"""The tensors of a GGUF to be written: names, shapes, ggml types, sizes and alignment."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from ..errors import ModelFileError, OutputError
from ..files.gguf_header import Header, row_bytes


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the model: its names on both sides and its shape, (rows, columns) or (rows,)."""

    source: str
    target: str
    shape: tuple[int, ...]
    heads: int = 0  # rows are permuted within this many heads; 0 = not permuted


Type = GGMLQuantizationType


# llama.cpp's own fallbacks for rows that are no multiple of a 256-wide block (`tensor_type_fallback`).
_FALLBACK = {
    **dict.fromkeys(
        (
            Type.IQ1_S,
            Type.IQ1_M,
            Type.IQ2_XXS,
            Type.IQ2_XS,
            Type.IQ2_S,
            Type.IQ3_XXS,
            Type.IQ3_S,
            Type.IQ4_XS,
        ),
        Type.IQ4_NL,
    ),
    **dict.fromkeys((Type.Q2_K, Type.Q3_K, Type.TQ1_0, Type.TQ2_0), Type.Q4_0),
    Type.Q4_K: Type.Q5_0,
    Type.Q5_K: Type.Q5_1,
    Type.Q6_K: Type.Q8_0,
}


_NAMES = (
    "F32 F16 BF16 Q8_0 Q6_K Q5_K Q5_1 Q5_0 Q4_K Q4_1 Q4_0 MXFP4 IQ4_NL IQ4_XS Q3_K IQ3_S IQ3_XXS Q2_K "
    "IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S TQ2_0 TQ1_0"
)


TYPES = {name: Type[name] for name in _NAMES.split()}


@dataclass(frozen=True)
class TensorPlan:
    """One tensor to be written: its names on both sides, shape, type and size."""

    source: str
    target: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    nbytes: int


def parse_type(name: str) -> GGMLQuantizationType:
    """The ggml type of that name, in any case.

    Raises:
        OutputError: no such type; the message lists those there are.
    """
    if name.upper() not in TYPES:
        raise OutputError(f"--type {name!r}: no such type; there are {', '.join(TYPES)}")
    return TYPES[name.upper()]


def plan_uniform(specs: Iterable[TensorSpec], type_: GGMLQuantizationType) -> list[TensorPlan]:
    """Every matrix in `type_`, or what llama.cpp falls back to for its row length; vectors in F32."""
    return [plan_tensor(spec, _fitting(spec, type_)) for spec in specs]


def plan_tensor(spec: TensorSpec, type_: GGMLQuantizationType) -> TensorPlan:
    """The plan of one tensor in one type that fits its rows."""
    nbytes = prod(spec.shape[:-1]) * row_bytes(spec.shape[-1], type_)
    return TensorPlan(spec.source, spec.target, spec.shape, type_, nbytes)


def plan_like(plans: Sequence[TensorPlan], model: Header) -> list[TensorPlan]:
    """The same tensors in the types that they have in `model`, a GGUF of the same model or one adapted from it.

    Raises:
        ModelFileError: `model` has other tensors or shapes, or a type that cannot be converted to.
    """
    if unpaired := model.tensors.keys() ^ {plan.target for plan in plans}:
        raise ModelFileError(f"{model.path}: is of another model: only one of the two has {min(unpaired)!r}")
    return [_like(plan, model) for plan in plans]


def _like(plan: TensorPlan, model: Header) -> TensorPlan:
    tensor = model.tensors[plan.target]
    if tensor.shape != plan.shape:
        raise ModelFileError(
            f"{model.path}: is of another model: {plan.target!r} has the shape {tensor.shape} there, "
            f"{plan.shape} here"
        )
    if tensor.type.name not in TYPES or (len(plan.shape) == 1 and tensor.type is not Type.F32):
        raise ModelFileError(
            f"{model.path}: {plan.target!r} is {tensor.type.name}, which nothing is converted to"
        )
    return replace(plan, type=tensor.type, nbytes=tensor.nbytes)


def _fitting(spec: TensorSpec, type_: GGMLQuantizationType) -> GGMLQuantizationType:
    if len(spec.shape) == 1:
        return Type.F32
    for candidate in (type_, _FALLBACK.get(type_, type_)):
        if spec.shape[-1] % GGML_QUANT_SIZES[candidate][0] == 0:
            return candidate
    return Type.F16


ALIGNMENT = 32
