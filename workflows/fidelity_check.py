"""What a converted file kept, measured right after its conversion: its fidelity beside high precision.

The models that this takes besides the file are made for the while, in a folder of the cache.
"""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..bench.fidelity import fidelity
from ..bench.fidelity.fidelity import FidelityReport
from ..bench.fidelity.model_roles import ModelFile
from ..convert.adapter.export import export_adapter
from ..convert.pipeline import ConversionReport, convert
from ..errors import AdapterError, OutputError, ThirteenError
from ..files.cache_folder import cache_dir
from ..files.gguf_header import read_header
from ..files.progress import Stage, no_progress
from .importance_cache import PRECISION

POSITIONS = 1024  # of about ten texts: with fewer, the intervals would be too narrow


@dataclass(frozen=True, slots=True)
class FidelityCheck:
    """What was measured of a file.

    Attributes:
        fidelity: beside the adapted model in high precision; None if it could not be measured.
        warnings: what could not be measured, and why.
    """

    fidelity: FidelityReport | None
    warnings: list[str]


def check_fidelity(  # noqa: PLR0913 - what a conversion can be told
    made: ConversionReport,
    base: Path,
    *,
    adapter: Path | None = None,
    importance: Path | None = None,
    threads: int | None = None,
    stage: Stage = lambda name: no_progress,
) -> FidelityCheck:
    """Measure what a conversion's file kept of the model and of the adapter, merged and at run time.

    The file is there and good: whatever stands in the way of measuring it makes a warning, not an error.

    Args:
        made: the conversion's report.
        base: what was converted; see convert.pipeline.convert().
        adapter: what was merged into it; without one, only the model's own loss is measured.
        importance: by which it was quantized.
        threads: that compute.
        stage: gives what to call with the progress of each stage.
    """
    shipped, warnings = Path(made.output), list[str]()
    try:
        with tempfile.TemporaryDirectory(prefix="proof-", dir=cache_dir()) as name:
            folder = Path(name)
            _check_room(folder, shipped, adapted=adapter is not None)

            def model(title: str, **how: Any) -> Path:
                target = folder / f"{title}.gguf"
                how |= {"base_id": made.base.id, "adapter_id": made.adapter.id if made.adapter else ""}
                convert(base, target, threads=threads, progress=stage(title), **how)
                return target

            others: dict[str, Path | None] = {}
            reference = model(f"reference {PRECISION}", type_=PRECISION, adapter=adapter)
            if adapter is not None:
                others["base"] = model(f"base {PRECISION}", type_=PRECISION)
                others["shipped_base"] = model("base quantized alike", like=shipped, importance=importance)
                others["adapter"] = _exported(adapter, base, folder / "adapter.gguf", made, warnings)
            report = fidelity.run_fidelity(
                reference, shipped, **others, tokens=POSITIONS, threads=threads, progress=stage("fidelity")
            )
            return FidelityCheck(_without(folder, report), warnings)
    except (ThirteenError, OSError) as error:
        return FidelityCheck(None, [f"fidelity was not measured: {error}"])


def _check_room(folder: Path, shipped: Path, *, adapted: bool) -> None:
    """Raise OutputError if the disk has not the room for the models; the adapter's few bytes do not count."""
    header = read_header(shipped)
    metadata = header.file_bytes - sum(tensor.nbytes for tensor in header.tensors.values())
    precise = 2 * header.weights + metadata
    needed = 2 * precise + header.file_bytes if adapted else precise
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder.parent}: it needs {needed:,} bytes for a while, but {free:,} are free on its disk"
        )


def _exported(
    adapter: Path, base: Path, target: Path, made: ConversionReport, warnings: list[str]
) -> Path | None:
    """The adapter as a run-time LoRA; None and a warning if none can say what it does."""
    assert made.adapter is not None
    try:
        export_adapter(adapter, base, target, adapter_id=made.adapter.id, base_id=made.base.id)
    except AdapterError as error:
        warnings.append(f"the adapter at run time was not measured: {error}")
        return None
    return target


def _without(folder: Path, report: FidelityReport) -> FidelityReport:
    """The report with plain names for the files of a folder, which will be gone when it is read."""

    def plain(path: str) -> str:
        return Path(path).name if Path(path).parent == folder else path

    def named(file: ModelFile) -> ModelFile:
        adapter = file.adapter and replace(file.adapter, path=plain(file.adapter.path))
        return replace(file, path=plain(file.path), adapter=adapter)

    return replace(report, files=report.files.map(named))
