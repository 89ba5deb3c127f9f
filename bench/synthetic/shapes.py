"""A base's exact shapes with random weights: to measure speed and memory before a model is downloaded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from gguf import GGML_QUANT_SIZES

from ...convert.source.architecture import Architecture, from_config, tensor_specs
from ...convert.tensors import GGML_TYPES, TensorPlan, TensorSpec, parse_type, plan_like, plan_tensor, plan_uniform
from ...errors import OutputError
from ...files.cache_folder import cache_dir
from ...files.gguf_header import MAGIC, read_header
from ...files.hashing import file_sha256
from ...files.json_file import read_json
from ...files.output import check_target
from ...models.catalogue import catalogue
from ..peers.llama_quantize import MIXES
from ..peers.llama_quantize_sizes import mix_tensor_types
from .random_model import write_planned_model

# A name that is a type's as well is that type throughout, as everywhere else.
_MIXES = {stock.name for stock in MIXES} - GGML_TYPES.keys()
_PLAN_MAX = 1 << 24  # bytes of a plan that are read; one of a 3B model has less than a hundredth


@contextmanager
def temporary_shape_models(name: str, types: Sequence[str]) -> Iterator[tuple[Path, ...]]:
    """Models of a base's shapes that are there for a while, in a folder of the cache.

    Args:
        name: see write_shape_model().
        types: likewise, of each model; what is named twice is one file.

    Raises:
        ThirteenError: as write_shape_model() does.
    """
    with TemporaryDirectory(prefix="shapes-", dir=cache_dir()) as folder:
        files = {
            of: Path(folder) / f"{name}-{number}-{Path(of).stem}.gguf"
            for number, of in enumerate(dict.fromkeys(types))
        }
        for of, path in files.items():
            write_shape_model(name, of, path)
        yield tuple(files[of] for of in types)


def write_shape_model(name: str, types: str, output: Path) -> str:
    """Write a model of a base's shapes.

    Args:
        name: the base's in the catalogue.
        types: of the matrices: one type for all, as `thirteen convert --type` has it; `LAYERS/EMBEDDING`; one
            of llama.cpp's mixes, as Q4_K_M; the path of what `thirteen plan --json` printed; or of a GGUF
            with these tensors.
        output: the GGUF to write.

    Returns:
        The file's SHA-256.

    Raises:
        DownloadError: the catalogue has no such base.
        OutputError: there is no such type or mix, a plan is not one or does not fit, or the file cannot be
            written.
        ModelFileError: the GGUF to be like is damaged, or of another shape.
    """
    base = catalogue().base(name)
    architecture = from_config(base.config, name)
    plans = _plans(architecture, types)
    check_target(output, *([Path(types)] if Path(types).exists() else []))
    write_planned_model(output, architecture, plans, f"{name}: shapes only, weights are random")
    return file_sha256(output)


def _plans(architecture: Architecture, types: str) -> Sequence[TensorPlan]:
    specs, path = list(tensor_specs(architecture).values()), Path(types)
    if not path.is_file():
        if types.upper() in _MIXES:
            return _mixed(architecture, specs, types.upper())
        layers, _, embedding = types.partition("/")
        return [
            *_of_type(specs, layers, inside=True),
            *_of_type(specs, embedding or layers, inside=False),
        ]
    with path.open("rb") as file:
        begin = file.read(len(MAGIC))
    if begin == MAGIC:
        header = read_header(path)
        header.tensors.pop("rope_freqs.weight", None)  # written by the shape's own rule
        return plan_like(specs, header)
    return _planned(specs, path)


def _mixed(architecture: Architecture, specs: Sequence[TensorSpec], mix: str) -> Sequence[TensorPlan]:
    """As llama.cpp's quantizer chooses, which wants a file to look at."""
    with TemporaryDirectory(prefix="shapes-", dir=cache_dir()) as folder:
        model = Path(folder) / "model.gguf"
        write_planned_model(model, architecture, plan_uniform(specs, parse_type("Q4_0")))
        types = mix_tensor_types(model, mix)
    return [plan_tensor(spec, types[spec.target]) for spec in specs]


def _of_type(specs: Sequence[TensorSpec], type_: str, *, inside: bool) -> Sequence[TensorPlan]:
    """Those inside the layers, or those outside, in one type as far as their rows take it."""
    return plan_uniform(
        [spec for spec in specs if spec.target.startswith("blk.") == inside], parse_type(type_)
    )


def _planned(specs: Sequence[TensorSpec], path: Path) -> Sequence[TensorPlan]:
    said = _read_plan(path)
    if odd := {spec.target for spec in specs} ^ (said.keys() - {"rope_freqs.weight"}):
        raise OutputError(f"{path}: is a plan of another model: only one of the two has {min(odd)!r}")
    return [_as_planned(spec, said[spec.target], path) for spec in specs]


def _read_plan(path: Path) -> dict[str, str]:
    """Types by tensor."""
    try:
        tensors = read_json(path, OutputError)["tensors"]
        return {str(tensor["target"]): str(tensor["type"]) for tensor in tensors}
    except (OutputError, KeyError, TypeError):
        raise OutputError(f"{path}: neither a GGUF nor a plan, as thirteen plan --json prints it") from None


def _as_planned(spec: TensorSpec, type_: str, path: Path) -> TensorPlan:
    wanted = parse_type(type_)
    block, columns = GGML_QUANT_SIZES[wanted][0], spec.shape[-1]
    if columns % block:
        raise OutputError(f"{path}: {spec.target!r}: rows of {columns} take no {type_}, of blocks of {block}")
    if len(spec.shape) == 1 and type_ != "F32":
        raise OutputError(f"{path}: {spec.target!r}: is a vector, which {type_} is not for; it stays F32")
    return plan_tensor(spec, wanted)
