"""The application `thirteen`: its commands, with help in sections, and with errors that name flags.

typer's own panels are boxes, which break lines that are to be copied.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import OptionError, RequestError

Command = TypeVar("Command", bound=Callable[..., Any])

ADVANCED = "Advanced"  # panel of the options that few need
advanced_option = partial(typer.Option, rich_help_panel=ADVANCED)
_SECTIONS = {
    "Answer": ("chat", "ask", "batch", "serve", "web", "mcp"),
    "Make": ("convert", "learn", "train", "adapter"),
    "Measure": ("bench",),
    "About": ("demo", "doctor", "models"),
}


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
    """A group of commands, whose help lists them in sections; without arguments it prints its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments."""
        if not args and not ctx.resilient_parsing:
            print(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands of each section."""
        sections = _SECTIONS if ctx.parent is None else {"Commands": self.list_commands(ctx)}
        width = formatter.width - 6 - max(map(len, self.commands))
        rows = {name: (name, command.get_short_help_str(width)) for name, command in self.commands.items()}
        _write_sections(
            formatter, {title: [rows[name] for name in names] for title, names in sections.items()}
        )


def _write_sections(formatter: Any, sections: dict[str, list[tuple[str, str]]]) -> None:
    for title, rows in sections.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=SectionedGroup,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def example(*commands: str) -> str:
    """The end of a command's help; the backspace keeps click from wrapping the lines."""
    return "\b\nExample: " + "\n         ".join(f"thirteen {command}" for command in commands)


def command(*examples: str, group: typer.Typer = app) -> Callable[[Command], Command]:
    """Make a function a command with these examples; it has the name of the function."""
    return group.command(cls=SectionedCommand, epilog=example(*examples))


def refuse_given(ctx: typer.Context, names: Iterable[str], reason: str) -> None:
    """Refuse the options that the user has given although they would have no effect.

    Args:
        ctx: of the command.
        names: names of its parameters.
        reason: follows the option in the error, such as `requires --size`.
    """
    for name in names:
        source = ctx.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            raise OptionError(name, reason)
