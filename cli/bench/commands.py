"""The group of commands `thirteen bench …`, and `thirteen bench MODEL`."""

from difflib import get_close_matches
from typing import Any

import typer

from .. import options
from ..help_sections import SectionedGroup
from . import quality, report, speed

DEFAULT = "latency"


class _ModelGroup(SectionedGroup):
    """A group whose first command can be left out before the name of a model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; what resembles the name of a command is none of a model."""
        known = [*self.commands, *ctx.help_option_names]
        if args and args[0] not in known and not get_close_matches(args[0], known, cutoff=0.8):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ModelGroup,
    help="Measure a model with and without an adapter: latency, right answers, fidelity.",
    epilog=options.example(
        "bench base.gguf --adapter my-adapter --quick", "bench latency base.gguf adapted.gguf"
    ),
    no_args_is_help=True,
    subcommand_metavar="MODEL | COMMAND [ARGS]...",
)
for _module in (speed, quality, report):
    app.add_typer(_module.app)
