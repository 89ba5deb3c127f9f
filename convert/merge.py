"""Merge of an adapter into a Hugging Face checkpoint, for vLLM, transformers and other loaders.

Tensors are merged in float32 and rounded once, to the type that each has in the base.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

from gguf import GGMLQuantizationType

from ..errors import CheckpointError, OutputError
from ..files.atomic_write import atomic_write
from ..files.disk_sync import sync_folder, sync_tree
from ..files.output import check_empty, output_errors
from ..files.progress import Progress, no_progress
from ..files.safetensors import write_blocks
from ..files.temporary_folder import locked_folder
from .adapter.delta import CONFIG_FILE
from .merged_view import MergedView
from .pipeline import BLOCK_WEIGHTS
from .provenance import DEFAULT_IDS, AdapterSource, SourceIds, WeightsSource, provenance_entries
from .quantize.ggml import quantize_rows
from .source.checkpoint import INDEX, FolderCheckpoint, open_checkpoint
from .source.tokenizer import MORE_TEMPLATES
from .vocabulary.checkpoint_files import trim_checkpoint_files
from .vocabulary.vocabulary_list import VocabularyList
from .vocabulary.vocabulary_metadata import VocabularySize, vocabulary_of, vocabulary_size

SHARD_BYTES = 5_000_000_000  # the default of huggingface_hub, which uploads and downloads file by file
# Files of a checkpoint that a merge copies: configuration, tokenizer, chat template and licence.
_COPIED = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*", "USE_POLICY*")
_ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}

_Tensors = dict[str, tuple[str, tuple[int, ...]]]  # type and shape of each tensor, by name


@dataclass(frozen=True)
class MergeReport:
    """Result of a merge.

    Attributes:
        output: path of the folder.
        files: names of the weight files.
        total_bytes: size of all tensors.
        types: number of tensors by type.
        base: origin of the base.
        adapter: origin of the adapter; None without one.
        vocabulary: how many tokens are kept of how many; None if all are.
        warnings: messages for the user.
    """

    output: str
    files: list[str]
    total_bytes: int
    types: dict[str, int]
    base: WeightsSource
    adapter: AdapterSource | None
    vocabulary: VocabularySize | None
    warnings: list[str]


def merge_checkpoint(  # noqa: PLR0913 - options of a merge, each with its default
    base: Path,
    adapter: Path | None,
    output: Path,
    *,
    vocabulary: VocabularyList | None = None,
    ids: SourceIds = DEFAULT_IDS,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = no_progress,
) -> MergeReport:
    """Merge an adapter into a base, or trim its vocabulary, and write the result as a folder of safetensors.

    Args:
        base: a folder of safetensors.
        adapter: a PEFT folder, if any.
        output: a folder that does not exist or is empty; it is written atomically.
        vocabulary: the tokens that the checkpoint keeps; by default all.
        ids: names of base and adapter in the provenance.
        shard_bytes: maximum size of a weight file, unless a single tensor is larger.
        progress: called with the weights done and in all.

    Raises:
        ThirteenError: an input is invalid, or the output cannot be written.
    """
    _check_output(output, base, *([adapter] if adapter else []))
    checkpoint = open_checkpoint(base, ids.base)
    if not isinstance(checkpoint, FolderCheckpoint):
        raise CheckpointError(f"{base}: a merge takes a folder of safetensors, not a GGUF")
    source = WeightsSource(checkpoint.id, checkpoint.sha256())
    model = MergedView(checkpoint, adapter, ids.adapter, vocabulary)
    tensors = {
        name: (checkpoint.stored_type(name).name, tuple(spec.shape))
        for name, spec in model.base.specs.items()
    }
    metadata = {"format": "pt"} | _provenance(source, model.source, vocabulary_size(model.base))
    with _atomic_folder(output) as part:
        _copy_other_files(base, part)
        if vocabulary is not None:
            trim_checkpoint_files(base, part, vocabulary, vocabulary_of(model.base))
        files = _write_shards(part, model, _shards(tensors, shard_bytes), metadata, progress)
    types = [dtype for dtype, _ in tensors.values()]
    return MergeReport(
        output=str(output),
        files=files,
        total_bytes=_nbytes(tensors),
        types={dtype: types.count(dtype) for dtype in sorted(set(types))},
        base=source,
        adapter=model.source,
        vocabulary=vocabulary_size(model.base),
        warnings=model.warnings,
    )


def _check_output(output: Path, *sources: Path) -> None:
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: is a file, not a folder")
    check_empty(output)
    for source in sources:
        if output.absolute() == source.absolute():
            raise OutputError(f"{output}: is an input of this command: choose another name")


@contextmanager
def _atomic_folder(output: Path) -> Iterator[Path]:
    """Open a temporary folder that takes the name `output` when the block ends without an error."""
    parent = output.absolute().parent
    with output_errors(output), locked_folder(parent, f".{output.name}") as part:
        yield part
        sync_tree(part)
        part.replace(output)
        sync_folder(parent)


def _copy_other_files(base: Path, folder: Path) -> None:
    for pattern in _COPIED:
        for file in base.glob(pattern):
            # With an adapter's configuration, transformers would take the output for an adapter.
            if file.is_file() and not file.name.endswith(".index.json") and file.name != CONFIG_FILE:
                shutil.copyfile(file, folder / file.name)
    for file in (base / MORE_TEMPLATES).glob("*.jinja"):
        (folder / MORE_TEMPLATES).mkdir(exist_ok=True)
        shutil.copyfile(file, folder / MORE_TEMPLATES / file.name)


def _shards(tensors: _Tensors, max_bytes: int) -> list[_Tensors]:
    """Divide the tensors, in order, into shards of at most `max_bytes`."""
    shards: list[_Tensors] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and _nbytes(shards[-1] | {name: tensor}) > max_bytes:
            shards.append({})
        shards[-1][name] = tensor
    return shards


def _nbytes(tensors: _Tensors) -> int:
    return sum(_ITEM_BYTES[dtype] * prod(shape) for dtype, shape in tensors.values())


def _write_shards(
    folder: Path, model: MergedView, shards: list[_Tensors], metadata: Mapping[str, str], progress: Progress
) -> list[str]:
    """Write all shards, and their index if there are several; return the names of the weight files."""
    total = sum(prod(shape) for shard in shards for _, shape in shard.values())
    done = 0

    def advance(weights: int) -> None:
        nonlocal done
        progress(done := done + weights, total)

    count = len(shards)
    names = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    if count == 1:
        names = ["model.safetensors"]
    for name, shard in zip(names, shards, strict=True):
        with atomic_write(folder / name) as file:
            write_blocks(file, shard, metadata, _blocks(model, shard, advance))
    if count > 1:
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": sum(map(_nbytes, shards))}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")
    return names


def _blocks(model: MergedView, tensors: _Tensors, advance: Callable[[int], None]) -> Iterator[bytes]:
    for name, (dtype, shape) in tensors.items():
        step = max(1, BLOCK_WEIGHTS // prod(shape[1:]))
        for start in range(0, shape[0], step):
            rows = model.rows(name, start, min(start + step, shape[0]))
            yield quantize_rows(rows.reshape(len(rows), -1), GGMLQuantizationType[dtype], f"tensor {name!r}")
            advance(rows.size)


def _provenance(
    base: WeightsSource, adapter: AdapterSource | None, size: VocabularySize | None
) -> dict[str, str]:
    parts = {"base": base, "adapter": adapter, "vocabulary": size}
    values = {
        f"{name}.{key}": value for name, part in parts.items() if part for key, value in asdict(part).items()
    }
    return provenance_entries(values)
