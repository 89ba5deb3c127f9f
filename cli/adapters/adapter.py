"""Commands `thirteen adapter …`: show, check, export and encode adapters."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import (
    facts_table,
    note,
    progress_bar,
    show_fields,
    show_file,
    show_result,
    stage_bars,
    warn,
)
from ..help_sections import SectionedGroup

NO_EFFECT = 1

app = typer.Typer(
    cls=SectionedGroup,
    help="Show, check, export and encode adapters.",
    epilog=options.example("adapter show smollm2-135m-sums-13"),
    no_args_is_help=True,
)


@app.command("show", epilog=options.example("adapter show smollm2-135m-sums-13"))
def adapter_show(adapter: options.AdapterArgument, as_json: options.Json = False) -> None:
    """Show an adapter's kind, rank, trained numbers and norms."""
    from ...convert.adapter.adapter import load_adapter, norms_by_layer
    from ...convert.provenance import provenance_name

    loaded = load_adapter(options.resolve_adapter(adapter), provenance_name(adapter))
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
    rows = {key: str(value) for key, value in facts.items()}
    show_fields(as_json, result, rows | {f"norm, {layer}": f"{norm:.4g}" for layer, norm in norms.items()})


@app.command(
    "check",
    epilog=options.example(
        "adapter check smollm2-135m-sums-13",
        "adapter check ./my-lora --base llama-3.2-1b --size 600MB",
    ),
)
def adapter_check(
    adapter: options.AdapterArgument,
    base: Annotated[str, typer.Option(help="Base of the adapter, as in convert.")] = "embedded",
    type_: Annotated[
        str | None, typer.Option("--type", help="ggml type of the quantized file. Default: Q4_K.")
    ] = None,
    size: options.Size = None,
    tokens: options.Positions = 384,
    revision: options.Revision = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Check whether an adapter has an effect.

    It shows how far the adapter moves the predictions and the weights, whether the merged model agrees with
    the adapter at run time, and what remains after quantization. The exit status is 1 if there is no effect,
    if most of it is lost, or if the adapter at run time has another effect than the merged model.
    """
    from rich.console import Group

    from ...workflows.adapter_check import changes_table, check_adapter, effect_rows
    from ...workflows.conversion_inputs import ConversionRequest

    request = ConversionRequest(
        base=base, adapter=adapter, type=type_, size=size, revision=revision, threads=threads
    )
    with stage_bars() as stage:
        check = check_adapter(request, positions=tokens, stage=stage)
    warn(check.warnings)
    rows = effect_rows(check) | ({"verdict": check.verdict} if check.effective else {})
    show_result(as_json, asdict(check), lambda: Group(changes_table(check.changes), facts_table(rows)))
    if not check.effective:
        note(f"error: {check.verdict}")
        raise typer.Exit(NO_EFFECT)


@app.command(
    "export", epilog=options.example("adapter export ./my-lora --base llama-3.2-1b --output my-lora.gguf")
)
def adapter_export(
    ctx: typer.Context,
    adapter: options.AdapterArgument,
    base: Annotated[str, typer.Option(help="Base of the adapter, as in convert.")],
    output: options.Output,
    keep: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Leave out matrices as long as this share of the predicted effect is kept, such as 0.98: "
            "each one costs time in decode.",
        ),
    ] = None,
    importance: Annotated[
        Path | None,
        typer.Option(help="With --keep: importance file of the base. Default: measured once, then cached."),
    ] = None,
    revision: options.Revision = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Write an adapter as a GGUF LoRA.

    It applies to the unmerged base at run time.
    """
    from ...convert.adapter.export import export_adapter
    from ...convert.provenance import provenance_name
    from ...files.output import check_target
    from ...models.fetch import fetch

    if importance and keep is None:
        raise typer.BadParameter("--importance requires --keep")
    if keep is None:
        options.refuse_given(ctx, ("threads",), "requires --keep")
    if importance:
        options.refuse_given(ctx, ("threads",), "--importance is given, so none is measured")
    folder = options.resolve_adapter(adapter, base)
    base_path = fetch(base, revision=revision, kind="base")
    check_target(output, base_path, folder, *filter(None, (importance,)))
    adapter_id, base_id = provenance_name(adapter), provenance_name(base)
    tensors = None if keep is None else _keep_effect(folder, base_path, importance, keep, threads)
    sha256 = export_adapter(
        folder, base_path, output, adapter_id=adapter_id, base_id=base_id, tensors=tensors
    )
    show_file(output, sha256, as_json)


def _keep_effect(
    adapter: Path, base: Path, importance: Path | None, share: float, threads: int | None
) -> frozenset[str]:
    """The tensors of a LoRA that keeps a share of the adapter's effect."""
    from ...convert.adapter.effect_shares import keep_effect
    from ...workflows.importance_cache import cached_importance

    if importance is None:
        with stage_bars() as stage:
            importance = cached_importance(base, None, threads=threads, stage=stage)
    kept = keep_effect(adapter, base, importance, share)
    note(f"{len(kept.names)} of {kept.of} matrices are kept, with {kept.share:.1%} of the predicted effect")
    return kept.names


@app.command("basis", epilog=options.example("adapter basis smollm2-135m --output smollm2-135m.safetensors"))
def adapter_basis(
    base: options.BaseArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Safetensors file to write.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the base in codes. Default: its catalogue name.")
    ] = None,
    rank: Annotated[int, typer.Option(min=1, max=64, help="Rank of the factors.")] = 2,
    numbers: Annotated[int, typer.Option(min=1, max=4096, help="Size of the trained vector.")] = 13,
    projection_seed: Annotated[int, typer.Option(min=0, max=1 << 32, help="Seed of the projections.")] = 42,
    groups: Annotated[
        int, typer.Option(min=1, help="Groups of modules; each has its own part of the trained vector.")
    ] = 1,
    group_by: Annotated[
        str, typer.Option(help="Grouping of modules: depth (neighbouring layers) or kind (such as q_proj).")
    ] = "depth",
    revision: options.Revision = None,
    as_json: options.Json = False,
) -> None:
    """Compute the basis of a base: the frozen part of a TinyLoRA.

    Everyone who has the base gets the same file.
    """
    from ...convert.adapter.basis import BasisOrigin, make_basis, write_basis
    from ...convert.adapter.short_code import basis_fingerprint, check_base_name
    from ...convert.provenance import provenance_name
    from ...convert.source.checkpoint import open_checkpoint
    from ...files.hashing import file_sha256
    from ...files.output import check_target
    from ...models.fetch import fetch
    from ...workflows.adapter_resolver import base_file, catalogue_name, code_name

    known = catalogue_name(base)
    name = name or known or code_name(provenance_name(base))
    check_base_name(name)
    from_catalogue = base == name == known and not revision
    path = base_file(base) if from_catalogue else fetch(base, revision=revision, kind="base")
    check_target(output, path)
    checkpoint = open_checkpoint(path)
    origin = BasisOrigin(
        name, checkpoint.sha256(), rank, numbers, projection_seed, groups=groups, group_by=group_by
    )
    with progress_bar("basis") as progress:
        write_basis(make_basis(checkpoint, origin, progress=progress), output)
    facts = asdict(origin) | {"id": origin.id, "mark": basis_fingerprint(origin.id), "output": str(output)}
    facts |= {"file_bytes": output.stat().st_size, "sha256": file_sha256(output)}
    show_fields(as_json, facts)


