"""Command `thirteen web`."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from . import options
from .application import command, refuse_given
from .console import note, show


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

    from ..files.temporary_folder import temporary_folder
    from ..server.serving import bind_socket
    from ..web.site import check_site_folder, write_site
    from ..web.static_files import site_app
    from ..web.wllama import wllama_files

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
