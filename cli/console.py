"""What all commands print with: results on standard output, progress and warnings on standard error."""

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.table import Table
from rich.text import Text

from ..files.progress import Progress, Stage

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_STAGES_SHOWN = 4  # the last ones of a long run
_LINE_EVERY_S = 10


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to main(), where rich would end the program with status 1."""
        raise BrokenPipeError


out = _Output(highlight=False, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False)


def printable(text: str) -> str:
    """Model text without control characters, which could command a terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


def warn(warnings: Iterable[str]) -> None:
    """Print warnings, a line each."""
    for warning in warnings:
        err.print(f"warning: {printable(warning)}", markup=False, soft_wrap=True)


def facts_table(rows: dict[str, str]) -> Table:
    """A table of names and what is to be said of them."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(Text(printable(key)), Text(printable(value)))  # a file's own text is no markup
    return table


def show_result(as_json: bool, result: dict[str, Any], table: Callable[[], RenderableType]) -> None:
    """Print a result: one JSON object, or a table."""
    if as_json:
        print(json_text(result))
    else:
        out.print(table())


def show_report(as_json: bool, report: T, table: Callable[[T], RenderableType]) -> None:
    """Print a report dataclass: its fields as one JSON object, or the table made of it."""
    show_result(as_json, asdict(report), lambda: table(report))


def show_facts(as_json: bool, facts: dict[str, Any]) -> None:
    """Print a result that is names and values, which a table has as they are."""
    show_result(as_json, facts, lambda: facts_table({key: str(value) for key, value in facts.items()}))


def command_line() -> str:
    """The command as it was given, for those who want to repeat it."""
    return shlex.join(["thirteen", *sys.argv[1:]])


def show_file(output: Path, sha256: str, as_json: bool) -> None:
    """Print what was written."""
    facts = {"output": str(output), "file_bytes": output.stat().st_size, "sha256": sha256}
    show_facts(as_json, facts)


def json_text(value: dict[str, Any], indent: int | None = None) -> str:
    """As JSON, which has no NaN and no infinity: they become null."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(value), indent=indent, default=str, allow_nan=False)


def _bars(speed_estimate_period: float = 30) -> ProgressBars:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return ProgressBars(
        *columns,
        console=err,
        transient=True,
        disable=not err.is_terminal,
        speed_estimate_period=speed_estimate_period,
    )


class _Lines:
    """Progress as plain lines, one every ten seconds, for a standard error that is not a terminal."""

    def __init__(self) -> None:
        self._last_s = monotonic()

    def show(self, title: str, done: int, total: int) -> None:
        if not err.is_terminal and monotonic() - self._last_s >= _LINE_EVERY_S:
            self._last_s = monotonic()
            err.print(f"{title}: {done:,} of {total:,}", markup=False, soft_wrap=True)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show progress on standard error; yields the callback that moves it."""
    with stage_bars() as start:
        yield start(title)


@contextmanager
def score_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show progress under a changing label, with the time left estimated over minutes, not seconds."""
    with _bars(speed_estimate_period=600) as bars:
        task, lines = bars.add_task("", total=None), _Lines()

        def show(label: str, done: int, total: int) -> None:
            nonlocal task
            if done < bars.tasks[-1].completed:  # the next model starts, at a pace of its own
                bars.remove_task(task)
                task = bars.add_task(label, total=total)
            bars.update(task, description=label, completed=done, total=total)
            lines.show(label, done, total)

        yield show


@contextmanager
def stage_bars() -> Iterator[Stage]:
    """Show the progress of several stages, one below the other; yields what starts a stage by its name."""
    with _bars() as bars:
        lines = _Lines()

        def start(name: str) -> Progress:
            for old in bars.task_ids[: 1 - _STAGES_SHOWN]:
                bars.remove_task(old)
            task = bars.add_task(name, total=None)

            def show(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)
                lines.show(name, done, total)

            return show

        yield start
