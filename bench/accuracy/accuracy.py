"""Base against adapted in right answers: both are asked the same, and compared question by question."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ...errors import RequestError
from ...files.cache_folder import cache_dir
from ...files.gguf_header import read_header
from ...runtime.batch.reproducible_batches import BatchExecutor, BatchJob
from ..harness.environment import Build, Machine, this_build, this_machine
from .accuracy_metrics import PairedScores, Scores, pair_scores, score
from .datasets import load_question_set
from .eval_log import EvalLog, Outcome, QuestionRecord
from .evaluate import evaluate
from .prompt_settings import PromptSettings
from .run_config import RunConfig

SIGNIFICANCE_LEVEL = 0.05
_MANY = 0.05  # of answers that were cut short: a warning
_TABLE_WIDTH = 76

EvalProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model, and what it came to.

    Attributes:
        path: the model file.
        sha256: its hash, in hexadecimal.
        adapter: what was applied at run time; None if nothing was.
        adapter_sha256: its hash.
        records: the file with each question's answer.
        scores: what they come to.
    """

    path: str
    sha256: str
    adapter: str | None
    adapter_sha256: str | None
    records: str
    scores: Scores


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """All that was asked, and how; dataclasses.asdict makes it JSON.

    Attributes:
        date: when it began, in UTC.
        machine: where.
        build: with which versions.
        terms: how the questions were put.
        data: the name of the set.
        source: where it comes from.
        data_sha256: the hash of questions and answers.
        left_out: rows of the source whose answer is no single number.
        adapted: the model that was asked for.
        base: what it was compared with; None if nothing.
        paired: both side by side; None without a base, or where no question was answered by both.
        verdict: what it comes to in words, a line each.
    """

    date: str
    machine: Machine
    build: Build
    terms: PromptSettings
    data: str
    source: str
    data_sha256: str
    left_out: int
    adapted: ModelResult
    base: ModelResult | None
    paired: PairedScores | None
    verdict: tuple[str, ...]


def run_accuracy(  # noqa: PLR0913 - the files of a comparison, each by its name
    model: Path,
    data: str,
    terms: PromptSettings,
    *,
    base: Path | None = None,
    adapter: Path | None = None,
    limit: int | None = None,
    folder: Path | None = None,
    answer: BatchExecutor = BatchJob.run,
    progress: EvalProgress = lambda label, done, total: None,
) -> AccuracyReport:
    """Ask a model the questions of a set, and its base the same; what is on record is not asked again.

    Args:
        model: a GGUF file.
        data: the name of a set, or a file; see tasks.load_set().
        terms: how the questions are put.
        base: the unadapted model, another GGUF, or the same one if there is an adapter.
        adapter: a LoRA in a GGUF file that the model gets at run time.
        limit: the most questions, spread evenly over the set.
        folder: of the records; by default one in the cache.
        answer: what has waves of questions answered; by default this machine.
        progress: called with the side and its accuracy so far, the questions that have ended, and how many
            there are.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, or cannot be run by this build.
        AdapterError: the adapter is not one for the model.
        DownloadError: the set cannot be had.
        RequestError: the set is no set of questions, a number is out of bounds, no question could be asked,
            or the records are of another sitting.
        OutputError: the records cannot be written.
    """
    asked = load_question_set(data).spread(limit)
    for path in (model, *(file for file in (base, adapter) if file)):
        read_header(path)  # a bad file is known before the first question
    date, machine = datetime.now(UTC).isoformat(timespec="seconds"), this_machine()
    folder = cache_dir() / "accuracy" if folder is None else folder
    sides = {"base": (base, None), "adapted" if base else "model": (model, adapter)}
    done = [
        _side(name, RunConfig(path, lora, asked, terms), folder, answer, progress)
        for name, (path, lora) in sides.items()
        if path
    ]
    adapted, records = done[-1]
    groups = [question.group for question in asked.questions]
    paired = pair_scores(done[0][1], records, groups) if base else None
    report = AccuracyReport(
        date=date,
        machine=machine,
        build=this_build(),
        terms=terms,
        data=asked.name,
        source=asked.source,
        data_sha256=asked.sha256,
        left_out=asked.left_out,
        adapted=adapted,
        base=done[0][0] if base else None,
        paired=paired,
        verdict=(),
    )
    return replace(report, verdict=tuple(_verdict(report)))


