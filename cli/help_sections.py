"""Commands with help in sections, and with errors that name flags.

typer's own panels are boxes, which break lines that are to be copied.
"""

from collections import defaultdict
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import OptionError, RequestError

ADVANCED = "Advanced"  # panel of the options that few need
advanced_option = partial(typer.Option, rich_help_panel=ADVANCED)


def flag(command: Any, name: str) -> str:
    """How a command calls a parameter: `--size`, or `BASE`; its name where the command has none of it."""
    for param in command.params:
        if param.name.rstrip("_") == name:  # type_ is --type
            flags = (option for option in param.opts if option.startswith("--"))
            return str(next(flags, param.metavar or name.upper()))
    return name


class SectionedCommand(TyperCommand):
    """A command whose help lists the options of each panel in a section of its own.

    Errors of options are raised with its flags in place of the names of Python.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except OptionError as error:
            raise RequestError(error.text(partial(flag, self))) from None

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, options, and then the options of each panel."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            name = "Arguments" if param.param_type_name == "argument" else "Options"
            if record := param.get_help_record(ctx):
                sections.setdefault(getattr(param, "rich_help_panel", None) or name, []).append(record)
        _write_sections(formatter, sections)


class SectionedGroup(TyperGroup):
    """A group of commands whose help lists those of each panel in a section of its own.

    Without arguments it prints its help, with status 0, if it is created with `no_args_is_help`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            print(ctx.get_help())
            raise typer.Exit
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands of each panel."""
        commands = {name: self.commands[name] for name in self.list_commands(ctx)}
        width = formatter.width - 6 - max(map(len, commands))
        sections = defaultdict[str, list[tuple[str, str]]](list)
        for name, command in commands.items():
            panel = getattr(command, "rich_help_panel", None)
            title = panel if isinstance(panel, str) else "Commands"
            sections[title].append((name, command.get_short_help_str(width)))
        _write_sections(formatter, sections)


def _write_sections(formatter: Any, sections: dict[str, list[tuple[str, str]]]) -> None:
    for title, rows in sections.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)
