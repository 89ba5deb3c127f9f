"""The commands that look at an adapter and pass it on: `adapter …`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from .console import facts_table, out, progress_bar, show_facts, show_file, show_result, warn
from .options import AdapterArgument, BaseArgument, Json, Output, Revision, shown_name

app = typer.Typer(
    help="Look at an adapter, write it for use at run time, or pass it on as a short code.",
    epilog="Example: thirteen adapter show smollm2-135m-gsm8k-13",
    no_args_is_help=True,
)
BasisOption = Annotated[
    Path | None, typer.Option(help="A file of: thirteen adapter basis; by default made and cached.")
]


@app.command("show", epilog="Example: thirteen adapter show smollm2-135m-gsm8k-13")
def adapter_show(adapter: AdapterArgument, as_json: Json = False) -> None:
    """Show what an adapter is: its kind, rank, trained numbers, and norm by layer."""
    from ..convert.adapter.adapter import load_adapter, norms_by_layer
    from ..workflows.adapter_resolver import resolve_adapter_folder

    with progress_bar("basis") as progress:
        folder = resolve_adapter_folder(adapter, progress=progress)
    loaded = load_adapter(folder, shown_name(adapter))
    norms = norms_by_layer(loaded)
    facts = {
        "adapter": loaded.id,
        "kind": loaded.kind,
        "rank": loaded.rank,
        "trained numbers": loaded.trained_parameters,
        "trained on": loaded.trained_on,
        "tensors": len(loaded.deltas),
        "sha256": loaded.sha256,
    }
    result = {key.replace(" ", "_"): value for key, value in facts.items()} | {"norm_by_layer": norms}

    def table() -> Table:
        rows = {key: str(value) for key, value in facts.items()}
        return facts_table(rows | {f"norm, {layer}": f"{norm:.4g}" for layer, norm in norms.items()})

    show_result(as_json, result, table)


@app.command(
    "export", epilog="Example: thirteen adapter export ./my-lora --base llama-3.2-1b --output my-lora.gguf"
)
def adapter_export(
    adapter: AdapterArgument,
    base: Annotated[str, typer.Option(help="The base it is for: see convert.")],
    output: Output,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Write an adapter as a GGUF LoRA, for use at run time beside the unmerged base."""
    from ..convert.adapter.export import export_adapter
    from ..models.fetch import fetch
    from ..workflows.adapter_resolver import resolve_adapter_folder

    with progress_bar("basis") as progress:
        folder = resolve_adapter_folder(adapter, base, progress=progress)
    sha256 = export_adapter(
        folder,
        fetch(base, revision=revision, kind="base"),
        output,
        adapter_id=shown_name(adapter),
        base_id=shown_name(base),
    )
    show_file(output, sha256, as_json)


@app.command("basis", epilog="Example: thirteen adapter basis smollm2-135m --output smollm2-135m.safetensors")
def adapter_basis(
    base: BaseArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file to write.")],
    name: Annotated[
        str | None, typer.Option(help="The base's name in codes; by default the catalogue's.")
    ] = None,
    rank: Annotated[int, typer.Option(min=1, max=64, help="Of the factors.")] = 2,
    numbers: Annotated[int, typer.Option(min=1, max=4096, help="How many are trained.")] = 13,
    projection_seed: Annotated[int, typer.Option(min=0, max=1 << 32, help="Of the projections.")] = 42,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Write what a TinyLoRA's numbers are multiplied with: the same file for everyone who has the base."""
    from ..convert.adapter.basis import BasisOrigin, make_basis, write_basis
    from ..convert.adapter.short_code import basis_fingerprint, check_base_name
    from ..convert.source.checkpoint import open_checkpoint
    from ..files.hashing import file_sha256
    from ..files.output import check_target
    from ..models.fetch import fetch
    from ..workflows.adapter_resolver import base_file, catalogue_name

    own = name or catalogue_name(base) or shown_name(base).lower()
    check_base_name(own)
    path = base_file(base) if base == own and not revision else fetch(base, revision=revision, kind="base")
    check_target(output, path)
    checkpoint = open_checkpoint(path)
    origin = BasisOrigin(own, checkpoint.sha256(), rank, numbers, projection_seed)
    with progress_bar("basis") as progress:
        write_basis(make_basis(checkpoint, origin, progress=progress), output)
    facts = asdict(origin) | {"id": origin.id, "mark": basis_fingerprint(origin.id), "output": str(output)}
    facts |= {"file_bytes": output.stat().st_size, "sha256": file_sha256(output)}
    show_facts(as_json, facts)


@app.command("encode", epilog="Example: thirteen adapter encode smollm2-135m-sums-13 --qr")
def adapter_encode(
    adapter: AdapterArgument,
    basis: Annotated[
        Path | None, typer.Option(help="The basis it was made with, if not its base's own.")
    ] = None,
    float32: Annotated[
        bool, typer.Option("--float32", help="All of each number, not only what bfloat16 has of it.")
    ] = False,
    qr: Annotated[bool, typer.Option("--qr", help="Also print it as a QR code.")] = False,
    qr_file: Annotated[
        Path | None, typer.Option(help="Write the QR code to this file: .svg or .png.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a TinyLoRA as a short code: what ask, serve and convert take in its place."""
    from ..workflows.adapter_resolver import encode_adapter
    from .qr_code import check_qr_file, qr_text, write_qr

    if qr_file:
        check_qr_file(qr_file)
    with progress_bar("basis") as progress:
        code, lost = encode_adapter(adapter, basis, exact=float32, progress=progress)
    if lost:
        warn([f"bfloat16 rounds its numbers, by up to {lost:.1%}; --float32 keeps them"])
    if qr_file:
        write_qr(code, qr_file)
    if as_json:
        show_result(True, {"code": code, "characters": len(code), "rounded_by": lost}, Table)
        return
    print(code)
    if qr:
        out.print(qr_text(code), markup=False)


@app.command("decode", epilog="Example: thirteen adapter decode t13:smollm2-135m:… --output my-adapter")
def adapter_decode(
    code: Annotated[str, typer.Argument(help="As encode prints it.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder for the PEFT adapter.")
    ] = None,
    basis: BasisOption = None,
    as_json: Json = False,
) -> None:
    """Check a code and show its numbers, or write the PEFT adapter that it stands for."""
    from ..convert.adapter.short_code import decode_short_code
    from ..convert.adapter.tinylora_folder import write_tinylora_folder
    from ..workflows.adapter_resolver import basis_for_code, hub_id_of

    read = decode_short_code(code)
    if output or basis:
        with progress_bar("basis") as progress:
            found = basis_for_code(read, basis, progress=progress)
        if output:
            write_tinylora_folder(found, read.numbers, output, hub_id_of(read.name))
    facts = {
        "base": read.name,
        "basis": read.fingerprint,
        "type": "float32" if read.exact else "bfloat16",
        "numbers": [float(number) for number in read.numbers],
        "output": str(output) if output else None,
    }
    show_facts(as_json, facts)
