"""Merge of an adapter into a Hugging Face checkpoint, for vLLM, transformers and other loaders.

Tensors are merged in float32 and rounded once, to the type that each has in the base; those that a GGUF has
quantized become F16.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

from gguf import GGMLQuantizationType, TokenType

from ..errors import FileError
from ..files.atomic_write import atomic_write
from ..files.gguf.header import row_bytes
from ..files.output import check_empty, output_errors, sync_folder, sync_tree
from ..files.progress import Progress, no_progress
from ..files.received_files import MORE_TEMPLATES
from ..files.safetensors import write_blocks
from ..files.temporary_folder import locked_folder
from .adapter.delta import CONFIG_FILE
from .merged_model import MergedModel
from .provenance import AdapterSource, WeightsSource, provenance_entries
from .quantize.ggml import quantize_rows
from .source.checkpoint import FLOATS, Checkpoint, open_checkpoint, quantized_types
from .source_ids import DEFAULT_IDS, SourceIds
from .tensors import row_ranges
from .transformers_files import save_settings

# Files of a checkpoint that a merge copies: configuration, tokenizer, chat template and licence.
_COPIED = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*", "USE_POLICY*")
_WEIGHTS = "model.safetensors"
_TOKENIZER = [f"tokenizer.ggml.{key}" for key in ("tokens", "merges", "pre", "eos_token_id")]


@dataclass(frozen=True)
class MergeReport:
    """Result of a merge.

    Attributes:
        output: path of the folder.
        total_bytes: size of the weights' file.
        types: number of tensors by type.
        base: origin of the base.
        adapter: origin of the adapter.
        warnings: messages for the user.
    """

    output: str
    total_bytes: int
    types: dict[str, int]
    base: WeightsSource
    adapter: AdapterSource
    warnings: list[str]


def merge_checkpoint(
    base: Path, adapter: Path, output: Path, *, ids: SourceIds = DEFAULT_IDS, progress: Progress = no_progress
) -> MergeReport:
    """Merge an adapter into a base, and write the result as a folder of safetensors.

    Args:
        base: a folder of safetensors, or a GGUF, which is dequantized.
        adapter: a PEFT folder.
        output: a folder that does not exist or is empty; it is written atomically.
        ids: names of base and adapter in the provenance.
        progress: called with the weights done and in all.

    Raises:
        ThirteenError: an input is invalid, or the output cannot be written.
    """
    output = output.resolve()  # a folder cannot replace a link
    check_empty(output)  # so that it is neither the base nor the adapter
    checkpoint = open_checkpoint(base, ids.base)
    source = WeightsSource(checkpoint.id, checkpoint.sha256())
    model = MergedModel(checkpoint, adapter, ids.adapter, tie=False)  # the copied config.json says whether
    assert model.source is not None, "there is an adapter"
    stored = {name: checkpoint.stored_type(name) for name in model.base.specs}
    tensors = {
        name: (stored[name].name if stored[name] in FLOATS else "F16", spec.stored_shape)
        for name, spec in model.base.specs.items()
    }
    if quantized := quantized_types(checkpoint):
        names = ", ".join(f"{count} {name}" for name, count in quantized.items())
        model.warnings.append(f"the base is quantized ({names}): its weights are dequantized, to F16")
    origins = {"base": asdict(source), "adapter": asdict(model.source)}
    facts = {f"{name}.{key}": value for name, part in origins.items() for key, value in part.items()}
    metadata = {"format": "pt"} | provenance_entries(facts)
    parent = output.parent
    with output_errors(output), locked_folder(parent, f".{output.name}") as part:
        if base.is_file():
            save_settings(base, part)
        else:
            _copy_other_files(base, part)
        nbytes = sum(row_bytes(prod(shape), GGMLQuantizationType[type_]) for type_, shape in tensors.values())
        with atomic_write(part / _WEIGHTS, nbytes=nbytes) as file:
            write_blocks(file, tensors, metadata, _blocks(model, tensors, progress))
        if base.is_file():
            _check_settings(checkpoint, part)
        sync_tree(part)
        if output.is_dir():
            output.rmdir()  # empty; Windows replaces no folder
        part.replace(output)
        sync_folder(parent)
    types = [dtype for dtype, _ in tensors.values()]
    return MergeReport(
        output=str(output),
        total_bytes=(output / _WEIGHTS).stat().st_size,
        types={dtype: types.count(dtype) for dtype in sorted(set(types))},
        base=source,
        adapter=model.source,
        warnings=model.warnings,
    )


def _check_settings(base: Checkpoint, folder: Path) -> None:
    """Raise FileError if what was saved of a GGUF describes another model or tokenizer."""
    saved = open_checkpoint(folder)
    same = all(saved.tokenizer.get(key) == base.tokenizer.get(key) for key in _TOKENIZER)
    types = (one.tokenizer["tokenizer.ggml.token_type"].value for one in (saved, base))
    same &= all(one in (other, TokenType.UNUSED) for other, one in zip(*types, strict=True))
    if saved.architecture != base.architecture or not same or base.rope_tensors:
        raise FileError(f"{base.path}: transformers does not read its settings whole; merge its safetensors")


def _copy_other_files(base: Path, folder: Path) -> None:
    for pattern in _COPIED:
        for file in base.glob(pattern):
            # With an adapter's configuration, transformers would take the output for an adapter.
            if file.is_file() and not file.name.endswith(".index.json") and file.name != CONFIG_FILE:
                shutil.copyfile(file, folder / file.name)
    for file in (base / MORE_TEMPLATES).glob("*.jinja"):
        (folder / MORE_TEMPLATES).mkdir(exist_ok=True)
        shutil.copyfile(file, folder / MORE_TEMPLATES / file.name)


def _blocks(
    model: MergedModel, tensors: Mapping[str, tuple[str, tuple[int, ...]]], progress: Progress
) -> Iterator[bytes]:
    done, total = 0, sum(prod(shape) for _, shape in tensors.values())
    for name, (dtype, shape) in tensors.items():
        spec = model.base.specs[name]
        for start, stop in row_ranges(shape, spec.heads):
            rows = spec.to_stored(model.rows(name, start, stop))
            yield quantize_rows(rows.reshape(len(rows), -1), GGMLQuantizationType[dtype], f"tensor {name!r}")
            progress(done := done + rows.size, total)
