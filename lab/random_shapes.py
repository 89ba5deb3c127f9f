"""Write a model with a base's exact shapes and random weights, to measure speed and memory before a download.

python lab/random_shapes.py NAME TYPES OUTPUT.gguf

NAME is that of a base in the catalogue. TYPES is one type for all matrices, two for layers and embedding
(Q4_K/Q6_K), a plan (thirteen convert --dry-run --json), or a GGUF of these shapes. For one of llama.cpp's
mixes, write F16 and quantize it with llama.cpp's llama-quantize.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import typer
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from thirteen.convert.source.architecture import Architecture, tensor_specs
from thirteen.convert.source.model_config import from_config
from thirteen.convert.tensors import TensorPlan, TensorSpec, parse_type, plan_tensor, plan_uniform
from thirteen.convert.write import write_gguf
from thirteen.errors import FileError, OutputError
from thirteen.files.gguf.header import MAGIC, Field, read_header
from thirteen.files.json_file import read_json
from thirteen.files.output import check_target
from thirteen.files.received_files import file_sha256
from thirteen.lab.random_model import random_blocks, random_fields
from thirteen.models.catalogue import catalogue


def write_shape_model(name: str, types: str, output: Path) -> str:
    """Write a model with a base's shapes and random weights.

    Args:
        name: name of the base in the catalogue.
        types: types of the matrices: a type as for `thirteen convert --type`; `LAYERS/EMBEDDING`, two types;
            the path of the output of `thirteen convert --dry-run --json`, or of a GGUF with the same tensors.
        output: the GGUF to write.

    Returns:
        The file's SHA-256.

    Raises:
        FileError: the catalogue has no such base; the GGUF given as `types` is damaged.
        OutputError: the type does not exist, the plan is not one or does not fit the base, or the file
            cannot be written.
    """
    architecture = from_config(catalogue().base(name).config, name)
    plans = _plans(architecture, types)
    check_target(output, *([Path(types)] if Path(types).exists() else []))
    _write(output, architecture, plans, f"{name}: shapes only, weights are random")
    return file_sha256(output)


def _write(path: Path, architecture: Architecture, plans: Sequence[TensorPlan], name: str) -> None:
    fields = random_fields(architecture) | {"general.name": Field(name, GGUFValueType.STRING)}
    divisors = architecture.rope_tensors
    specs = (TensorSpec(name, name, one.shape) for name, one in divisors.items())
    before = [plan_tensor(spec, GGMLQuantizationType.F32) for spec in specs]
    blocks = chain((one.tobytes() for one in divisors.values()), random_blocks(plans))
    write_gguf(path, fields, [*before, *plans], blocks)


def _plans(architecture: Architecture, types: str) -> Sequence[TensorPlan]:
    specs, path = list(tensor_specs(architecture).values()), Path(types)
    if path.is_file():
        return _plans_from_file(specs, path)
    layers, _, embedding = types.partition("/")
    in_layers = [spec for spec in specs if spec.target.startswith("blk.")]
    others = [spec for spec in specs if not spec.target.startswith("blk.")]
    return [
        *plan_uniform(in_layers, parse_type(layers)),
        *plan_uniform(others, parse_type(embedding or layers)),
    ]


def _plans_from_file(specs: Sequence[TensorSpec], path: Path) -> Sequence[TensorPlan]:
    with path.open("rb") as file:
        is_gguf = file.read(len(MAGIC)) == MAGIC
    tensors = read_header(path).tensors if is_gguf else {}
    types = {name: tensor.type.name for name, tensor in tensors.items()} if is_gguf else _read_plan(path)
    if unpaired := {spec.target for spec in specs} ^ {one for one in types if not one.startswith("rope_")}:
        raise OutputError(f"{path}: plan of another model: only one of the two has tensor {min(unpaired)!r}")
    return [_plan_as_read(spec, types[spec.target], path) for spec in specs]


def _read_plan(path: Path) -> dict[str, str]:
    """Read the type of each tensor from the output of `thirteen convert --dry-run --json`."""
    try:
        tensors = read_json(path)["tensors"]
        return {str(tensor["target"]): str(tensor["type"]) for tensor in tensors}
    except (FileError, KeyError, TypeError):
        raise OutputError(
            f"{path}: neither a GGUF nor the output of thirteen convert --dry-run --json"
        ) from None


def _plan_as_read(spec: TensorSpec, type_name: str, path: Path) -> TensorPlan:
    type_ = parse_type(type_name)
    block, columns = GGML_QUANT_SIZES[type_][0], spec.shape[-1]
    if columns % block:
        raise OutputError(
            f"{path}: {spec.target!r}: rows of {columns} do not fit {type_name}, which has blocks of {block}"
        )
    if len(spec.shape) == 1 and type_name != "F32":
        raise OutputError(f"{path}: {spec.target!r}: is a vector, which must be F32, not {type_name}")
    return plan_tensor(spec, type_)


def main(name: str, types: str, output: Path) -> None:
    """Write a model, and print its hash."""
    print(write_shape_model(name, types, output))


if __name__ == "__main__":
    typer.run(main)
