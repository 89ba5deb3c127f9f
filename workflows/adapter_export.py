"""Export of an adapter: from any form to a GGUF LoRA, a PEFT folder or a short code."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..convert.adapter.adapter import WEIGHTS_FILE, read_adapter_config
from ..convert.adapter.basis import Basis, BasisOrigin
from ..convert.adapter.delta import CONFIG_FILE
from ..convert.adapter.export import export_adapter
from ..convert.adapter.short_code import ShortCode, basis_fingerprint, encode_short_code, round_to_bfloat16
from ..convert.adapter.tinylora_folder import read_tinylora_numbers, with_saved_groups
from ..convert.source.checkpoint import open_checkpoint
from ..convert.source_ids import SourceIds
from ..errors import FileError, OptionError
from ..files.atomic_write import atomic_write, write_file
from ..files.hashing import file_sha256
from ..files.output import check_empty, check_folder, check_target, output_folder
from ..files.progress import QUIET, Run
from ..files.safetensors import SafetensorsFile
from ..models.adapter import find_adapter
from ..models.base import Base, resolve_base
from ..models.basis import cached_basis, code_name
from ..models.catalogue import catalogue

_PEFT_KEYS = {"rank": "r", "numbers": "u", "seed": "projection_seed"}  # of adapter_config.json


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
        """Raise OptionError if a field is missing, or has no effect."""
        if (self.output is None) != (self.form == "code"):
            raise OptionError("output", "it is for a file; a code is printed" if self.output else "missing")
        if self.form == "gguf" and self.base is None:
            raise OptionError("base", "missing: a GGUF LoRA is for a base")
        if self.float32 and self.form != "code":
            raise OptionError("float32", "requires {form} code")


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


def run_export(request: ExportRequest, run: Run = QUIET) -> ExportedAdapter:
    """Export an adapter.

    Raises:
        ThirteenError: an input is invalid, or the output cannot be written.
    """
    request.check()
    output, form = request.output, request.form
    if output and form == "peft":
        check_folder(output)
        check_empty(output)
    elif output:
        check_target(output)
    adapter = find_adapter(request.adapter, request.base)
    base = resolve_base(request.base, original=form != "gguf") if request.base else None
    folder = adapter.folder(base, run)
    if output is None:
        code, error = _encode(folder, base, exact=request.float32, run=run)
        rounded = f"bfloat16 rounds the numbers by up to {error:.1%}; float32 preserves them"
        return ExportedAdapter(None, code, None, (rounded,) if error else ())
    if form == "peft":
        read_adapter_config(folder)
        SafetensorsFile(folder / WEIGHTS_FILE)
        return ExportedAdapter(output, None, _copy_adapter(folder, output))
    assert base is not None, "check() demands it"
    sha256 = export_adapter(folder, base.path, output, ids=SourceIds(base.id, adapter.id))
    return ExportedAdapter(output, None, sha256)


def _encode(folder: Path, base: Base | None, *, exact: bool, run: Run) -> tuple[str, float]:
    """Encode an adapter as a short code.

    Args:
        folder: its PEFT folder.
        base: the original of the base that it was trained on; by default that of the catalogue which its
            config names.
        exact: keep its numbers in float32 instead of bfloat16.
        run: how the basis of the base is computed.

    Returns:
        The code, and the largest relative rounding error of a number.

    Raises:
        FileError: the adapter was not trained with a basis of this base, or its base is unknown.
    """
    basis = _basis(folder, base, run)
    numbers = read_tinylora_numbers(folder, basis)
    rounded = numbers if exact else round_to_bfloat16(numbers)
    error = float(np.max(np.abs(rounded - numbers) / np.where(numbers, np.abs(numbers), 1)))
    code = ShortCode(basis.origin.name, basis_fingerprint(basis.origin.id), numbers, exact)
    return encode_short_code(code), error


def _basis(folder: Path, base: Base | None, run: Run) -> Basis:
    """The basis that an adapter was trained with."""
    config = read_adapter_config(folder)
    if (kind := config.get("peft_type")) != "TINYLORA":
        raise FileError(f"{folder}: a short code is for a TinyLoRA; this is {kind}")
    if base is None:
        name = catalogue().base_name(str(config.get("base_model_name_or_path")))
        if name is None:
            raise OptionError("base", f"missing, and that of {folder} is not in the catalogue")
        base = resolve_base(name, original=True)
    checkpoint = open_checkpoint(base.path)
    settings: dict[str, Any] = {field: config.get(key) for field, key in _PEFT_KEYS.items()}
    origin = with_saved_groups(BasisOrigin(code_name(base), checkpoint.sha256(), **settings), folder)
    return cached_basis(origin, checkpoint, run)


def _copy_adapter(folder: Path, output: Path) -> str:
    """Copy an adapter's config and weights; returns the hash of the weights."""
    config = (folder / CONFIG_FILE).read_bytes()
    source = (folder / WEIGHTS_FILE).open("rb")
    with source, output_folder(output), atomic_write(output / WEIGHTS_FILE) as weights:
        shutil.copyfileobj(source, weights)
        write_file(output / CONFIG_FILE, config)  # before the weights have their name
    return file_sha256(output / WEIGHTS_FILE)
