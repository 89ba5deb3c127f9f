"""Commands `thirteen serve` and `thirteen mcp`."""

import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import RequestError, install_hint
from . import options
from .console import note, warn
from .help_sections import advanced_option

_MCP_SLOTS = 4  # answers at once; of a vote, the others wait

app = typer.Typer()


@app.command(
    epilog=options.example(
        "serve my-model.gguf --adapter math=math-lora.gguf --port 8080",
        "serve my-model.gguf qwen.gguf --memory 4GB",
        "serve my-model.gguf --ray head:6379 --replicas 4",
    )
)
def serve(
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL", help=options.OR_ADAPTED)] = None,
    name: Annotated[str | None, typer.Option(help="Model name. Default: the file name.")] = None,
    adapter: options.NamedAdapters = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8080,
    api_key_file: Annotated[Path | None, typer.Option(help="Accepted API keys, one per line.")] = None,
    insecure: Annotated[
        bool, advanced_option("--insecure", help="Allow other machines to connect without an API key.")
    ] = False,
    origin: Annotated[list[str] | None, advanced_option(help="Allowed CORS origin; repeatable.")] = None,
    profile: Annotated[str, typer.Option(help="Memory profile: laptop, server or phone.")] = "laptop",
    context: options.Context = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Concurrent answers.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of limits: queue, max_tokens, answers, body_bytes, idle_s, drain_s, strict; "
            "docs/serving.md has them with their defaults."
        ),
    ] = None,
    memory: Annotated[
        str | None,
        advanced_option(
            help="With several models: limit of their memory, such as 4GB. Default: what is available."
        ),
    ] = None,
    ray: options.Ray = None,
    ray_insecure: options.RayInsecure = False,
    replicas: Annotated[int | None, typer.Option(min=1, help="With --ray: number of engines.")] = None,
    max_replicas: Annotated[
        int | None, advanced_option(min=1, help="With --ray: autoscale up to this number of engines.")
    ] = None,
    log: Annotated[Literal["text", "json"], typer.Option(help="Form of the log.")] = "text",
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = "0",
    library: options.Library = None,
    untrusted: Annotated[
        bool,
        advanced_option(
            "--untrusted",
            help="First load the files in another process, with limits. By default only those not made here.",
        ),
    ] = False,
) -> None:
    """Serve models over HTTP, for clients of OpenAI and Ollama.

    One model is loaded at once. Several are loaded when they are asked for, and unloaded after five idle
    minutes or when another needs the memory: the least recently used first.

    SIGHUP loads changed models, adapters and keys anew, without refusing a request.

    With --ray, replicas on a Ray cluster serve the model, each with --threads threads. They replace an
    earlier deployment replica by replica, without failed requests.
    """
    from ..cluster.deploy import ClusterOptions
    from ..convert.size_text import parse_file_size
    from ..runtime.llama.load_probe import probe_model_files
    from ..runtime.plan.options import EngineOptions, default_settings
    from ..server.access.api_keys import ApiKeys
    from ..server.access.request_limits import RequestLimits
    from ..server.serve import ListenConfig
    from ..workflows.model_files import ModelFiles
    from ..workflows.serving import ServingRequest, run_serving

    if ray is None and (replicas or max_replicas or ray_insecure):
        raise typer.BadParameter("--replicas, --max-replicas and --ray-insecure require --ray")
    machine = options.machine(threads, gpu_layers, library, ray)
    keys = ApiKeys.from_file(api_key_file) if api_key_file else None
    if api_key_file:
        warn(ApiKeys.warnings(api_key_file))
    listen = ListenConfig(host, port, keys, insecure, tuple(origin or ()))
    several = len(models or ()) > 1
    if several and (adapter or name or ray is not None):
        raise typer.BadParameter("several models: --adapter, --name and --ray are for one")
    limit = parse_file_size(memory, "memory").file_bytes(0) if memory else None
    if limit == 0 or (memory and not several):
        raise typer.BadParameter("--memory requires several models, and bytes such as 4GB")
    limits = RequestLimits.from_file(config) if config else RequestLimits()
    engine = machine | EngineOptions(profile=profile, context=context, slots=slots, queue=limits.queue)
    default_settings(engine)  # refuses before anything is downloaded
    cluster = ClusterOptions(ray, ray_insecure, replicas or 1, max_replicas) if ray else None
    adapters = options.named_adapters(adapter or ())

    def find() -> list[ModelFiles]:
        found = [options.resolve_model(each, adapters, threads=threads) for each in models or (None,)]
        for files in found if untrusted else ():
            probe_model_files(files.model, files.adapters.values(), untrusted=True)
        return found

    request = ServingRequest(find, name, listen, limits, engine, cluster, limit, log)
    if run_serving(request, note) == signal.SIGINT:
        raise KeyboardInterrupt


@app.command(epilog=options.example("mcp", "mcp my-model.gguf --adapter my-lora"))
def mcp(
    model: options.ModelOrAdaptedArgument = None,
    adapter: options.RuntimeAdapter = None,
    system: options.System = None,
    max_tokens: options.MaxTokensOrDefault = None,
    think: options.Think = None,
    think_budget: options.ThinkBudget = None,
    context: options.Context = None,
    calculator: options.Calculator = True,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = "0",
    library: options.Library = None,
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
    from ..runtime.plan.options import EngineOptions

    machine = options.machine(threads, gpu_layers, library)
    files = options.resolve_model(model, adapter, threads=threads)
    own = EngineOptions(adapter=files.adapter, context=context, slots=_MCP_SLOTS)
    with Engine(files.model, **machine | own) as engine:
        engine.check_answers()
        note(f"serving {files.model.name} on standard input and output")
        asked = RequestOptions(system=system, max_tokens=max_tokens, calculator=calculator)
        serve_stdio(engine, asked | RequestOptions(think=think, think_budget=think_budget))
