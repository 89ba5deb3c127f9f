"""Export of an adapter: from any form to a GGUF LoRA, a PEFT folder or a short code."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ..convert.adapter.adapter import WEIGHTS_FILE, adapter_folder, read_adapter_config
from ..convert.adapter.basis import Basis, BasisOrigin
from ..convert.adapter.delta import CONFIG_FILE
from ..convert.adapter.export import export_adapter
from ..convert.adapter.short_code import ShortCode, basis_fingerprint, encode_short_code, round_to_bfloat16
from ..convert.adapter.tinylora_folder import read_tinylora_numbers, with_saved_groups
from ..convert.source.checkpoint import open_checkpoint
from ..convert.source_ids import SourceIds
from ..errors import FileError, OptionError
from ..files.hashing import file_sha256
from ..files.output import check_empty, check_folder
from ..files.progress import QUIET, Run
from ..files.received_files import PROMPT_FILE
from ..files.safetensors import SafetensorsFile
from ..models.adapter import find_adapter
from ..models.base import Base, resolve_base
from ..models.basis import cached_basis, code_name
from ..models.catalogue import catalogue

_PEFT_KEYS = {"rank": "r", "numbers": "u", "seed": "projection_seed"}  # of adapter_config.json


def export_gguf(adapter: str, base: str | None, output: Path, run: Run = QUIET) -> str:
    """Export an adapter as a GGUF LoRA.

    Args:
        adapter: PEFT folder, hub id, catalogue name, or short code.
        base: its base.
        output: the file to write.
        run: how the basis of a code is computed.

    Returns:
        The hash of the file.

    Raises:
        ThirteenError: an input is missing or invalid, or the output cannot be written.
    """
    if base is None:
        raise OptionError("base", "missing: a GGUF LoRA is for a base")
    found, its_base = find_adapter(adapter, base), resolve_base(base)
    ids = SourceIds(its_base.id, found.id)
    return export_adapter(found.folder(its_base, run), its_base.path, output, ids=ids)


def export_folder(adapter: str, base: str | None, output: Path, run: Run = QUIET) -> str:
    """Export an adapter as a PEFT folder, which must be new or empty; see export_gguf().

    The base is needed for a code whose base is not in the catalogue. Returns the hash of the weights.
    """
    check_folder(output)
    check_empty(output)
    folder = find_adapter(adapter, base).folder(_original(base), run)
    read_adapter_config(folder)
    SafetensorsFile(folder / WEIGHTS_FILE)
    names = [name for name in (PROMPT_FILE, CONFIG_FILE) if (folder / name).exists()]
    others = {name: (folder / name).read_bytes() for name in names}
    with (folder / WEIGHTS_FILE).open("rb") as source, adapter_folder(output, others) as weights:
        shutil.copyfileobj(source, weights)
    return file_sha256(output / WEIGHTS_FILE)


def export_code(adapter: str, base: str | None, *, exact: bool, run: Run = QUIET) -> tuple[str, float]:
    """Export an adapter as a short code.

    Args:
        adapter: see export_gguf().
        base: the base that it was trained on; by default that of the catalogue which its config names.
        exact: keep its numbers in float32 instead of bfloat16.
        run: how the basis of the base is computed.

    Returns:
        The code, and the largest relative rounding error of a number.

    Raises:
        ThirteenError: the adapter was not trained with a basis of this base, or its base is unknown.
    """
    found, original = find_adapter(adapter, base), _original(base)
    folder = found.folder(original, run)
    basis = _basis(folder, original, run)
    numbers = read_tinylora_numbers(folder, basis)
    rounded = numbers if exact else round_to_bfloat16(numbers)
    error = float(np.max(np.abs(rounded - numbers) / np.where(numbers, np.abs(numbers), 1)))
    code = ShortCode(basis.origin.name, basis_fingerprint(basis.origin.id), numbers, exact)
    return encode_short_code(code), error


def _original(base: str | None) -> Base | None:
    return resolve_base(base, original=True) if base else None


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
