"""Console output: results on standard output, progress and warnings on standard error."""

import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.table import Table
from rich.text import Text

from ..files.progress import Progress, Stage
from .spinner import spinner

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from ..runtime.answer import Answer, VoteTally
    from ..stats.interval import Interval

T = TypeVar("T", bound="DataclassInstance")

_STAGES_SHOWN = 4
_LINE_INTERVAL_S = 10
_ESTIMATE_S, _ESTIMATE_LATEST_S, _ESTIMATE_SHARE = 3, 60, 0.1  # what an estimate of the time left needs
_RESUMED_S = 1  # steps that are reported sooner were done by an earlier run


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Raise the error for main(); rich would exit with status 1."""
        raise BrokenPipeError


class _Errors(Console):
    def on_broken_pipe(self) -> None:
        """Drop what follows: without a reader of its progress, the work still goes on."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _open_closed_streams() -> None:
    """Give a process that was started with closed standard streams empty ones."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - to the end


_open_closed_streams()
out = _Output(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 200)
err = _Errors(stderr=True, highlight=False, emoji=False)


def printable(text: str) -> str:
    """Remove control characters, with which untrusted text could command a terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


def show_text(text: str) -> None:
    """Print a model's text as it is; rich would wrap its lines."""
    sys.stdout.write(f"{printable(text)}\n")


def note(message: str) -> None:
    """Print a line on standard error, after what standard output has so far."""
    spinner.end()
    sys.stdout.flush()
    err.print(printable(message), markup=False, soft_wrap=True)


def warn(warnings: Iterable[str]) -> None:
    """Print each warning as a line on standard error."""
    for warning in warnings:
        note(f"warning: {warning}")


def facts_table(rows: Mapping[str, str]) -> Table:
    """A table of names and values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(Text(printable(key)), Text(printable(value)))  # Text: values may look like rich markup
    return table


def show_result(as_json: bool, result: dict[str, Any], table: Callable[[], RenderableType]) -> None:
    """Print a result as one JSON object or as a table."""
    if as_json:
        print(json_text(result))
    else:
        out.print(table())


def show_report(as_json: bool, report: T, table: Callable[[T], RenderableType]) -> None:
    """Print a report dataclass as one JSON object or as a table."""
    show_result(as_json, asdict(report), lambda: table(report))


def show_fields(as_json: bool, facts: dict[str, Any], rows: Mapping[str, str] | None = None) -> None:
    """Print names and values as one JSON object or as a table, whose rows may differ from the JSON."""
    rows = {key: str(value) for key, value in facts.items()} if rows is None else rows
    show_result(as_json, facts, lambda: facts_table(rows))


def show_file(output: Path, sha256: str, as_json: bool) -> None:
    """Print the path, size and hash of a file that was written."""
    show_fields(as_json, {"output": str(output), "file_bytes": output.stat().st_size, "sha256": sha256})


def interval_json(interval: "Interval") -> dict[str, float]:
    """The JSON form of a confidence interval."""
    return {"low": interval.low, "value": interval.estimate, "high": interval.high}


def value_text(answer: "Answer") -> str:
    """The value of an answer, or why there is none."""
    if not answer.sure:
        return f"not sure (confidence {answer.confidence:.0%})"
    return answer.value if answer.value is not None else "none found"


def votes_text(tally: "VoteTally") -> str:
    """How many answers gave each value."""
    return ", ".join(f"{value}: {count}" for value, count in tally.votes.items()) or "none"


def command_line() -> str:
    """The command line of this process, quoted for a shell."""
    return shlex.join(["thirteen", *sys.argv[1:]])


def json_text(value: dict[str, Any], indent: int | None = None) -> str:
    """Format JSON, with NaN and infinity as null."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(value), indent=indent, default=str, allow_nan=False)


class _TimeLeft(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        known = _can_estimate(task.completed, task.remaining or 0, task.elapsed or 0)
        return super().render(task) if known else Text("")


def _bars(speed_estimate_period: float = 30) -> ProgressBars:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _TimeLeft())
    return ProgressBars(
        *columns,
        console=err,
        transient=True,
        disable=not err.is_terminal,
        speed_estimate_period=speed_estimate_period,
    )


class _ProgressLines:
    """Progress as lines of text, at most one every ten seconds, when standard error is not a terminal."""

    def __init__(self) -> None:
        self._printed_s = monotonic()
        self.begin("")

    def begin(self, title: str) -> None:
        """Begin the work of this title, from which the time left is estimated."""
        self._title, self._begun_s = title, monotonic()
        self._since_s, self._before, self._done = self._begun_s, 0, 0

    def show(self, title: str, done: int, total: int) -> None:
        if title != self._title or done < self._done:
            self.begin(title)
        self._done, now_s = done, monotonic()
        if now_s - self._begun_s < _RESUMED_S:
            self._since_s, self._before = now_s, done
        if not err.is_terminal and now_s - self._printed_s >= _LINE_INTERVAL_S:
            self._printed_s = now_s
            left = time_left(done - self._before, total - done, now_s - self._since_s)
            share = f"{done / total:.0%}".replace("%", " %") if total else ""
            note(f"{title}: " + ", ".join(filter(None, (f"{done:,} of {total:,}", share, left))))


def _can_estimate(done: float, missing: float, elapsed_s: float) -> bool:
    """Whether enough is done to tell the rest: the first steps of a stage also load its models."""
    return elapsed_s >= _ESTIMATE_S and (done >= missing * _ESTIMATE_SHARE or elapsed_s >= _ESTIMATE_LATEST_S)


def time_left(done: int, missing: int, elapsed_s: float) -> str:
    """How long the missing steps take if they are as fast as those done; empty if too few are done."""
    known = done > 0 and _can_estimate(done, missing, elapsed_s)
    return f"{duration_text(missing * elapsed_s / done)} left" if known else ""


def duration_text(seconds: float) -> str:
    """A duration in its two largest units: `1 h 5 min`, `1 min 20 s`, `20 s`."""
    minutes, s = divmod(round(seconds), 60)
    hours, min_ = divmod(minutes, 60)
    if hours:
        return f"{hours} h {min_} min"
    return f"{min_} min {s} s" if min_ else f"{s} s"


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show a progress bar on standard error; yields its callback."""
    with stage_bars() as start:
        yield start(title)


@contextmanager
def labelled_progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar with a changing label; the remaining time is estimated over ten minutes."""
    with _bars(speed_estimate_period=600) as bars:
        task, lines = bars.add_task("", total=None), _ProgressLines()

        def show(label: str, done: int, total: int) -> None:
            nonlocal task
            if done < bars.tasks[-1].completed:  # the next model starts, with another speed
                bars.remove_task(task)
                task = bars.add_task(label, total=total)
            bars.update(task, description=label, completed=done, total=total)
            lines.show(label, done, total)

        yield show


@contextmanager
def stage_bars() -> Iterator[Stage]:
    """Show one progress bar per stage, the last few of them; yields the function that starts a stage."""
    bars, lines = _bars(), _ProgressLines()

    def start(name: str) -> Progress:
        spinner.end()
        bars.start()
        for old in bars.task_ids[: 1 - _STAGES_SHOWN]:
            bars.remove_task(old)
        task = bars.add_task(name, total=None)
        lines.begin(name)

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)
            lines.show(name, done, total)

        return show

    try:
        yield start
    finally:
        bars.stop()  # also after Ctrl-C while they start: it shows the cursor again
