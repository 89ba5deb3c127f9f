"""Demo of the whole path: an answer, then the embedded base with and without an adapter, compared."""

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..bench.accuracy.answer_time import AnsweredQuestion, AnswerTimes, summarize_times, time_answers
from ..convert.adapter.adapter import load_adapter
from ..files.progress import Progress, Stage, no_progress, part_of
from ..learn.sample_rollouts import is_correct
from ..models.catalogue import adapter_folder
from ..models.rows import TrainingRow, read_rows
from ..models.texts import HELD_OUT_SUMS
from ..runtime.answer import Answer
from ..runtime.batch.reproducible_batches import BatchJob, GenerationSettings
from ..runtime.engine.engine import Engine
from ..runtime.machine.threads import default_threads
from ..runtime.plan.options import EngineOptions
from .default_model import NAME, TYPE, default_model

ADAPTER = "smollm2-135m-sums-13"
QUESTION = "If I have 3 apples and buy 4 more, how many apples do I have?"
MAX_TOKENS = 32  # the limit that the adapter was trained for
SUMS = 48  # one-step word problems
TIMED = 12  # of them are asked one at a time
_SLOTS = 8


@dataclass(frozen=True)
class DemoAnswers:
    """Answers of one model.

    Attributes:
        path: the GGUF.
        file_bytes: its size.
        answer: its answer to the question.
        right: number of sums that it solved.
        sums: each sum: whether it solved it, and the tokens of its answer.
    """

    path: str
    file_bytes: int
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
        answer_time: time to a right answer of both models, on the sums.
    """

    question: str
    max_tokens: int
    sums: int
    adapter: str
    trained_numbers: int
    base: DemoAnswers
    adapted: DemoAnswers
    answer_time: AnswerTimes


def first_answer() -> Answer:
    """Answer of the embedded model as `thirteen ask` gives it.

    Raises:
        ThirteenError: the embedded model is missing, or the cache cannot be written.
    """
    with Engine(default_model(), **_quick_options()) as engine:
        return engine.answer(QUESTION)


def run_demo(stage: Stage) -> DemoReport:
    """Convert the base with and without the shipped adapter, and compare their answers and times.

    Raises:
        ThirteenError: the embedded model is missing, or the cache cannot be written.
    """
    trained = load_adapter(adapter_folder(ADAPTER)).trained_parameters
    progress = stage("1/3 merge and quantize")
    models = [
        default_model(adapter, progress=part_of(progress, 50 * number, 50, 100))
        for number, adapter in enumerate((None, ADAPTER))
    ]
    progress(100, 100)
    progress = stage(f"2/3 answer {SUMS} sums")
    base, adapted = (
        ask_demo(model, part_of(progress, SUMS * number, SUMS, SUMS * 2))
        for number, model in enumerate(models)
    )
    settings = GenerationSettings(max_tokens=MAX_TOKENS)
    loaders = [BatchJob(model, None, settings, default_threads()).load_engine for model in models]
    questions = [row.question for row in _read_sums()[:TIMED]]  # one at a time, in alternation
    times = time_answers(loaders, questions, settings, stage(f"3/3 time {TIMED} sums"))
    answer_times = summarize_times(times, (base.sums, adapted.sums))
    return DemoReport(QUESTION, MAX_TOKENS, SUMS, ADAPTER, trained, base, adapted, answer_times)


def ask_demo(model: Path, progress: Progress = no_progress) -> DemoAnswers:
    """Ask a model the question and the sums."""
    rows, sums = _read_sums(), list[AnsweredQuestion]()
    options: EngineOptions = {**_quick_options(), "context": 512, "slots": _SLOTS}
    with Engine(model, **options) as engine:
        answer = engine.answer(QUESTION, max_tokens=MAX_TOKENS)
        for start in range(0, len(rows), _SLOTS):
            some = rows[start : start + _SLOTS]
            answers = engine.answers([row.question for row in some], max_tokens=MAX_TOKENS)
            sums += [
                AnsweredQuestion(is_correct(one, row), one.usage.completion_tokens)
                for one, row in zip(answers, some, strict=True)
            ]
            progress(len(sums), len(rows))
    right = sum(one.right for one in sums)
    return DemoAnswers(str(model), model.stat().st_size, answer, right, tuple(sums))


def demo_table(report: DemoReport) -> Group:
    """Render the report as a short text with a table."""
    both, times = (report.base, report.adapted), report.answer_time
    speeds = [one for one in (times.base, times.adapted) if one]
    table = Table("", "base", "adapted", "adapted / base", box=None, pad_edge=False)
    ratios = [ratio.text(2) if ratio else "" for ratio in (times.seconds_ratio, times.right_ratio)]
    table.add_row(f"sums right, of {report.sums}", *(str(model.right) for model in both), "")
    table.add_row("seconds a sum, one at a time", *(f"{one.seconds:.2f}" for one in speeds), ratios[0])
    table.add_row("right answers a minute", *(f"{one.right_per_minute:.1f}" for one in speeds), ratios[1])
    table.add_row("tokens of an answer, mean", *(f"{one.tokens:.0f}" for one in speeds), "")
    table.add_row("tokens a second", *(f"{(one.tokens - 1) / one.decode_s:.0f}" for one in speeds), "")
    table.add_row("file, MB", *(f"{model.file_bytes / 1e6:.1f}" for model in both), "")
    return Group(
        f"base:     {NAME} in {TYPE} (8 bits a weight)",
        f"adapted:  the same with the {report.trained_numbers} numbers of {report.adapter}",
        f"Both answer the same sums, in at most {report.max_tokens} tokens (words or parts of words). "
        "Brackets are 95 % intervals.",
        "",
        table,
        "",
        f"The question above, to both, in at most {report.max_tokens} tokens:",
        Text(f"base:     {_one_line(report.base.answer)}"),  # Text: an answer may look like rich markup
        Text(f"adapted:  {_one_line(report.adapted.answer)}"),
        "",
        "The files, for `thirteen ask FILE` and every other program that reads GGUF:",
        *(Text(f"  {_home(path)}") for path in (str(default_model()), *(model.path for model in both))),
    )


def _quick_options() -> EngineOptions:
    """Settings of an engine that does not measure first which ones are the fastest here."""
    return {"flash_attention": True, "kv": "f16", "threads": default_threads(), "adaptive_threads": True}


def _read_sums() -> list[TrainingRow]:
    return read_rows(HELD_OUT_SUMS, ("answer",))[:SUMS]


def _one_line(answer: Answer) -> str:
    return " ".join(answer.text.split()) + (" …" if answer.stop_reason == "length" else "")


def _home(path: str) -> str:
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where no home folder is known
    return f"~{path.removeprefix(home)}" if path.startswith(f"{home}/") else path
