"""The command `thirteen serve`: a model over HTTP, from this machine or from a cluster."""

import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import err, printable, progress_bar
from .options import RayOption, Threads

app = typer.Typer()


@app.command(
    epilog="Example: thirteen serve my-model.gguf --adapter math=math-lora.gguf --port 8080 "
    "or, on a cluster: … --ray head:6379 --replicas 4"
)
def serve(
    model: Annotated[Path | None, typer.Argument(help="A GGUF; by default the embedded model.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; by default that of its file.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=ADAPTER", help="As in ask, served as a model NAME; may be repeated."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    api_key_file: Annotated[
        Path | None, typer.Option(help="API keys, one on a line: only who has one may ask.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines ask without a key.")
    ] = False,
    origin: Annotated[
        list[str] | None, typer.Option(help="A web origin whose pages may ask; may be repeated.")
    ] = None,
    profile: Annotated[str, typer.Option(help="What to set aside: laptop, server or phone.")] = "laptop",
    context: Annotated[int | None, typer.Option(min=1, help="The most tokens of prompt and answer.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Answers that run at once.")] = None,
    queue: Annotated[int, typer.Option(min=0, help="Answers that may wait; more get 429.")] = 64,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="The longest answer; by default the context.")
    ] = None,
    votes: Annotated[int, typer.Option(min=1, max=64, help="The most answers of one request.")] = 16,
    body_bytes: Annotated[int, typer.Option(min=1, help="The largest body of a request.")] = 1 << 20,
    idle_seconds: Annotated[
        int, typer.Option(min=1, help="How long a request may take to arrive, and a connection be idle.")
    ] = 30,
    drain_seconds: Annotated[
        int, typer.Option(min=0, help="How long running answers may take when the server is ended.")
    ] = 30,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Log questions and answers; by default neither is.")
    ] = False,
    ray: RayOption = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="With --ray: engines of so many --threads.")
    ] = None,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, help="With --ray: up to so many, as the load asks for.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Serve a model over HTTP, as OpenAI's clients know it, until a signal ends it.

    With --ray, replicas on a Ray cluster serve it. Where such a fleet is running already, it is replaced
    replica by replica, without a failed request.
    """
    from ..runtime.cluster.deploy import ClusterSize, Deployment, deploy
    from ..runtime.cluster.replica import ReplicaConfig
    from ..runtime.engine.engine import Engine
    from ..runtime.server.api_keys import ApiKeys
    from ..runtime.server.engine_service import EngineService
    from ..runtime.server.request_limits import RequestLimits
    from ..runtime.server.serve import ListenConfig, run_server, served_models
    from ..workflows.adapter_resolver import resolve_runtime_lora
    from ..workflows.default_model import default_model

    if ray is None and (replicas or max_replicas):
        raise typer.BadParameter("--replicas and --max-replicas go with --ray")

    keys = ApiKeys.from_file(api_key_file) if api_key_file else None
    doorway = ListenConfig(host, port, keys, insecure, tuple(origin or ()))
    named = _named(adapter or ())
    with progress_bar("preparing") as progress:
        model = model or default_model(adapted=not named, progress=progress)
        adapters = {
            own: resolve_runtime_lora(source, model, progress=progress) for own, source in named.items()
        }
    models = served_models(name or model.stem, adapters)
    limits = {} if max_tokens is None else {"max_tokens": max_tokens}
    bounds = RequestLimits(body_bytes, votes=votes, idle_s=idle_seconds, drain_s=drain_seconds, **limits)
    options: dict[str, Any] = {
        "profile": profile,
        "context": context,
        "slots": slots,
        "threads": threads,
        "queue": queue,
    }
    fleet = ReplicaConfig(models, options, bounds, keys, doorway.allowed_hosts, doorway.origins, log_prompts)

    def listening(address: str) -> None:
        err.print(f"serving {printable(', '.join(models))} at {address}", markup=False, soft_wrap=True)

    if ray is None:
        with Engine(model, adapters=adapters, **options) as engine:
            desk = EngineService(engine, models, log_prompts=log_prompts)
            ended_by = run_server(desk, doorway, bounds, listening)
    else:
        size = ClusterSize.from_config(fleet, replicas or 1, max_replicas)
        ended_by = deploy(ray, Deployment(model, adapters, fleet, size, doorway), listening)
    if ended_by == signal.SIGINT:
        raise KeyboardInterrupt


def _named(words: Iterable[str]) -> dict[str, str]:
    """Adapters by the names that are given to them, each as NAME=ADAPTER."""
    named: dict[str, str] = {}
    for word in words:
        name, equals, source = word.partition("=")
        if not (name and equals and source) or name in named:
            raise typer.BadParameter(f"--adapter {word}: give NAME=ADAPTER, each name once")
        named[name] = source
    return named