def _side(
    name: str, sitting: RunConfig, folder: Path, answer: BatchExecutor, progress: EvalProgress
) -> tuple[ModelResult, Sequence[QuestionRecord]]:
    """Have one model's answers, from the records or by asking."""
    questions, this = sitting.asked.questions, sitting.identity
    path = folder / sitting.file_name
    with EvalLog(path, this, len(questions), sitting.terms.batch_size) as records:

        def tell(*_: QuestionRecord) -> None:
            progress(f"{name}{_so_far(list(records))}", len(records), len(questions))

        tell()
        evaluate(sitting, records, tell, answer)
        found = list(records)
    if all(record.outcome is Outcome.ERROR for record in found):
        raise RequestError(
            f"{sitting.model}: no question of {sitting.asked.source} could be asked: {found[0].error}"
        )
    side = ModelResult(
        path=str(sitting.model),
        sha256=this["model_sha256"],
        adapter=None if sitting.adapter is None else str(sitting.adapter),
        adapter_sha256=this["adapter_sha256"],
        records=str(path),
        scores=score(found, [question.group for question in questions]),
    )
    return side, found


def _so_far(records: Sequence[QuestionRecord]) -> str:
    known = [record.outcome for record in records if record.outcome is not Outcome.ERROR]
    return f": {known.count(Outcome.CORRECT) / len(known):.1%} right".replace("%", " %") if known else ""


def _verdict(report: AccuracyReport) -> Iterator[str]:
    paired = report.paired
    if paired:
        yield _difference(paired)
        if paired.groups < paired.questions:
            yield (
                f"the questions are variations of {paired.groups}: the interval allows for that, "
                "McNemar's test does not"
            )
    for name, side in {"base": report.base, "adapted": report.adapted}.items():
        if side:
            yield from _warnings(name if report.base else "model", side.scores)


def _difference(paired: PairedScores) -> str:
    points = paired.difference
    low, high = (f"{100 * bound:+.1f}" for bound in (points.low, points.high))
    counted = f"{paired.gained} gained, {paired.lost} lost of {paired.questions}, p = {paired.p_value:.2g}"
    if not paired.gained + paired.lost:
        most = 100 * min(3 / paired.questions, 1)  # the rule of three
        return (
            f"accuracy: no question of {paired.questions} was decided otherwise; "
            f"a difference of less than {most:.1f} points could not be seen"
        )
    if paired.p_value >= SIGNIFICANCE_LEVEL:
        return f"accuracy: no difference that this run could show ({low} to {high} points; {counted})"
    word = "better" if points.estimate > 0 else "worse"
    return f"accuracy: {word} by {100 * abs(points.estimate):.1f} points ({low} to {high}; {counted})"


def _warnings(name: str, scores: Scores) -> Iterator[str]:
    if scores.truncated > _MANY * scores.questions:
        yield f"warning: {scores.truncated} answers of {name} were cut short; allow more tokens"
    if scores.errors:
        yield (
            f"warning: {scores.errors} questions were left out, which {name} could not be asked: "
            f"{scores.first_error}"
        )


def accuracy_table(report: AccuracyReport) -> Table:
    """The model beside its base, the verdict and the circumstances below."""
    out = Table(
        "",
        title=Text(f"{report.data}, {report.terms.prompt}"),
        caption=Text(_caption(report)),
        caption_justify="left",
        min_width=_TABLE_WIDTH,
    )
    sides = [side for side in (report.base, report.adapted) if side]
    for name in ("base", "adapted") if report.base else ("model",):
        out.add_column(name, justify="right")
    if report.paired:
        out.add_column("adapted - base (95 %)", justify="right")
    for row in _rows([side.scores for side in sides], report.paired):
        out.add_row(*row)
    return out


def _rows(sides: Sequence[Scores], paired: PairedScores | None) -> Iterator[tuple[str, ...]]:
    difference = (f"{paired.difference.text(1, 100)} points",) if paired else ()
    yield "right, % (95 %)", *(scores.accuracy.text(1, 100) for scores in sides), *difference
    if any(scores.single for scores in sides):
        singles = (scores.single.text(1, 100) if scores.single else "" for scores in sides)
        yield "of single answers, %", *singles
    for name in ("correct", "wrong", "truncated", "unparsed", "errors"):
        yield name, *(str(getattr(scores, name)) for scores in sides)
    yield "tokens an answer", *(f"{scores.tokens:.0f}" for scores in sides)
    if paired:
        yield "gained, lost", "", "", f"{paired.gained}, {paired.lost}"
        yield "McNemar's exact p", "", "", f"{paired.p_value:.3g}"


def _caption(report: AccuracyReport) -> str:
    terms = report.terms
    votes = f"the majority of {terms.votes}, temperature {terms.sampling.temperature}"
    left_out = f", {report.left_out} rows without a single number left out" if report.left_out else ""
    return "\n".join(
        (
            *report.verdict,
            f"{report.adapted.scores.questions} questions of {report.source}{left_out}",
            f"{'greedy' if terms.sampling.greedy else votes}, "
            f"calculator {'on' if terms.calculator else 'off'}, at most {terms.max_tokens} tokens",
            f"{report.machine.cpu}, threads: {terms.threads}, "
            f"llama-cpp-python {report.build.llama_cpp_python}",
            *(f"records: {side.records}" for side in (report.base, report.adapted) if side),
        )
    )
