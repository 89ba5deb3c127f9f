"""The merged model as an ordinary Hugging Face checkpoint, for whatever else loads those.

Merged in float32, tensor by tensor, and rounded once to the type that the base keeps each tensor in.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from tempfile import mkdtemp

from gguf import GGMLQuantizationType

from ..errors import CheckpointError, OutputError
from ..files.progress import Progress, no_progress
from ..files.safetensors import write_blocks
from .merged_view import AdapterSource, MergedView, WeightsSource
from .pipeline import BLOCK_WEIGHTS
from .quantize.ggml import quantize_rows
from .source.checkpoint import INDEX, FolderCheckpoint, open_checkpoint

SHARD_BYTES = 5_000_000_000  # as transformers has it
# What a checkpoint has beside its weights, and a merge does not change.
_BESIDE = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*", "USE_POLICY*")
_ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}

Shapes = dict[str, tuple[str, tuple[int, ...]]]  # type and shape of tensors by name


@dataclass(frozen=True)
class MergeReport:
    """What a merge wrote, of what, and what is to be known about it."""

    output: str
    files: list[str]  # of weights
    total_bytes: int
    types: dict[str, int]  # tensors by type
    base: WeightsSource
    adapter: AdapterSource
    warnings: list[str]


def merge_checkpoint(  # noqa: PLR0913 - what a merge can be told, each with its default
    base: Path,
    adapter: Path,
    output: Path,
    *,
    base_id: str = "",
    adapter_id: str = "",
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = no_progress,
) -> MergeReport:
    """Merge `adapter` into `base` and write the folder `output`.

    Args:
        base: a folder of safetensors.
        adapter: a PEFT folder.
        output: a folder that does not exist yet, or is empty; it appears whole or not at all.
        base_id: the base's name in the provenance; its folder's name unless given.
        adapter_id: likewise the adapter's.
        shard_bytes: the most bytes of a file of weights; a tensor is never divided.
        progress: called with the weights done and in all.

    Raises:
        ThirteenError: one of its kinds, for whatever is wrong with an input or the output.
    """
    _check_output(output, base, adapter)
    checkpoint = open_checkpoint(base, base_id)
    if not isinstance(checkpoint, FolderCheckpoint):
        raise CheckpointError(f"{base}: a merge to a checkpoint takes a folder of safetensors, not a GGUF")
    source = WeightsSource(checkpoint.id, checkpoint.sha256())
    model = MergedView(checkpoint, adapter, adapter_id)
    assert model.source is not None, "an adapter was given"
    shapes = {name: (checkpoint.dtype(name), tuple(spec.shape)) for name, spec in checkpoint.specs.items()}
    metadata = {"format": "pt"} | _provenance(source, model.source)
    part = _part_folder(output)
    try:
        _copy_beside(base, part)
        files = _write(model, _shards(shapes, shard_bytes), part, metadata, progress)
        part.replace(output)
    except OSError as failure:
        raise OutputError(f"{output}: cannot write: {failure.strerror or failure}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)  # gone when it has taken the output's name
    types = [dtype for dtype, _ in shapes.values()]
    return MergeReport(
        output=str(output),
        files=files,
        total_bytes=_bytes(shapes),
        types={dtype: types.count(dtype) for dtype in sorted(set(types))},
        base=source,
        adapter=model.source,
        warnings=model.warnings,
    )


def _check_output(output: Path, base: Path, adapter: Path) -> None:
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: is a file, not a folder")
    if output.is_dir() and any(output.iterdir()):
        raise OutputError(f"{output}: the folder is not empty: choose another")
    for source in (base, adapter):
        if output.absolute() == source.absolute():
            raise OutputError(f"{output}: is read here: choose another name")


def _part_folder(output: Path) -> Path:
    try:
        return Path(mkdtemp(prefix=f".{output.name}.", dir=output.absolute().parent))
    except OSError as failure:
        raise OutputError(f"{output}: cannot write: {failure.strerror or failure}") from None


def _copy_beside(base: Path, folder: Path) -> None:
    """Copy configuration, tokenizer and licence."""
    folder.chmod(0o755)  # a temporary folder is its owner's alone
    for pattern in _BESIDE:
        for file in base.glob(pattern):
            if file.is_file() and not file.name.endswith(".index.json"):
                shutil.copyfile(file, folder / file.name)


def _shards(shapes: Shapes, most: int) -> list[Shapes]:
    """The tensors in their order, in as few parts of at most so many bytes."""
    shards: list[Shapes] = [{}]
    for name, shape in shapes.items():
        if shards[-1] and _bytes(shards[-1] | {name: shape}) > most:
            shards.append({})
        shards[-1][name] = shape
    return shards


def _bytes(shapes: Shapes) -> int:
    return sum(_ITEM_BYTES[dtype] * prod(shape) for dtype, shape in shapes.values())


def _write(
    model: MergedView, shards: list[Shapes], folder: Path, metadata: Mapping[str, str], progress: Progress
) -> list[str]:
    """Write all shards, and their index if there are several; returns their names."""
    total = sum(prod(shape) for shard in shards for _, shape in shard.values())
    done = 0

    def tell(weights: int) -> None:
        nonlocal done
        progress(done := done + weights, total)

    of = len(shards)
    names = (
        [f"model-{n:05}-of-{of:05}.safetensors" for n in range(1, of + 1)]
        if of > 1
        else ["model.safetensors"]
    )
    for name, shard in zip(names, shards, strict=True):
        write_blocks(folder / name, shard, metadata, _blocks(model, shard, tell))
    if of > 1:
        where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": sum(map(_bytes, shards))}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")
    return names


def _blocks(model: MergedView, shapes: Shapes, tell: Callable[[int], None]) -> Iterator[bytes]:
    for name, (dtype, shape) in shapes.items():
        step = max(1, BLOCK_WEIGHTS // prod(shape[1:]))
        for start in range(0, shape[0], step):
            rows = model.rows(name, start, min(start + step, shape[0]))
            yield quantize_rows(rows.reshape(len(rows), -1), GGMLQuantizationType[dtype], f"tensor {name!r}")
            tell(rows.size)


def _provenance(base: WeightsSource, adapter: AdapterSource) -> dict[str, str]:
    told = {f"thirteen.base.{key}": str(value) for key, value in asdict(base).items()}
    return told | {
        f"thirteen.adapter.{key}": str(value) for key, value in asdict(adapter).items() if value is not None
    }
