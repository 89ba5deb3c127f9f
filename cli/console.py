"""Console output: results on standard output, progress and warnings on standard error."""

import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.table import Table
from rich.text import Text

from ..files.progress import Progress, Run

_STAGES_SHOWN = 4
_LINE_INTERVAL_S = 10
_ESTIMATE_PERIOD_S = 600  # of the last steps, whose speed tells the time left


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Raise the error for main(); rich would exit with status 1."""
        raise BrokenPipeError


class _Errors(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        """Print; what the file takes no more, as on a full disk, is dropped."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Drop what follows: without a reader of its progress, the work still goes on."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


# A process that was started with closed standard streams gets empty ones.
for _name, _mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, _name) is None:
        setattr(sys, _name, Path(os.devnull).open(_mode, encoding="utf-8"))  # noqa: SIM115 - to the end
out = _Output(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 200)
err = _Errors(stderr=True, highlight=False, emoji=False)
_waiting = err.status("")


def wait_for(text: str) -> None:
    """Show a spinner and what is waited for on a terminal's standard error, until end_wait() or a note."""
    _waiting.update(text)
    if sys.stderr.isatty():  # rich would also write to a file, under FORCE_COLOR
        _waiting.start()


def end_wait() -> None:
    """Erase the line of wait_for()."""
    _waiting.stop()


def printable(text: str) -> str:
    """Remove control characters, with which untrusted text could command a terminal, and rare spaces."""
    return "".join(c if c in "\n\t" or c.isprintable() else " " * c.isspace() for c in text)


def show_text(text: str) -> None:
    """Print a model's text as it is; rich would wrap its lines."""
    sys.stdout.write(f"{printable(text)}\n")


def note(message: str) -> None:
    """Print a line on standard error, after what standard output has so far."""
    end_wait()
    sys.stdout.flush()
    err.print(printable(message), markup=False, soft_wrap=True)


def warn(warnings: Iterable[str]) -> None:
    """Print each warning as a line on standard error."""
    for warning in warnings:
        note(f"warning: {warning}")


def show(as_json: bool, facts: Any, table: RenderableType | Mapping[str, object] | None = None) -> None:
    """Print a result, a mapping or a dataclass, as one JSON object or as a table; by default of all facts."""
    if as_json:
        print(json_text(facts))
    elif table is None or isinstance(table, Mapping):
        out.print(facts_table(facts if table is None else table))
    else:
        out.print(table)


def facts_table(rows: Mapping[str, object]) -> Table:
    """A table of names and values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows.items():
        # Text: values may look like rich markup
        table.add_row(Text(printable(key.replace("_", " "))), Text(printable(str(value))))
    return table


def show_file(output: Path, sha256: str, as_json: bool) -> None:
    """Print the path, size and hash of a file that was written."""
    show(as_json, {"output": str(output), "file_bytes": output.stat().st_size, "sha256": sha256})


def command_line() -> str:
    """The command line of this process, quoted for a shell."""
    return shlex.join(["thirteen", *sys.argv[1:]])


def json_text(value: Any) -> str:
    """Format JSON, with NaN and infinity as null."""
    from pydantic_core import to_jsonable_python

    return json.dumps(to_jsonable_python(value, inf_nan_mode="null", fallback=str))


class _Bars(ProgressBars):
    """Progress bars; where standard error is not a terminal, a line of text at most every ten seconds."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(
            *columns,
            console=err,
            transient=True,
            disable=not err.is_terminal,
            speed_estimate_period=_ESTIMATE_PERIOD_S,
        )
        self._printed_s = self.get_time()

    def show(self, number: TaskID, done: int, total: int) -> None:
        """Show how much is done."""
        self.update(number, completed=done, total=total)
        if self.disable and self.get_time() - self._printed_s >= _LINE_INTERVAL_S:
            self._printed_s, task = self.get_time(), self._tasks[number]
            left = "" if task.time_remaining is None else f", {timedelta(seconds=task.time_remaining)} left"
            note(f"{task.description}: {done:,} of {total:,}, {task.percentage:.0f} %{left}")


@contextmanager
def run_bars(threads: int | None = None) -> Iterator[Run]:
    """Show one progress bar per stage of a run, the last few of them; yields the run."""
    bars = _Bars()

    def start(name: str) -> Progress:
        end_wait()
        bars.start()
        for old in bars.task_ids[: 1 - _STAGES_SHOWN]:
            bars.remove_task(old)
        return partial(bars.show, bars.add_task(name, total=None))

    try:
        yield Run(threads, start)
    finally:
        bars.stop()  # also after Ctrl-C while they start: it shows the cursor again


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show a progress bar on standard error; yields its callback."""
    with run_bars() as run:
        yield run.stage(title)