@app.command("encode", epilog=options.example("adapter encode smollm2-135m-sums-13"))
def adapter_encode(
    adapter: options.AdapterArgument,
    basis: options.Basis = None,
    float32: Annotated[bool, typer.Option("--float32", help="Encode float32 instead of bfloat16.")] = False,
    as_json: options.Json = False,
) -> None:
    """Print a TinyLoRA as a short code.

    The commands ask, serve and convert accept the code as an adapter.
    """
    from ...workflows.adapter_resolver import encode_adapter

    with progress_bar("basis") as progress:
        code, error = encode_adapter(adapter, basis, exact=float32, progress=progress)
    if error:
        warn([f"bfloat16 rounds the numbers by up to {error:.1%}; --float32 preserves them"])
    if as_json:
        show_fields(True, {"code": code, "characters": len(code), "rounded_by": error})
        return
    print(code)


@app.command("decode", epilog=options.example("adapter decode t13:smollm2-135m:… --output my-adapter"))
def adapter_decode(
    code: Annotated[str, typer.Argument(metavar="CODE", help="Short code, as printed by encode.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PEFT folder to write; it must be new or empty.")
    ] = None,
    basis: options.Basis = None,
    as_json: options.Json = False,
) -> None:
    """Check a short code and show its numbers.

    With --output, write its PEFT adapter.
    """
    from ...convert.adapter.short_code import decode_short_code
    from ...convert.adapter.tinylora_folder import write_tinylora_folder
    from ...files.output import check_empty, check_folder
    from ...workflows.adapter_resolver import basis_for_code, hub_id_of

    decoded = decode_short_code(code)
    if output:
        check_folder(output)
        check_empty(output)
    if output or basis:
        with progress_bar("basis") as progress:
            found = basis_for_code(decoded, basis, progress=progress)
        if output:
            write_tinylora_folder(found, decoded.numbers, output, hub_id_of(decoded.name))
    facts = {
        "base": decoded.name,
        "basis": decoded.fingerprint,
        "type": "float32" if decoded.exact else "bfloat16",
        "numbers": [float(number) for number in decoded.numbers],
        "output": str(output) if output else None,
    }
    show_fields(as_json, facts)
