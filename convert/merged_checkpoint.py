"""Merge of an adapter into a Hugging Face checkpoint, for vLLM, transformers and other loaders.

Tensors are merged in float32 and rounded once, to the type that each has in the base.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

from gguf import GGMLQuantizationType

from ..errors import FileError
from ..files.cache_folder import temporary_folder
from ..files.gguf.header import row_bytes
from ..files.output import atomic_write, check_empty, output_errors, write_file
from ..files.progress import Progress, no_progress
from ..files.received_files import MORE_TEMPLATES
from ..files.safetensors import write_blocks
from .adapter.delta import CONFIG_FILE
from .merged_model import MergedModel
from .provenance import AdapterSource, WeightsSource, provenance_entries
from .quantize.ggml import quantize_rows
from .source.checkpoint import open_checkpoint
from .tensors import row_ranges

# Files of a checkpoint that a merge copies: configuration, tokenizer, chat template and licence.
_COPIED = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*", "USE_POLICY*")
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class MergeReport:
    """Result of a merge."""

    output: str  # path of the folder
    total_bytes: int  # size of the weights' file
    types: dict[str, int]  # number of tensors by type
    base: WeightsSource  # origin of the base
    adapter: AdapterSource  # origin of the adapter
    warnings: list[str]  # messages for the user


def merge_checkpoint(
    base: Path,
    adapter: Path,
    output: Path,
    *,
    ids: tuple[str, str] = ("", ""),
    progress: Progress = no_progress,
) -> MergeReport:
    """Merge an adapter into a base, and write the result as a folder of safetensors.

    The folder is written atomically; it may exist if it is empty.
    """
    output = output.resolve()  # a folder cannot replace a link
    check_empty(output)  # so that it is neither the base nor the adapter
    if base.is_file():
        raise FileError(f"{base}: a GGUF; --to-safetensors takes a base in safetensors")
    checkpoint = open_checkpoint(base, ids[0])
    source = WeightsSource(checkpoint.id, checkpoint.sha256())
    model = MergedModel(checkpoint, adapter, ids[1], tie=False)  # the copied config.json says whether
    assert model.source is not None, "there is an adapter"
    tensors = {
        name: (checkpoint.stored_type(name).name, spec.stored_shape)
        for name, spec in model.base.specs.items()
    }
    origins = {"base": asdict(source), "adapter": asdict(model.source)}
    facts = {f"{name}.{key}": value for name, part in origins.items() for key, value in part.items()}
    metadata = {"format": "pt"} | provenance_entries(facts)
    with output_errors(output), temporary_folder(f".{output.name}", output.parent, 0o777) as part:
        _copy_other_files(base, part)
        nbytes = sum(row_bytes(prod(shape), GGMLQuantizationType[type_]) for type_, shape in tensors.values())
        with atomic_write(part / _WEIGHTS, nbytes=nbytes) as file:
            write_blocks(file, tensors, metadata, _blocks(model, tensors, progress))
        if output.is_dir():
            output.rmdir()  # empty; Windows replaces no folder
        part.replace(output)
    types = [dtype for dtype, _ in tensors.values()]
    return MergeReport(
        output=str(output),
        total_bytes=(output / _WEIGHTS).stat().st_size,
        types={dtype: types.count(dtype) for dtype in sorted(set(types))},
        base=source,
        adapter=model.source,
        warnings=model.warnings,
    )


def _copy_other_files(base: Path, folder: Path) -> None:
    for pattern in _COPIED:
        for file in base.glob(pattern):
            # With an adapter's configuration, transformers would take the output for an adapter.
            if file.is_file() and not file.name.endswith(".index.json") and file.name != CONFIG_FILE:
                write_file(folder / file.name, file.read_bytes())
    for file in (base / MORE_TEMPLATES).glob("*.jinja"):
        (folder / MORE_TEMPLATES).mkdir(exist_ok=True)
        write_file(folder / MORE_TEMPLATES / file.name, file.read_bytes())


def _blocks(
    model: MergedModel, tensors: Mapping[str, tuple[str, tuple[int, ...]]], progress: Progress
) -> Iterator[bytes]:
    done, total = 0, sum(prod(shape) for _, shape in tensors.values())
    for name, (dtype, shape) in tensors.items():
        spec = model.base.specs[name]
        for start, stop in row_ranges(shape):
            rows = spec.to_stored(model.rows(name, start, stop))
            yield quantize_rows(rows.reshape(len(rows), -1), GGMLQuantizationType[dtype], f"tensor {name!r}")
            progress(done := done + rows.size, total)
