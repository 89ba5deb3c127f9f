"""Command `thirteen adapter`: what an adapter is, and the same adapter in another form."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FileError, OptionError
from . import options
from .console import note, run_bars, show_fields, show_file

if TYPE_CHECKING:
    from ..convert.adapter.basis import Basis
    from ..files.progress import Run
    from ..models.base import Base

_BASIS_KEYS = {"rank": "r", "numbers": "u", "seed": "projection_seed"}  # of adapter_config.json

app = typer.Typer()


@app.command(
    epilog=options.example(
        "adapter smollm2-135m-sums-13",
        "adapter ./my-lora --base llama-3.2-1b --output my-lora.gguf",
        "adapter smollm2-135m-sums-13 --code",
    )
)
def adapter(
    ctx: typer.Context,
    adapter: options.AdapterArgument,
    base: Annotated[
        str | None,
        typer.Option(help="Base of the adapter: for a GGUF, and where the catalogue does not have it."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write it: FILE.gguf is a GGUF LoRA, for the unmerged base at run time; another name is a "
            "PEFT folder, new or empty.",
        ),
    ] = None,
    code: Annotated[bool, typer.Option("--code", help="Print a TinyLoRA as a short code.")] = False,
    replace: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Show an adapter, or write it as a GGUF LoRA, PEFT folder or short code."""
    if output and code:
        raise OptionError("output", "a code is printed")
    if output is None:
        options.refuse_given(ctx, ("replace",), "requires --output")
    if code:
        _print_code(adapter, base, as_json)
    elif output is None:
        _show(adapter, as_json)
    elif output.suffix == ".gguf":
        _write_gguf(adapter, base, output, replace, as_json)
    else:
        options.refuse_given(ctx, ("replace",), "is for a GGUF")
        _write_folder(adapter, base, output, as_json)


def _show(adapter: str, as_json: bool) -> None:
    """Kind, rank and norms; of a short code its numbers, for which its base is not needed."""
    from ..convert.adapter.adapter import load_adapter, norms_by_layer
    from ..convert.adapter.short_code import ShortCode
    from ..models.adapter import find_adapter

    found = find_adapter(adapter)
    if isinstance(short := found.content, ShortCode):
        numbers = [float(number) for number in short.numbers]
        type_ = "float32" if short.exact else "bfloat16"
        shown = {"base": short.name, "basis": short.fingerprint, "type": type_, "numbers": numbers}
        show_fields(as_json, shown)
        return
    loaded = load_adapter(short, found.id)
    norms = norms_by_layer(loaded)
    facts = {
        "adapter": loaded.id,
        "kind": loaded.kind,
        "rank": loaded.rank,
        "trained_numbers": loaded.trained_parameters,
        "trained_on": loaded.trained_on,
        "tensors": len(loaded.deltas),
        "sha256": loaded.sha256,
    }
    rows = {key.replace("_", " "): str(value) for key, value in facts.items()}
    rows |= {f"norm, {layer}": f"{norm:.4g}" for layer, norm in norms.items()}
    show_fields(as_json, facts | {"norm_by_layer": norms}, rows)


def _write_gguf(adapter: str, base: str | None, output: Path, replace: bool, as_json: bool) -> None:
    from ..convert.adapter.export import export_adapter
    from ..convert.source_ids import SourceIds
    from ..files.output import check_target
    from ..models.adapter import find_adapter
    from ..models.base import resolve_base

    if base is None:
        raise OptionError("base", "missing: a GGUF LoRA is for a base")
    # Path.exists() raises for a code, which is longer than a name may be.
    inputs = [Path(name) for name in (adapter, base) if os.path.exists(name)]  # noqa: PTH110
    check_target(output, *inputs, replace=replace)
    found, its_base = find_adapter(adapter, base), resolve_base(base)
    with run_bars() as run:
        folder = found.folder(its_base, run)
        sha256 = export_adapter(folder, its_base.path, output, ids=SourceIds(its_base.id, found.id))
    show_file(output, sha256, as_json)


def _write_folder(adapter: str, base: str | None, output: Path, as_json: bool) -> None:
    from ..convert.adapter.adapter import WEIGHTS_FILE
    from ..convert.adapter.export import copy_adapter
    from ..files.output import check_empty, check_folder
    from ..models.adapter import find_adapter

    check_folder(output)
    check_empty(output)
    with run_bars() as run:
        folder = find_adapter(adapter, base).folder(_original(base), run)
    show_file(output / WEIGHTS_FILE, copy_adapter(folder, output), as_json)


def _print_code(adapter: str, base: str | None, as_json: bool) -> None:
    import numpy as np

    from ..convert.adapter.short_code import (
        ShortCode,
        basis_fingerprint,
        encode_short_code,
        round_to_bfloat16,
    )
    from ..convert.adapter.tinylora_folder import read_tinylora_numbers
    from ..models.adapter import find_adapter

    found, original = find_adapter(adapter, base), _original(base)
    with run_bars() as run:
        folder = found.folder(original, run)
        basis = _basis(folder, original, run)
    numbers = read_tinylora_numbers(folder, basis)
    rounding = np.abs(round_to_bfloat16(numbers) - numbers) / np.where(numbers, np.abs(numbers), 1)
    if error := float(np.max(rounding)):
        note(f"bfloat16 rounds the numbers by up to {error:.1%}")
    origin = basis.origin
    text = encode_short_code(ShortCode(origin.name, basis_fingerprint(origin.id), numbers))
    if as_json:
        show_fields(True, {"code": text})
    else:
        print(text)


def _original(base: str | None) -> "Base | None":
    from ..models.base import resolve_base

    return resolve_base(base, original=True) if base else None


def _basis(folder: Path, base: "Base | None", run: "Run") -> "Basis":
    """The basis that an adapter was trained with."""
    from ..convert.adapter.adapter import read_adapter_config
    from ..convert.adapter.basis import BasisOrigin
    from ..convert.adapter.tinylora_folder import with_saved_groups
    from ..convert.source.checkpoint import open_checkpoint
    from ..models.base import resolve_base
    from ..models.basis import cached_basis, code_name
    from ..models.catalogue import catalogue

    config = read_adapter_config(folder)
    if (kind := config.get("peft_type")) != "TINYLORA":
        raise FileError(f"{folder}: a short code is for a TinyLoRA; this is {kind}")
    if base is None:
        name = catalogue().base_name(str(config.get("base_model_name_or_path")))
        if name is None:
            raise OptionError("base", f"missing, and that of {folder} is not in the catalogue")
        base = resolve_base(name, original=True)
    checkpoint = open_checkpoint(base.path)
    settings: dict[str, Any] = {field: config.get(key) for field, key in _BASIS_KEYS.items()}
    origin = with_saved_groups(BasisOrigin(code_name(base), checkpoint.sha256(), **settings), folder)
    return cached_basis(origin, checkpoint, run)
