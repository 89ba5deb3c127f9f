"""The group of commands `thirteen bench …`."""

import typer

from .. import options
from ..help_sections import SectionedGroup
from . import quality, report, size, speed

app = typer.Typer(
    cls=SectionedGroup,
    help="Measure speed, size, memory, fidelity and accuracy.",
    epilog=options.example("bench latency base.gguf adapted.gguf"),
    no_args_is_help=True,
)
for _module in (speed, quality, size, report):
    app.add_typer(_module.app)
