"""What all commands print with: results on standard output, progress and warnings on standard error."""

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_STAGES_SHOWN = 4  # of a long run, the last ones


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


def _progress(speed_estimate_period: float = 30) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(
        *columns,
        console=err,
        transient=True,
        disable=not err.is_terminal,
        speed_estimate_period=speed_estimate_period,
    )


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, where that is a terminal; yields what moves it."""
    with _progress() as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def score_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar with a label that changes, and the time left by the pace of minutes, not of seconds."""
    with _progress(speed_estimate_period=600) as progress:
        task = progress.add_task("", total=None)

        def show(label: str, done: int, total: int) -> None:
            nonlocal task
            if done < progress.tasks[-1].completed:  # the next side begins: its pace is another
                progress.remove_task(task)
                task = progress.add_task(label, total=total)
            progress.update(task, description=label, completed=done, total=total)

        yield show


@contextmanager
def stage_bars() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Progress bars of several stages, one below the other; yields what starts one by its name."""
    with _progress() as progress:

        def start(name: str) -> Callable[[int, int], None]:
            for old in progress.task_ids[: 1 - _STAGES_SHOWN]:
                progress.remove_task(old)
            task = progress.add_task(name, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield start
