"""Demo of the whole path: the embedded base with and without its adapter as GGUFs; answers and latency."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.table import Table

from ..bench.accuracy.answer_time import AnsweredQuestion, AnswerTimes, summarize_times, time_rows
from ..bench.accuracy.timed_answers import TIMED, time_answers
from ..bench.speed import latency
from ..bench.speed.questions import QuestionShape
from ..convert.adapter.adapter import load_adapter
from ..files.progress import Progress, no_progress
from ..learn.sample_rollouts import is_correct
from ..models.catalogue import adapter_folder
from ..models.rows import TrainingRow, read_rows
from ..models.texts import held_out_sums
from ..runtime.answer import Answer
from ..runtime.batch.reproducible_batches import BatchJob, GenerationSettings
from ..runtime.engine.engine import Engine
from ..runtime.threads import default_threads
from .default_model import NAME, TYPE, default_model

ADAPTER = "smollm2-135m-sums-13"
QUESTION = "If I have 3 apples and buy 4 more, how many apples do I have?"
MAX_TOKENS = 32  # the limit that the adapter was trained for
SUMS = 48  # one-step word problems


@dataclass(frozen=True)
class DemoAnswers:
    """Answers of one model.

    Attributes:
        answer: its answer to the question.
        right: number of sums that it solved.
        sums: each sum: whether it solved it, and the tokens of its answer.
    """

    answer: Answer
    right: int
    sums: tuple[AnsweredQuestion, ...]


@dataclass(frozen=True)
class DemoReport:
    """Result of the demo.

    Attributes:
        question: the question that both models answered.
        max_tokens: maximum length of an answer.
        sums: number of sums that both models answered.
        adapter: name of the adapter.
        trained_numbers: its number of trained parameters.
        base: answers of the base.
        adapted: answers of the adapted model.
        bench: latency of both models.
        answer_time: time to a right answer of both models, on the sums.
    """

    question: str
    max_tokens: int
    sums: int
    adapter: str
    trained_numbers: int
    base: DemoAnswers
    adapted: DemoAnswers
    bench: latency.LatencyReport
    answer_time: AnswerTimes


def run_demo(progress: Progress = no_progress) -> DemoReport:
    """Convert the base with and without the shipped adapter, and compare their answers and latency.

    Raises:
        ThirteenError: the embedded model is missing, or the cache cannot be written.
    """
    base = default_model(None, progress=progress)
    adapted = default_model(ADAPTER, progress=progress)
    answers = ask_demo(base), ask_demo(adapted)
    return DemoReport(
        question=QUESTION,
        max_tokens=MAX_TOKENS,
        sums=SUMS,
        adapter=ADAPTER,
        trained_numbers=load_adapter(adapter_folder(ADAPTER)).trained_parameters,
        base=answers[0],
        adapted=answers[1],
        bench=latency.run_latency(
            latency.LatencyRequest(base=base, adapted=adapted, questions=(QuestionShape(64, 33),)), progress
        ),
        answer_time=time_demo((base, adapted), answers, progress),
    )


def time_demo(
    models: Sequence[Path], answers: Sequence[DemoAnswers], progress: Progress = no_progress
) -> AnswerTimes:
    """Time some of the sums that the models answered, asked one at a time in alternation."""
    settings = GenerationSettings(max_tokens=MAX_TOKENS)
    threads = default_threads()
    loaders = [BatchJob(model, None, settings, threads).load_engine for model in models]
    questions = [row.question for row in _read_sums()]
    times = time_answers(loaders, questions[:TIMED], settings, progress)
    return summarize_times(times, [one.sums for one in answers])


def demo_table(report: DemoReport) -> Group:
    """Render the report as a short text with a table."""
    bench, speeds = report.bench, report.bench.middle
    table = Table("", "base", "adapted", "adapted / base", box=None, pad_edge=False)
    for name, measure in (
        ("prefill", speeds.prefill),
        ("first token", speeds.first_token),
        ("decode", speeds.decode),
    ):
        ratio = measure.ratio
        table.add_row(
            f"{name}, {measure.unit}",
            f"{measure.base_median:.3g}",
            f"{measure.adapted_median:.3g}",
            f"{ratio.estimate:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
        )
    sizes = [model.file_bytes / 1e6 for model in (bench.base, bench.adapted)]
    table.add_section()
    for row in time_rows(report.answer_time):
        table.add_row(*row)
    table.add_section()
    table.add_row("file, MB", *(f"{size:.1f}" for size in sizes), f"{sizes[1] / sizes[0]:.3f}")
    both = (report.base, report.adapted)
    table.add_row(f"sums right, of {report.sums}", *(str(model.right) for model in both), "")
    table.add_row("answer", *(model.answer.value or "none" for model in both), "")
    return Group(
        f"base      {NAME}, {TYPE}: {_home(bench.base.path)}",
        f"adapted   + {report.adapter}, {report.trained_numbers} trained numbers: "
        f"{_home(bench.adapted.path)}",
        f"sums      in words, one step each, answered within {report.max_tokens} tokens",
        f"question  {report.question}",
        "",
        table,
    )


def ask_demo(model: Path) -> DemoAnswers:
    """Ask a model the question and the sums."""
    rows = _read_sums()
    with Engine(model, context=512, slots=8) as engine:
        answer = engine.answer(QUESTION, max_tokens=MAX_TOKENS)
        answers = engine.answers([row.question for row in rows], max_tokens=MAX_TOKENS)
    sums = tuple(
        AnsweredQuestion(is_correct(one, row), one.usage.completion_tokens)
        for one, row in zip(answers, rows, strict=True)
    )
    return DemoAnswers(answer, sum(one.right for one in sums), sums)


def _read_sums() -> list[TrainingRow]:
    return read_rows(held_out_sums(), ("answer",))[:SUMS]


def _home(path: str) -> str:
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where no home folder is known
    return f"~{path.removeprefix(home)}" if path.startswith(f"{home}/") else path
