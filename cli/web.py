"""The command `thirteen web`: a page that runs a model in a visitor's own browser."""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from .console import err, progress_bar, show_facts
from .options import Json

app = typer.Typer()


@app.command(
    "web",
    epilog="Example: thirteen web my-model.gguf --out site or: thirteen web my-model.gguf --serve",
)
def web(
    model: Annotated[Path, typer.Argument(help="A GGUF of at most 2 GB.")],
    folder: Annotated[
        Path | None, typer.Option("--out", help="The folder to write: any host of static files takes it.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve it on this machine, with the headers that threads need.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --serve; 0 takes a free one.")] = 8081,
    name: Annotated[str | None, typer.Option(help="The model's name; by default that of its file.")] = None,
    context: Annotated[int, typer.Option(min=1, help="The most tokens of question and answer.")] = 2048,
    wllama: Annotated[
        Path | None, typer.Option(help="The npm package's archive; by default npm fetches it once.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a page that runs a model on its visitor's own device, offline after the first visit."""
    from ..web.site import write_site
    from ..web.static_server import serve_folder
    from ..web.wllama import wllama_files

    if folder is None and not serve:
        raise typer.BadParameter("web: give --out DIR, --serve, or both")
    with TemporaryDirectory() as temporary:
        with progress_bar("writing") as progress:
            engine = wllama_files(wllama)
            target = folder or Path(temporary)
            site = write_site(model, target, engine, name=name, context=context, progress=progress)
        facts = asdict(site)
        if folder:
            show_facts(as_json, facts)
        if serve:
            serve_folder(
                target, port, lambda address: err.print(f"serving {model.name} at {address}", markup=False)
            )
