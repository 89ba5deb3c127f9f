"""Accuracy of a model on a question set, and of its base on the same questions, compared in pairs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ...files.cache_folder import cache_dir
from ...files.gguf.header import read_header
from ...quality.environment import BenchReport, report_head
from ...runtime.batch.reproducible_batches import BatchExecutor, BatchJob
from ...runtime.validation import check_integer
from ...stats.bootstrap import PASSAGES_MIN
from ..harness.format import Table
from .accuracy_metrics import PairedScores, Scores, pair_scores
from .answer_time import (
    TIMED,
    AnsweredQuestion,
    AnswerTimes,
    describe_times,
    summarize_times,
    time_answers,
    time_rows,
)
from .datasets import QuestionSet
from .eval_log import Outcome, QuestionRecord
from .evaluate import EvalProgress, ModelResult, RunConfig, evaluate
from .prompts import PromptSettings

_TRUNCATED_MAX = 0.05  # share of truncated answers above which the report warns


@dataclass(frozen=True, slots=True)
class AccuracyReport(BenchReport):
    """Accuracy of a model and its base.

    Attributes:
        terms: prompt and generation settings.
        data: name of the question set.
        source: origin of the question set.
        data_sha256: hash of questions and answers.
        adapted: the model.
        base: the model that it is compared with; None without one.
        paired: paired comparison; None without a base, or if every question failed on one of them.
        verdict: conclusions in words, a line each.
        answer_time: time to a right answer; None if no question was timed.
    """

    terms: PromptSettings
    data: str
    source: str
    data_sha256: str
    adapted: ModelResult
    base: ModelResult | None
    paired: PairedScores | None
    verdict: tuple[str, ...]
    answer_time: AnswerTimes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyRequest:
    """Options of an evaluation.

    Attributes:
        model: a GGUF file.
        questions: the questions; see load_question_set().
        settings: prompt and generation settings.
        base: the unadapted model, another GGUF file, or the same one with `adapter`.
        adapter: a LoRA in a GGUF file, applied at run time to `model`.
        records: folder of the logs; by default one in the cache.
        timed: number of questions that are then asked one at a time on this machine, for the time to a right
            answer; see answer_time.py.
    """

    model: Path
    questions: QuestionSet
    settings: PromptSettings = field(default_factory=PromptSettings)
    base: Path | None = None
    adapter: Path | None = None
    records: Path | None = None
    timed: int = TIMED


def run_accuracy(
    request: AccuracyRequest,
    executor: BatchExecutor = BatchJob.run,
    progress: EvalProgress = lambda label, done, total: None,
) -> AccuracyReport:
    """Evaluate a model, and its base on the same questions; resumes from the logs of an interrupted run.

    Args:
        request: what is measured.
        executor: answers batches, BatchJob.run or RayWorkers.run.
        progress: called with the model's name and accuracy so far, and with questions done and in all.

    Raises:
        FileError: a file is not a GGUF, is damaged, or cannot be run by this build; the adapter does not fit
            the model.
        RequestError: all questions failed, or a log belongs to another run.
        OutputError: a log cannot be written.
    """
    check_integer("bench: timed", request.timed, 0)
    model, base, adapter = request.model, request.base, request.adapter
    for path in filter(None, (model, base, adapter)):
        read_header(path)  # a bad file fails before the first question
    head = report_head()
    folder = request.records or cache_dir() / "accuracy"
    models: dict[str, tuple[Path, Path | None]] = {"adapted" if base else _alone(adapter): (model, adapter)}
    if base:
        models = {"base": (base, None), **models}
    configs = {
        name: RunConfig(*files, request.questions, request.settings, folder) for name, files in models.items()
    }
    evaluations = {name: evaluate(name, config, executor, progress) for name, config in configs.items()}
    times = None
    if request.timed:
        records = [records for _, records in evaluations.values()]
        times = _time_answers(list(configs.values()), records, request.timed, progress)
    *baseline, (adapted, answered) = evaluations.values()
    paired = pair_scores(baseline[0][1], answered) if baseline else None
    results = {name: result for name, (result, _) in evaluations.items()}
    return AccuracyReport(
        *head,
        terms=request.settings,
        data=request.questions.name,
        source=request.questions.source,
        data_sha256=request.questions.sha256,
        adapted=adapted,
        base=baseline[0][0] if baseline else None,
        paired=paired,
        verdict=tuple(_verdict(paired, results, times)),
        answer_time=times,
    )


def _alone(adapter: object) -> str:
    """Name of a model without a base to compare with."""
    return "model with adapter" if adapter else "model"


def _time_answers(
    configs: Sequence[RunConfig],
    records: Sequence[Sequence[QuestionRecord]],
    timed: int,
    progress: EvalProgress,
) -> AnswerTimes | None:
    """Time some of the questions that all models answered; None if there is no such question."""
    answered = [of_all for of_all in zip(*records, strict=True) if all(one.samples for one in of_all)]
    if not answered:
        return None
    count = min(timed, len(answered))
    chosen = [answered[n * len(answered) // count] for n in range(count)]  # evenly spaced
    texts = configs[0].question_set.questions
    times = time_answers(
        [config.job.load_engine for config in configs],
        [texts[one.number].text for one, *_ in chosen],
        configs[0].settings,
        partial(progress, "time to an answer"),
    )
    # A vote ends with fewer tokens alone than in a batch, where all answers of a wave are waited for.
    times_by_tokens = [
        [
            replace(time, tokens=record.tokens) if len(record.samples) > 1 else time
            for time, record in zip(of_model, recorded, strict=True)
        ]
        for of_model, recorded in zip(times, zip(*chosen, strict=True), strict=True)
    ]
    questions = [
        [AnsweredQuestion(one.outcome is Outcome.CORRECT, one.tokens) for one in model]
        for model in zip(*answered, strict=True)
    ]
    return summarize_times(times_by_tokens, questions)


def _verdict(
    paired: PairedScores | None, results: Mapping[str, ModelResult], times: AnswerTimes | None
) -> Iterator[str]:
    *base, adapted = results.values()
    if adapted.adapter and not base:
        base_file = f"{adapted.path} as the base"
        yield f"only the model with the adapter was measured; give {base_file} to measure it without"
    if paired:
        if times:
            yield describe_times(times, paired.difference)
            if times.timed < PASSAGES_MIN:
                yield f"warning: {times.timed} timed questions are too few for the interval of their ratios"
        yield _describe_difference(paired)
    for name, result in results.items():
        yield from _warnings(name, result.scores)


def _describe_difference(paired: PairedScores) -> str:
    points = paired.difference
    low, high = (f"{100 * bound:+.1f}" for bound in (points.low, points.high))
    counts = f"{paired.gained} gained, {paired.lost} lost of {paired.questions}, p = {paired.p_value:.2g}"
    if not paired.differs:
        return f"accuracy: no significant difference ({low} to {high} points; {counts})"
    word = "better" if points.estimate > 0 else "worse"
    return f"accuracy: {word} by {100 * abs(points.estimate):.1f} points ({low} to {high}; {counts})"


def _warnings(name: str, scores: Scores) -> Iterator[str]:
    if scores.truncated > _TRUNCATED_MAX * scores.questions:
        yield f"warning: {scores.truncated} answers of {name} were truncated; allow more tokens"
    if scores.errors:
        yield (
            f"warning: {scores.errors} questions failed on {name} and are excluded; the first: "
            f"{scores.first_error}"
        )


def accuracy_table(report: AccuracyReport) -> Table:
    """Tabulate the models, with the verdict and the settings below."""
    columns = ["base", "adapted"] if report.base else [_alone(report.adapted.adapter)]
    if report.paired:
        columns.append("against the base (95 %)" if report.answer_time else "adapted - base (95 %)")
    rows = _rows([result.scores for result in (report.base, report.adapted) if result], report.paired)
    times = report.answer_time
    return Table(
        f"{report.data}, {report.terms.prompt}",
        ("", *columns),
        (*rows, *(time_rows(times) if times else ())),
        tuple(_notes(report)),
    )


def _rows(models: Sequence[Scores], paired: PairedScores | None) -> Iterator[tuple[str, ...]]:
    difference = (f"{paired.difference.text(1, 100)} points",) if paired else ()
    yield "accuracy, % (95 %)", *(scores.accuracy.text(1, 100) for scores in models), *difference
    for name in ("correct", "wrong", "truncated", "unparsed", "errors"):
        yield name, *(str(getattr(scores, name)) for scores in models)
    calibrations = [scores.calibration for scores in models]
    if any(calibrations):
        errors = (f"{one.error:.3f}" if one else "" for one in calibrations)
        yield "expected calibration error of confidence", *errors
    yield "tokens per answer", *(f"{scores.tokens:.0f}" for scores in models)
    if paired:
        yield "gained, lost", "", "", f"{paired.gained}, {paired.lost}"
        yield "McNemar's exact p", "", "", f"{paired.p_value:.3g}"


def _notes(report: AccuracyReport) -> Iterator[str]:
    settings, times = report.terms, report.answer_time
    yield from report.verdict
    yield f"{report.adapted.scores.questions} questions of {report.source}"
    if times:
        yield f"seconds: {times.timed} of the questions, asked one at a time"
    yield f"{settings.description}, at most {settings.max_tokens} tokens"
    yield (
        f"{report.machine.cpu}, threads: {settings.threads}, llama-cpp-python {report.build.llama_cpp_python}"
    )
    for result in (report.base, report.adapted):
        if result:
            yield f"records: {result.records}"
