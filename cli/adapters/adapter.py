"""Commands `thirteen adapter …`: show, check and export adapters."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ...errors import OptionError
from .. import options
from ..console import facts_table, note, run_bars, show_fields, show_file, show_result, warn
from ..conversion.inputs import Size
from ..help_sections import SectionedGroup

NO_EFFECT = 1

app = typer.Typer(
    cls=SectionedGroup,
    help="Show, check and export adapters.",
    epilog=options.example("adapter show smollm2-135m-sums-13"),
    no_args_is_help=True,
)


@app.command("show", epilog=options.example("adapter show smollm2-135m-sums-13"))
def adapter_show(adapter: options.AdapterArgument, as_json: options.Json = False) -> None:
    """Show an adapter's kind, rank and norms.

    Of a short code: its numbers, for which its base is not needed.
    """
    from ...convert.adapter.adapter import load_adapter, norms_by_layer
    from ...convert.adapter.short_code import ShortCode
    from ...models.adapter import find_adapter

    found = find_adapter(adapter)
    if isinstance(code := found.content, ShortCode):
        numbers = [float(number) for number in code.numbers]
        type_ = "float32" if code.exact else "bfloat16"
        shown = {"base": code.name, "basis": code.fingerprint, "type": type_, "numbers": numbers}
        show_fields(as_json, shown)
        return
    loaded = load_adapter(code, found.id)
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
    facts["norm_by_layer"] = norms
    show_fields(as_json, facts, rows | {f"norm, {layer}": f"{norm:.4g}" for layer, norm in norms.items()})


@app.command(
    "check",
    epilog=options.example(
        "adapter check smollm2-135m-sums-13", "adapter check ./my-lora --base llama-3.2-1b --size 600MB"
    ),
)
def adapter_check(
    adapter: options.AdapterArgument,
    base: Annotated[str, typer.Option(help="Base of the adapter, as in convert.")] = "embedded",
    type_: Annotated[
        str | None, typer.Option("--type", help="ggml type of the quantized file. Default: Q4_K.")
    ] = None,
    size: Size = None,
    tokens: options.Positions = 384,
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
    from ...workflows.conversion_request import ConversionRequest

    request = ConversionRequest(base=base, adapter=adapter, type=type_, size=size)
    with run_bars(threads) as run:
        check = check_adapter(request, positions=tokens, run=run)
    warn(check.warnings)
    rows = effect_rows(check) | ({"verdict": check.verdict} if check.effective else {})
    show_result(as_json, asdict(check), lambda: Group(changes_table(check.changes), facts_table(rows)))
    if not check.effective:
        note(f"error: {check.verdict}")
        raise typer.Exit(NO_EFFECT)


@app.command(
    "export",
    epilog=options.example(
        "adapter export ./my-lora --base llama-3.2-1b --output my-lora.gguf",
        "adapter export smollm2-135m-sums-13 --as code",
    ),
)
def adapter_export(
    ctx: typer.Context,
    adapter: options.AdapterArgument,
    form: Annotated[
        Literal["gguf", "peft", "code"],
        typer.Option(
            "--as",
            help="gguf: a GGUF LoRA, which applies to the unmerged base at run time. peft: a PEFT folder. "
            "code: a short code, which is printed, for a TinyLoRA.",
        ),
    ] = "gguf",
    base: Annotated[
        str | None,
        typer.Option(
            help="Base of the adapter, as in convert: for gguf, and where the catalogue does not have it."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="GGUF, or new or empty folder, to write.")
    ] = None,
    float32: Annotated[
        bool, typer.Option("--float32", help="With --as code: float32 instead of bfloat16.")
    ] = False,
    replace: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Write an adapter as GGUF LoRA, PEFT folder or code."""
    from ...convert.adapter.adapter import WEIGHTS_FILE
    from ...files.output import check_target
    from ...workflows.adapter_export import export_code, export_folder, export_gguf

    if (output is None) != (form == "code"):
        raise OptionError("output", "it is for a file; a code is printed" if output else "missing")
    if float32 and form != "code":
        raise OptionError("float32", "requires {form} code")
    if form != "gguf":
        options.refuse_given(ctx, ("replace",), "is for a GGUF")
    elif output:
        check_target(output, *_existing(adapter, base), replace=replace)
    if output is not None:
        with run_bars() as run:
            sha256 = (export_folder if form == "peft" else export_gguf)(adapter, base, output, run)
        show_file(output / WEIGHTS_FILE if form == "peft" else output, sha256, as_json)
        return
    with run_bars() as run:
        code, error = export_code(adapter, base, exact=float32, run=run)
    if error:
        note(f"bfloat16 rounds the numbers by up to {error:.1%}; float32 preserves them")
    if as_json:
        show_fields(True, {"code": code})
    else:
        print(code)


@app.command("basis", epilog=options.example("adapter basis smollm2-135m --output smollm2-135m.safetensors"))
def adapter_basis(
    base: options.BaseArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Safetensors file to write.")],
    rank: Annotated[int, typer.Option(min=1, max=64, help="Rank of the factors.")] = 2,
    numbers: Annotated[int, typer.Option(min=1, max=4096, help="Size of the trained vector.")] = 13,
    groups: Annotated[
        int, typer.Option(min=1, help="Groups of layers; each has its own part of the trained vector.")
    ] = 1,
    replace: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Compute the basis of a base, for train.

    It is the frozen part of a TinyLoRA. Everyone who has the base gets the same file.
    """
    from ...convert.adapter.basis import write_basis
    from ...convert.adapter.short_code import basis_fingerprint
    from ...files.hashing import file_sha256
    from ...files.output import check_target
    from ...models.base import resolve_base
    from ...models.basis import find_basis

    check_target(output, *_existing(base), replace=replace)
    original = resolve_base(base, original=True)
    with run_bars() as run:
        basis = find_basis(original, run, rank=rank, numbers=numbers, groups=groups)
    write_basis(basis, output)
    origin = basis.origin
    facts = asdict(origin) | {"id": origin.id, "mark": basis_fingerprint(origin.id), "output": str(output)}
    show_fields(as_json, facts | {"file_bytes": output.stat().st_size, "sha256": file_sha256(output)})


def _existing(*names: str | None) -> list[Path]:
    """Those of the names that are files or folders."""
    return [Path(name) for name in names if name and os.path.exists(name)]  # noqa: PTH110 - it may be a code
