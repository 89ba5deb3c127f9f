"""Commands `thirteen serve`, `thirteen mcp` and `thirteen web`."""

import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

from ..errors import RequestError, install_hint
from . import options
from .application import advanced_option, command, refuse_given
from .console import note, show, warn

INTERRUPTED = 130
_MCP_SLOTS = 4  # answers at once; of a vote, the others wait


@command(
    "serve my-model.gguf --adapter math=math-lora.gguf --port 8080",
    "serve my-model.gguf --ray head:6379 --replicas 4",
)
def serve(
    ctx: typer.Context,
    model: options.ModelOrAdaptedArgument = None,
    name: Annotated[str | None, Option(help="Model name. Default: the file name.")] = None,
    adapter: options.NamedAdapters = None,
    host: Annotated[str, Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8080,
    api_key_file: Annotated[Path | None, Option(help="Accepted API keys, one per line.")] = None,
    insecure: Annotated[
        bool, advanced_option("--insecure", help="Let other machines in without an API key.")
    ] = False,
    origin: Annotated[list[str] | None, advanced_option(help="Allowed CORS origin; repeatable.")] = None,
    profile: Annotated[str, Option(help="Memory profile: laptop, server or phone.")] = "laptop",
    context: options.Context = None,
    slots: Annotated[int | None, Option(min=1, help="Concurrent answers.")] = None,
    config: Annotated[
        Path | None,
        Option(
            help="TOML file of limits: queue, max_tokens, answers, body_bytes, idle_s, drain_s; "
            "docs/serving.md has them with their defaults."
        ),
    ] = None,
    ray: options.Ray = None,
    replicas: Annotated[int | None, Option(min=1, help="With --ray: number of engines.")] = None,
    log: Annotated[Literal["text", "json"], Option(help="Form of the log.")] = "text",
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = "0",
) -> None:
    """Serve a model and its adapters over HTTP.

    Clients of OpenAI and Ollama work with it. SIGHUP loads changed files and keys anew, without refusing a
    request.

    With --ray, replicas on a Ray cluster serve the model, each with --threads threads. They replace an
    earlier deployment replica by replica, without failed requests.
    """
    from ..models.resolve import ModelFiles
    from ..server.config import ApiKeys, ListenConfig, RequestLimits
    from ..server.ray_serve import serve_on_ray
    from ..server.serving import ServingRequest, serve_here

    if ray is None:
        refuse_given(ctx, ("replicas",), "requires --ray")
    keys = ApiKeys(api_key_file) if api_key_file else None
    if api_key_file:
        warn(ApiKeys.warnings(api_key_file))
    listen = ListenConfig(host, port, keys, insecure, tuple(origin or ()))
    limits = RequestLimits.from_file(config) if config else RequestLimits()
    engine = options.engine_options(ctx, queue=limits.queue)
    adapters = options.named_adapters(adapter or ())

    def find() -> ModelFiles:
        return options.resolve_model(model, adapters, threads=threads)

    request = ServingRequest(find, name, listen, limits, engine, replicas or 1, log)
    number = serve_on_ray(request, ray, note) if ray else serve_here(request, note)
    if number == signal.SIGINT:
        ctx.exit(INTERRUPTED)


@command("mcp", "mcp my-model.gguf --adapter my-lora")
def mcp(
    ctx: typer.Context,
    model: options.ModelOrAdaptedArgument = None,
    adapter: options.RuntimeAdapter = None,
    context: options.Context = None,
    threads: options.Threads = None,
) -> None:
    """Offer a model to desktop assistants, over MCP.

    An assistant starts the command and speaks the Model Context Protocol with it, over standard input and
    output. The tools are solve, for word problems, and check_arithmetic.
    """
    try:
        from ..server.mcp import serve_stdio
    except ModuleNotFoundError:
        raise RequestError(f"thirteen mcp needs the package mcp: {install_hint('mcp')}") from None

    engine_options = options.engine_options(ctx, slots=_MCP_SLOTS)
    files = options.resolve_model(model, adapter, threads=threads)
    with options.open_engine(files, replace(engine_options, adapter=files.adapter)) as engine:
        engine.check_answers()
        note(f"serving {files.model.name} on standard input and output")
        serve_stdio(engine)


@command("web my-model.gguf --out site", "web my-model.gguf --serve")
def web(
    ctx: typer.Context,
    model: options.ModelArgument,
    folder: Annotated[Path | None, Option("--out", help="Folder to write for a static host.")] = None,
    serve: Annotated[
        bool, Option("--serve", help="Serve the page locally; the default without --out.")
    ] = False,
    port: Annotated[int, Option(min=0, max=65535, help="Port of --serve; 0 picks a free one.")] = 8081,
    context: Annotated[int, Option(min=1, help="Maximum tokens of prompt and answer.")] = 2048,
    wllama: Annotated[Path | None, Option(help="Archive of wllama. Default: from npm, once.")] = None,
    as_json: options.Json = False,
) -> None:
    """Write a web page that runs a model.

    The model's file has at most 2 GB. After the first visit, the page works offline.
    """
    import uvicorn

    from ..files.cache_folder import temporary_folder
    from ..server.serving import bind_socket
    from ..web.site import check_site_folder, wllama_files, write_site
    from ..web.static_files import site_app

    serve = serve or folder is None
    if folder:
        check_site_folder(folder)
    if not serve:
        refuse_given(ctx, ("port",), "requires --serve")
    path = options.resolve_model(model).model
    with nullcontext(folder) if folder else temporary_folder("web") as target:
        site = write_site(path, target, wllama_files(wllama), context=context)
        if folder or as_json:
            show(as_json, site)
        if serve:
            with bind_socket("127.0.0.1", port) as listener:
                note(f"serving {path.name} at http://127.0.0.1:{listener.getsockname()[1]}/")
                uvicorn.Server(uvicorn.Config(site_app(target), log_level="warning")).run([listener])
