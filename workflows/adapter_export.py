"""Export of an adapter: from any form to a GGUF LoRA, a PEFT folder or a short code."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..convert.adapter.adapter import WEIGHTS_FILE, read_adapter_config
from ..convert.adapter.delta import CONFIG_FILE
from ..convert.adapter.export import export_adapter
from ..convert.provenance import provenance_name
from ..errors import RequestError
from ..files.atomic_write import atomic_write, write_file
from ..files.hashing import file_sha256
from ..files.output import check_empty, check_folder, check_target, output_folder
from ..files.progress import Stage, no_progress, when_needed
from ..files.safetensors import SafetensorsFile
from ..models.fetch import fetch
from .adapter_resolver import encode_adapter, resolve_adapter_folder


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """Options of an export.

    Attributes:
        adapter: PEFT folder, hub id, catalogue name, or short code.
        form: what to write.
        base: base of the adapter, which a GGUF needs, and an adapter whose base is not in the catalogue.
        output: the GGUF or the folder to write; a code is returned.
        float32: whether a code has float32 numbers instead of bfloat16.
    """

    adapter: str
    form: Literal["gguf", "peft", "code"] = "gguf"
    base: str | None = None
    output: Path | None = None
    float32: bool = False

    def check(self) -> None:
        """Raise RequestError if a field is missing, or has no effect."""
        if (self.output is None) != (self.form == "code"):
            raise RequestError(
                "--output is for a file; a code is printed" if self.output else "--output is missing"
            )
        if self.form == "gguf" and self.base is None:
            raise RequestError("--base is missing: a GGUF LoRA is for a base")
        if self.float32 and self.form != "code":
            raise RequestError("--float32 requires --as code")


@dataclass(frozen=True)
class ExportedAdapter:
    """An exported adapter.

    Attributes:
        output: the file or folder that was written; None for a code.
        code: the short code; None for files.
        sha256: hash of the file, or of the weights in the folder; None for a code.
        notes: lines for the user.
    """

    output: Path | None
    code: str | None
    sha256: str | None
    notes: tuple[str, ...] = ()


def run_export(request: ExportRequest, stage: Stage = lambda name: no_progress) -> ExportedAdapter:
    """Export an adapter.

    Raises:
        ThirteenError: an input is invalid, or the output cannot be written.
    """
    request.check()
    output, progress = request.output, when_needed(stage, "basis")
    if output is None:
        code, error = encode_adapter(request.adapter, request.base, exact=request.float32, progress=progress)
        rounded = f"bfloat16 rounds the numbers by up to {error:.1%}; --float32 preserves them"
        return ExportedAdapter(None, code, None, (rounded,) if error else ())
    if request.form == "peft":
        check_folder(output)
        check_empty(output)
    else:
        check_target(output)
    folder = resolve_adapter_folder(request.adapter, request.base, progress=progress)
    if request.form == "peft":
        read_adapter_config(folder)
        SafetensorsFile(folder / WEIGHTS_FILE)
        return ExportedAdapter(output, None, _copy_adapter(folder, output))
    assert request.base is not None, "check() demands it"
    base = fetch(request.base, kind="base")
    adapter_id, base_id = provenance_name(request.adapter), provenance_name(request.base)
    sha256 = export_adapter(folder, base, output, adapter_id=adapter_id, base_id=base_id)
    return ExportedAdapter(output, None, sha256)


def _copy_adapter(folder: Path, output: Path) -> str:
    """Copy an adapter's config and weights; returns the hash of the weights."""
    config = (folder / CONFIG_FILE).read_bytes()
    source = (folder / WEIGHTS_FILE).open("rb")
    with source, output_folder(output), atomic_write(output / WEIGHTS_FILE) as weights:
        shutil.copyfileobj(source, weights)
        write_file(output / CONFIG_FILE, config)  # before the weights have their name
    return file_sha256(output / WEIGHTS_FILE)
