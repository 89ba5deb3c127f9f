"""Console output: results on standard output, progress and warnings on standard error."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressSample,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as ProgressBars
from rich.table import Table
from rich.text import Text

from ..files.progress import Progress, Run
from .spinner import spinner

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from ..runtime.answer import Answer, VoteTally
    from ..stats.interval import Interval

T = TypeVar("T", bound="DataclassInstance")

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


def printable(text: str) -> str:
    """Remove control characters, with which untrusted text could command a terminal, and rare spaces."""
    return "".join(c if c in "\n\t" or c.isprintable() else " " * c.isspace() for c in text)


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


def show_facts(as_json: bool, facts: dict[str, Any], **shown: str) -> None:
    """Print values by name as one JSON object or as a table, which shows some of them as other texts."""
    rows = {key.replace("_", " "): str(value) for key, value in (facts | shown).items()}
    show_fields(as_json, facts, rows)


def show_file(output: Path, sha256: str, as_json: bool) -> None:
    """Print the path, size and hash of a file that was written."""
    show_fields(as_json, {"output": str(output), "file_bytes": output.stat().st_size, "sha256": sha256})


def interval_json(interval: "Interval") -> dict[str, float]:
    """The JSON form of a confidence interval."""
    return {"low": interval.low, "value": interval.estimate, "high": interval.high}


def value_text(answer: "Answer") -> str:
    """The value of an answer, or why it is withheld; empty if none is stated."""
    if answer.stop_reason == "length":
        return "none, it was cut off"
    return answer.value or (
        "" if answer.sure else f"not sure{confidence_text(answer, ' (confidence {:.0%})')}"
    )


def confidence_text(answer: "Answer", form: str) -> str:
    """The confidence in an answer in a form; empty if it is not known."""
    return "" if answer.confidence is None else form.format(answer.confidence)


def votes_text(tally: "VoteTally") -> str:
    """How many answers gave each value."""
    return ", ".join(f"{value}: {count}" for value, count in tally.votes.items()) or "none"


def checks_text(answer: "Answer") -> str:
    """Which sums of an answer were checked. That they are the right sums, nothing can tell."""
    sums, equations = _counted(len(answer.steps), "sum"), _counted(answer.unread, "equation")
    if not answer.steps:
        return f"{equations} not checked" if answer.unread else ""
    wrong = [f"{step.expression} is {step.computed}" for step in answer.steps if not step.ok]
    mistakes = f", {len(wrong)} wrong: {', '.join(wrong)}" if wrong else ""
    source = ", some numbers are not in the question" if answer.verified and not answer.grounded else ""
    rest = f"{equations} and the reasoning were" if answer.unread else "the reasoning was"
    return f"{sums} checked{mistakes}{source}; {rest} not"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def command_line() -> str:
    """The command line of this process, quoted for a shell."""
    return shlex.join(["thirteen", *sys.argv[1:]])


def json_text(value: dict[str, Any]) -> str:
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
        self._begun = dict[TaskID, tuple[float, int]]()

    def show(self, task: TaskID, title: str, done: int, total: int, together: int = 1) -> None:
        """Show how much is done.

        Of `together` steps that run at the same time, the first to end tell no speed: it is counted from the
        first call on, when so many have ended.
        """
        begun_s, first = self._begun.setdefault(task, (self.get_time(), done))
        self.update(task, description=title, completed=done, total=total)
        samples = self._tasks[task]._progress
        if done - first < together > 1:
            samples.clear()
        elif together > 1 and len(samples) == 1:
            steps = ProgressSample(self.get_time(), done - first)
            samples.extend((ProgressSample(begun_s, 0), steps))
            samples.popleft()
        if self.disable and self.get_time() - self._printed_s >= _LINE_INTERVAL_S:
            self._printed_s = self.get_time()
            note(_progress_line(self._tasks[task]))


def _progress_line(task: Task) -> str:
    parts = [f"{task.completed:,} of {task.total:,}", f"{task.percentage:.0f} %"]
    if task.time_remaining is not None:
        parts.append(f"{duration_text(task.time_remaining)} left")
    return f"{task.description}: {', '.join(parts)}"


def duration_text(seconds: float) -> str:
    """A duration in its two largest units: `1 h 5 min`, `1 min 20 s`, `20 s`."""
    minutes, s = divmod(round(seconds), 60)
    hours, min_ = divmod(minutes, 60)
    if hours:
        return f"{hours} h {min_} min"
    return f"{min_} min {s} s" if min_ else f"{s} s"


@contextmanager
def progress_bar(title: str, together: int = 1) -> Iterator[Progress]:
    """Show a progress bar on standard error; yields its callback. See _Bars.show() for `together`."""
    with run_bars(together=together) as run:
        yield run.stage(title)


@contextmanager
def labelled_progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar with a changing label."""
    with _Bars() as bars:
        task = bars.add_task("", total=None)

        def show(label: str, done: int, total: int) -> None:
            nonlocal task
            if done < bars.tasks[-1].completed:  # the next model starts, with another speed
                bars.remove_task(task)
                task = bars.add_task(label, total=total)
            bars.show(task, label, done, total)

        yield show


@contextmanager
def run_bars(threads: int | None = None, *, together: int = 1) -> Iterator[Run]:
    """Show one progress bar per stage of a run, the last few of them; yields the run."""
    bars = _Bars()

    def start(name: str) -> Progress:
        spinner.end()
        bars.start()
        for old in bars.task_ids[: 1 - _STAGES_SHOWN]:
            bars.remove_task(old)
        return partial(bars.show, bars.add_task(name, total=None), name, together=together)

    try:
        yield Run(threads, start)
    finally:
        bars.stop()  # also after Ctrl-C while they start: it shows the cursor again
