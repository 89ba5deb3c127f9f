"""Command `thirteen adapter`: what an adapter is, and the same adapter in another form."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from ..errors import FileError, OptionError
from . import options
from .application import command, refuse_given
from .console import note, run_bars, show, show_file

if TYPE_CHECKING:
    from ..convert.adapter.basis import Basis
    from ..files.progress import Run
    from ..models.adapter import Adapter
    from ..models.base import Base

_BASIS_KEYS = {"rank": "r", "numbers": "u", "seed": "projection_seed"}  # of adapter_config.json


@command(
    "adapter smollm2-135m-sums-13",
    "adapter ./my-lora --base llama-3.2-1b --output my-lora.gguf",
    "adapter smollm2-135m-sums-13 --code",
)
def adapter(
    ctx: typer.Context,
    adapter: options.AdapterArgument,
    base: Annotated[str | None, Option(help="Base: for a GGUF, and where the catalogue lacks it.")] = None,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            help="Write it: FILE.gguf is a GGUF LoRA for the unmerged base; another name is a PEFT folder.",
        ),
    ] = None,
    code: Annotated[bool, Option("--code", help="Print a TinyLoRA as a short code.")] = False,
    replace: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Show an adapter, or write it in another form."""
    from ..convert.adapter.adapter import WEIGHTS_FILE
    from ..convert.adapter.export import copy_adapter, export_adapter
    from ..files.output import check_empty, check_folder, check_target
    from ..models.adapter import find_adapter
    from ..models.base import resolve_base

    is_gguf = output is not None and output.suffix == ".gguf"
    if code:
        refuse_given(ctx, ("output",), "a code is printed")
    if output and is_gguf:
        if base is None:
            raise OptionError("base", "missing: a GGUF LoRA is for a base")
        # Path.exists() raises for a code, which is longer than a name may be.
        inputs = [Path(name) for name in (adapter, base) if os.path.exists(name)]  # noqa: PTH110
        check_target(output, *inputs, replace=replace)
    elif output:
        check_folder(output)
        check_empty(output)
    found = find_adapter(adapter, base)
    if not (output or code):
        _show(found, as_json)
        return
    its_base = resolve_base(base, original=not is_gguf) if base else None
    with run_bars() as run:
        folder = found.folder(its_base, run)
        if code:
            text = _code(folder, _basis(folder, its_base, run))
        elif its_base and output and is_gguf:
            sha256 = export_adapter(folder, its_base.path, output, base_id=its_base.id, adapter_id=found.id)
        elif output:
            sha256 = copy_adapter(folder, output)
    if output:
        show_file(output if is_gguf else output / WEIGHTS_FILE, sha256, as_json)
    else:
        show(as_json, {"code": text}, text)


def _show(found: "Adapter", as_json: bool) -> None:
    """Kind and rank; of a short code its numbers, for which its base is not needed."""
    from ..convert.adapter.adapter import load_adapter
    from ..convert.adapter.short_code import ShortCode

    if isinstance(short := found.content, ShortCode):
        numbers = [float(number) for number in short.numbers]
        show(as_json, {"base": short.name, "basis": short.fingerprint, "numbers": numbers})
        return
    loaded = load_adapter(short, found.id)
    facts = {
        "adapter": loaded.id,
        "kind": loaded.kind,
        "rank": loaded.rank,
        "trained_numbers": loaded.trained_parameters,
        "trained_on": loaded.trained_on,
        "tensors": len(loaded.deltas),
        "sha256": loaded.sha256,
    }
    show(as_json, facts)


def _code(folder: Path, basis: "Basis") -> str:
    import numpy as np

    from ..convert.adapter.basis import read_tinylora_numbers
    from ..convert.adapter.short_code import (
        ShortCode,
        basis_fingerprint,
        encode_short_code,
        round_to_bfloat16,
    )

    numbers = read_tinylora_numbers(folder, basis)
    rounding = np.abs(round_to_bfloat16(numbers) - numbers) / np.where(numbers, np.abs(numbers), 1)
    if error := float(np.max(rounding)):
        note(f"bfloat16 rounds the numbers by up to {error:.1%}")
    return encode_short_code(ShortCode(basis.origin.name, basis_fingerprint(basis.origin.id), numbers))


def _basis(folder: Path, base: "Base | None", run: "Run") -> "Basis":
    """The basis that an adapter was trained with; by default of the base that it names."""
    from ..convert.adapter.adapter import read_adapter_config
    from ..convert.adapter.basis import BasisOrigin, with_saved_groups
    from ..convert.source.checkpoint import open_checkpoint
    from ..models.adapter import cached_basis, code_name
    from ..models.base import resolve_base
    from ..models.catalogue import catalogue

    config = read_adapter_config(folder)
    if (kind := config.get("peft_type")) != "TINYLORA":
        raise FileError(f"{folder}: a short code is for a TinyLoRA; this is {kind}")
    trained_on = str(config.get("base_model_name_or_path"))
    base = base or resolve_base(catalogue().base_name(trained_on) or trained_on, original=True)
    checkpoint = open_checkpoint(base.path)
    settings: dict[str, Any] = {field: config.get(key) for field, key in _BASIS_KEYS.items()}
    origin = with_saved_groups(BasisOrigin(code_name(base), checkpoint.sha256(), **settings), folder)
    return cached_basis(origin, checkpoint, run)
