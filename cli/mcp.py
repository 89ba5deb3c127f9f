"""Command `thirteen mcp`."""

import typer

from ..errors import RequestError, install_hint
from . import options
from .console import note

_SLOTS = 4  # answers at once; of a vote, the others wait

app = typer.Typer()


@app.command(epilog=options.example("mcp", "mcp my-model.gguf --adapter my-lora"))
def mcp(
    model: options.ModelOrAdaptedArgument = None,
    adapter: options.RuntimeAdapter = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = 512,
    context: options.Context = None,
    calculator: options.Calculator = True,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = "0",
) -> None:
    """Offer a model to desktop assistants, over MCP.

    An assistant starts the command and speaks the Model Context Protocol with it, over standard input and
    output. The tools are solve, for word problems, and check_arithmetic.
    """
    try:
        from ..server.mcp import serve_stdio
    except ModuleNotFoundError:
        raise RequestError(f"thirteen mcp needs the package mcp: {install_hint('mcp')}") from None
    from ..runtime.engine.engine import Engine, RequestOptions
    from ..runtime.plan.plan import EnginePlan

    layers = options.gpu_layers(gpu_layers)
    files = options.resolve_model(model, adapter, threads=threads)
    lora = files.adapter
    plan = EnginePlan.make(
        files.model, adapter=lora, context=context, slots=_SLOTS, threads=threads, gpu_layers=layers
    )
    with Engine(plan) as engine:
        note(f"serving {files.model.name} on standard input and output")
        serve_stdio(engine, RequestOptions(system=system, max_tokens=max_tokens, calculator=calculator))
