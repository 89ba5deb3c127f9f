"""The models that a converted file is compared with, as temporary files in the cache."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bench.fidelity.model_roles import ModelRoles, ModelSource, model_sources
from ..convert.adapter.export import export_adapter
from ..convert.pipeline import ConversionReport, convert
from ..convert.provenance import SourceIds, has_searched_scales
from ..convert.source.checkpoint import open_checkpoint
from ..convert.tensors import count_weights
from ..convert.vocabulary.vocabulary_list import VocabularyList
from ..errors import AdapterError, OutputError
from ..files.gguf.header import Header, read_header
from ..files.progress import Stage, no_progress
from ..files.temporary_folder import temporary_folder
from .importance_cache import PRECISION


@dataclass(frozen=True, slots=True)
class ComparisonModels:
    """The models of a comparison.

    Attributes:
        folder: the folder of the temporary files.
        sources: the files by role.
        warnings: what cannot be compared, and why.
    """

    folder: Path
    sources: ModelRoles[ModelSource]
    warnings: list[str]


@contextmanager
def comparison_models(  # noqa: PLR0913 - inputs of the conversion
    conversion: ConversionReport,
    base: Path,
    *,
    adapter: Path | None = None,
    vocabulary: VocabularyList | None = None,
    importance: Path | None = None,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> Iterator[ComparisonModels]:
    """Make the models that a converted file is compared with; they are removed at the end of the block.

    Args:
        conversion: report of the conversion.
        base: the base that was converted.
        adapter: the adapter that was merged; without one, only the model in high precision is made.
        vocabulary: the tokens that the file keeps; by default all.
        importance: the importance that the file was quantized with.
        threads: number of worker threads.
        stage: makes the progress callback of each stage.

    Raises:
        OutputError: there is no space for the files.
        ThirteenError: an input is invalid.
    """
    shipped = Path(conversion.output)
    ids = SourceIds(conversion.base.id, conversion.adapter.id if conversion.adapter else "")
    with temporary_folder("fidelity") as folder:
        header = read_header(shipped)
        _check_space(folder, header, base, adapted=adapter is not None)

        def model(title: str, **options: Any) -> Path:
            target = folder / f"{title}.gguf"
            convert(base, target, ids=ids, threads=threads, progress=stage(title), **options)
            return target

        others, warnings = dict[str, Path | None](), list[str]()
        reference = model(f"reference {PRECISION}", quantization=PRECISION, adapter=adapter)
        if adapter is not None:
            others["base"] = model(f"base {PRECISION}", quantization=PRECISION)
            others["shipped_base"] = model(
                "base quantized alike",
                quantization=shipped,
                vocabulary=vocabulary,
                importance=importance,
                search_scales=has_searched_scales(header.metadata),
            )
            others["adapter"] = _export(adapter, base, vocabulary, folder / "adapter.gguf", ids, warnings)
        yield ComparisonModels(folder, model_sources(reference, shipped, **others), warnings)


def _check_space(folder: Path, header: Header, base: Path, *, adapted: bool) -> None:
    """Raise OutputError if the models do not fit on the disk; an exported adapter is negligible."""
    metadata_bytes = header.file_bytes - sum(tensor.nbytes for tensor in header.tensors.values())
    # The models in PRECISION have the whole vocabulary, of which the converted file may keep a part.
    precise_bytes = 2 * count_weights(open_checkpoint(base).specs.values()) + metadata_bytes
    needed = 2 * precise_bytes + header.file_bytes if adapted else precise_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(f"{folder.parent}: needs {needed:,} bytes of scratch space, but {free:,} are free")


def _export(  # noqa: PLR0913, PLR0917 - inputs of the conversion
    adapter: Path,
    base: Path,
    vocabulary: VocabularyList | None,
    target: Path,
    ids: SourceIds,
    warnings: list[str],
) -> Path | None:
    """Export the adapter as a run-time LoRA; if it has no such form, add a warning and return None."""
    try:
        export_adapter(adapter, base, target, adapter_id=ids.adapter, base_id=ids.base, vocabulary=vocabulary)
    except AdapterError as error:
        warnings.append(f"the adapter at run time was not measured: {error}")
        return None
    return target
