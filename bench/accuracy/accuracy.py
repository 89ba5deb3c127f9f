"""Accuracy of a model on a question set, and of its base on the same questions, compared in pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from ...files.cache_folder import cache_dir
from ...files.progress import QUIET, Progress, Stage
from ...runtime.batch.reproducible_batches import BatchExecutor, BatchJob, BatchSettings
from ...runtime.engine.engine import Engine
from ...runtime.options import MAX_TOKENS
from ...stats import Doubles
from ...stats.intervals import NOISE_MAX, PASSAGES_MIN, Interval, ratio_interval
from ..environment import BenchReport, ModelSource, Table, report_head
from ..rounds import ITERATIONS_PER_ROUND, EngineLoader, ProgressCounter, count_iterations, interleave
from .datasets import QuestionSet
from .evaluate import ModelResult, PairedScores, QuestionRecord, Scores, evaluate, pair_scores
from .prompts import PromptSettings

_TRUNCATED_MAX = 0.05  # share of truncated answers above which the report warns


@dataclass(frozen=True, slots=True)
class AnswerSeconds:
    """Mean seconds of each model, the base first, and adapted/base, for questions asked one at a time."""

    timed: int
    means: tuple[float, ...]
    ratio: Interval | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyReport(BenchReport):
    """Accuracy of a model and, if there is one, its base.

    `available` is the number of questions of the set: fewer are answered if the time was limited. `paired` is
    None without a base, or if every question failed on one of them.
    """

    data: str
    source: str
    data_sha256: str
    available: int
    prompt: str
    max_tokens: int
    sampling: str
    threads: int
    adapted: ModelResult
    base: ModelResult | None
    paired: PairedScores | None
    seconds: AnswerSeconds | None

    @property
    def results(self) -> tuple[ModelResult, ...]:
        """The base, if there is one, and the model."""
        return tuple(result for result in (self.base, self.adapted) if result)

    def sentences(self) -> Iterator[str]:
        """Right answers, seconds, pairs, and warnings."""
        scores, paired = self.adapted.scores, self.paired
        asked = paired.questions if paired else scores.questions
        of_all = f" (no time for all {self.available})" if asked + scores.errors < self.available else ""
        questions = f"questions of {self.data}{of_all}"
        if paired:
            yield paired_sentence(paired, questions)
        else:
            yield f"Right answers: {scores.correct} of {asked} {questions}: {scores.accuracy.text(0, 100)} %."
        if self.seconds:
            yield _seconds(self.seconds)
        if paired:
            yield (
                f"{paired.gained} gained, {paired.lost} lost of {paired.questions}; McNemar's exact "
                f"p = {paired.p_value:.2g}"
            )
        for result in self.results:
            yield from _warnings(result.file.name, result.scores)

    def table(self) -> Table:
        """The models side by side, with the settings below."""
        columns = ("base", "adapted", "against the base (95 %)") if self.base else ("model",)
        notes = (
            f"{self.adapted.scores.questions} questions of {self.source}",
            f"{self.sampling}, at most {self.max_tokens} tokens",
            self.environment(self.threads),
            *(f"records: {result.records}" for result in self.results),
        )
        return Table(f"{self.data}, {self.prompt}", ("", *columns), tuple(self._rows()), notes)

    def _rows(self) -> Iterator[tuple[str, ...]]:
        models, paired, seconds = [result.scores for result in self.results], self.paired, self.seconds
        difference = (f"{paired.difference.text(1, 100)} points",) if paired else ()
        yield "accuracy, % (95 %)", *(scores.accuracy.text(1, 100) for scores in models), *difference
        for name in ("correct", "wrong", "truncated", "unparsed", "errors"):
            yield name, *(str(getattr(scores, name)) for scores in models)
        ratio = (f"{paired.tokens_ratio.text(2)} times",) if paired else ()
        yield "tokens a question", *(f"{scores.tokens:.0f}" for scores in models), *ratio
        if seconds:
            times = (f"{seconds.ratio.text(2)} times",) if seconds.ratio else ()
            title = f"seconds a question, {seconds.timed} asked alone"
            yield title, *(f"{mean:.2f}" for mean in seconds.means), *times


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyRequest:
    """What is evaluated: a model, or a base and then the model.

    `timed` questions are then asked one at a time. `records` is the folder of the logs, by default in the
    cache.
    """

    models: Sequence[ModelSource]
    questions: QuestionSet
    settings: PromptSettings = field(default_factory=PromptSettings)
    records: Path | None = None
    timed: int = 16


def run_accuracy(
    request: AccuracyRequest, executor: BatchExecutor = BatchJob.run, stage: Stage = QUIET.stage
) -> AccuracyReport:
    """Evaluate a model, and its base on the same questions; resumes from the logs of an interrupted run.

    Batches are answered by the executor, BatchJob.run or that of a cluster. There is a stage for each model.

    Raises:
        FileError: a file is not a GGUF, is damaged, or cannot be run by this build; the adapter does not fit
            the model.
        RequestError: all questions failed, or a log belongs to another run.
        OutputError: a log cannot be written.
    """
    models, questions, settings = request.models, request.questions, request.settings
    head, folder = report_head(), request.records or cache_dir() / "accuracy"
    jobs = [BatchJob(one.model, one.adapter, settings, settings.threads).decided() for one in models]
    names = ("base", "adapted") if len(models) == 2 else ("model",)
    evaluated = [
        evaluate(job, questions, folder, executor, stage(name)) for name, job in zip(names, jobs, strict=True)
    ]
    results, answered = zip(*evaluated, strict=True)
    seconds = None
    if request.timed and (chosen := _answered_by_all(answered, request.timed)):
        loaders = [job.load_engine for job in jobs]
        texts = [questions.questions[number].text for number in chosen]
        seconds = _time_questions(loaders, texts, settings, stage("seconds of an answer"))
    return AccuracyReport(
        **head,
        data=questions.name,
        source=questions.source,
        data_sha256=questions.sha256,
        available=len(questions.questions),
        prompt=settings.prompt,
        max_tokens=settings.options.max_tokens or MAX_TOKENS,
        sampling=settings.description,
        threads=settings.threads,
        adapted=results[-1],
        base=results[0] if len(models) == 2 else None,
        paired=pair_scores(*answered) if len(models) == 2 else None,
        seconds=seconds,
    )


def _answered_by_all(answered: Sequence[Sequence[QuestionRecord]], most: int) -> list[int]:
    """Numbers of questions that all models answered, evenly spaced, at most so many."""
    by_model = [{record.number for record in records if record.samples} for records in answered]
    numbers = sorted(set.intersection(*by_model))
    count = min(most, len(numbers))
    return [numbers[at * len(numbers) // count] for at in range(count)]


def _time_questions(
    loaders: Sequence[EngineLoader], questions: Sequence[str], settings: BatchSettings, progress: Progress
) -> AnswerSeconds:
    """Ask each model each question, one at a time, in alternation; see interleave()."""
    # The prefix cache is empty, as for an engine's first question.

    def answer_s(engine: Engine, iteration: int) -> float:
        request = settings.request(engine, questions[iteration % len(questions)])
        engine.clear_prefix_cache()
        start = perf_counter()
        engine.submit(request, wait=True).wait()
        return perf_counter() - start

    rounds = -(-len(questions) // ITERATIONS_PER_ROUND)
    advance = ProgressCounter(progress, count_iterations(len(loaders), rounds))
    asked: Doubles = np.array(interleave(loaders, answer_s, rounds, advance))  # (models, iterations)
    seconds = asked[:, : len(questions)]
    ratio = ratio_interval(seconds[::-1].T) if len(loaders) == 2 else None
    return AnswerSeconds(len(questions), tuple(seconds.mean(axis=1).tolist()), ratio)


def paired_sentence(paired: PairedScores, questions: str) -> str:
    """Compare the right answers of two models to questions that are named so."""
    right, of_base = paired.both + paired.gained, paired.both + paired.lost
    text = f"Right answers: {right} of {paired.questions} {questions}, the base {of_base}"
    points = paired.difference
    if points.low <= 0 <= points.high:
        end = "; more questions would settle it" if points.high - points.low > 2 * NOISE_MAX else ""
        return f"{text}: no difference within {max(-points.low, points.high) * 100:.0f} points{end}."
    word = "more" if points.estimate > 0 else "fewer"
    low, high = sorted(100 * abs(bound) for bound in (points.low, points.high))
    return f"{text}: {100 * abs(points.estimate):.0f} points {word} ({low:.0f} to {high:.0f})."


def _seconds(seconds: AnswerSeconds) -> str:
    *base, adapted = seconds.means
    text = f"Seconds: an answer takes {adapted:.2f} s on average"
    if not seconds.ratio:
        return f"{text}."
    few = "; too few questions for this interval" if seconds.timed < PASSAGES_MIN else ""
    return f"{text}, of the base {base[0]:.2f} s: {seconds.ratio.text(2)} times as long{few}."


def _warnings(name: str, scores: Scores) -> Iterator[str]:
    if scores.truncated > _TRUNCATED_MAX * scores.questions:
        yield f"warning: {scores.truncated} answers of {name} were truncated; allow more tokens"
    if scores.errors:
        yield (
            f"warning: {scores.errors} questions failed on {name} and are excluded; the first: "
            f"{scores.first_error}"
        )
