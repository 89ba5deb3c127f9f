"""The commands `thirteen bench …`, by what they measure."""

import typer

from . import quality, report, size, speed

app = typer.Typer(
    help="Measure an adapted model beside its base.",
    epilog="Example: thirteen bench latency base.gguf adapted.gguf",
    no_args_is_help=True,
)
for _module in (speed, quality, size, report):
    app.add_typer(_module.app)
