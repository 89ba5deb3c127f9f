"""Evaluate one model: answer the questions in batches, grade and log the answers, and score them."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Unpack

from ...errors import RequestError
from ...files.from_json import RecordJournal
from ...quality.environment import this_build
from ...runtime.answer import Answer
from ...runtime.batch.reproducible_batches import ENGINE, BatchExecutor, BatchJob, BatchResult, answer_missing
from ...runtime.native.settings import DEFAULT_KV
from ...runtime.plan.options import EngineOptions
from ...runtime.request import COMPLETE_REASONS
from .accuracy_metrics import Scores, score
from .datasets import QuestionSet
from .eval_log import LOGGED_RUN, Outcome, QuestionRecord, Sample
from .prompts import PromptSettings, find_prompt

_NAME_BYTES_MAX = 255  # of a file, in most file systems
_FIXED = EngineOptions(kv=DEFAULT_KV, flash_attention=True)  # in the name of a log, whatever is chosen


@dataclass(frozen=True)
class RunConfig:
    """Configuration of an evaluation run.

    Attributes:
        model: a GGUF file.
        adapter: a LoRA in a GGUF file, applied at run time; None for none.
        question_set: the questions.
        settings: prompt and generation settings.
        folder: where the log is.
    """

    model: Path
    adapter: Path | None
    question_set: QuestionSet
    settings: PromptSettings

    folder: Path

    def _job(self, **chosen: Unpack[EngineOptions]) -> BatchJob:
        return BatchJob(self.model, self.adapter, self.settings, self.settings.threads, ENGINE | chosen)

    @cached_property
    def job(self) -> BatchJob:
        """The run as a job of the batch runtime, with the speed settings of its log if there is one.

        Only without one are they chosen, for which the model may be loaded.
        """
        return self._job().decided(self.log, LOGGED_RUN)

    @cached_property
    def _new_identity(self) -> dict[str, Any]:
        """The identity of a run without a log. Hashes the files."""
        return {
            "data_sha256": self.question_set.sha256,
            "questions": len(self.question_set.questions),
            "prompt": self.settings.prompt,
            "prompt_sha256": find_prompt(self.settings.prompt).sha256,
            **self._job(**_FIXED).identity,
            **asdict(this_build()),
        }

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the answers depend on, as JSON values."""
        return {**self._new_identity, **self.job.allocation}

    @property
    def log(self) -> Path:
        """The log; its name is readable, and unique for what is asked."""
        asked = {name: value for name, value in self._new_identity.items() if name not in _FIXED}
        digest = sha256(json.dumps(asked).encode()).hexdigest()[:12]
        name = f"{self.model.stem}-{self.question_set.name}-{self.settings.prompt}"
        ending = f"-{digest}.jsonl"
        while len(os.fsencode(name + ending)) > _NAME_BYTES_MAX:
            name = name[:-1]
        return self.folder / (name + ending)


EvalProgress = Callable[[str, int, int], None]  # model and its accuracy so far, questions done, in all


@dataclass(frozen=True, slots=True)
class ModelResult:
    """Result of one model.

    Attributes:
        path: the model file.
        sha256: its hash in hexadecimal.
        adapter: adapter applied at run time; None for none.
        adapter_sha256: its hash.
        records: the log with the answer to each question.
        scores: scores over all questions.
    """

    path: str
    sha256: str
    adapter: str | None
    adapter_sha256: str | None
    records: str
    scores: Scores


def evaluate(
    name: str, config: RunConfig, executor: BatchExecutor, progress: EvalProgress
) -> tuple[ModelResult, Sequence[QuestionRecord]]:
    """Answer the questions that the log lacks, append a record for each as it finishes, and score all.

    Args:
        name: name of the model.
        config: the run.
        executor: answers batches, BatchJob.run or RayWorkers.run.
        progress: called after each new record.

    Raises:
        FileError: a file is not a GGUF, is damaged, or cannot be run by this build; or a computation
            failed; the adapter does not fit the model.
        RequestError: all questions failed, or the log belongs to another run.
        OutputError: the log cannot be written.
    """
    questions, identity = config.question_set.questions, config.identity
    numbered = {number: question.text for number, question in enumerate(questions)}
    with (
        RecordJournal(config.log, identity, LOGGED_RUN, QuestionRecord, len(questions)) as log,
        closing(answer_missing(config.job, numbered, log.records, executor)) as results,
    ):

        def report_progress() -> None:
            progress(f"{name}{_accuracy_so_far(log.records.values())}", len(log.records), len(questions))

        report_progress()
        for result in results:
            log.add(_record(result, questions[result.number].answer))
            report_progress()
        records = [log.records[number] for number in sorted(log.records)]
    if all(record.outcome is Outcome.ERROR for record in records):
        source = config.question_set.source
        raise RequestError(f"{config.model}: all questions of {source} failed; the first: {records[0].error}")
    evaluated = ModelResult(
        path=str(config.model),
        sha256=identity["model_sha256"],
        adapter=None if config.adapter is None else str(config.adapter),
        adapter_sha256=identity["adapter_sha256"],
        records=str(config.log),
        scores=score(records),
    )
    return evaluated, records


def _accuracy_so_far(records: Iterable[QuestionRecord]) -> str:
    outcomes = [record.outcome for record in records if record.outcome is not Outcome.ERROR]
    return f": {100 * outcomes.count(Outcome.CORRECT) / len(outcomes):.1f} % correct" if outcomes else ""


def _record(result: BatchResult, expected: str) -> QuestionRecord:
    answer = result.answer
    if answer is None:
        return QuestionRecord(result.number, expected, None, Outcome.ERROR, (), result.error)
    samples = tuple(
        Sample(one.value, grade(one, expected), one.verified, one.usage.completion_tokens, one.text)
        for one in result.samples
    )
    outcome = grade(answer, expected)
    return QuestionRecord(
        result.number, expected, answer.value, outcome, samples, confidence=answer.confidence
    )


def grade(answer: Answer, expected: str) -> Outcome:
    """Grade an answer against the expected number; a truncated answer is never correct."""
    complete = answer.stop_reason in COMPLETE_REASONS
    if complete and answer.value is not None:
        return Outcome.CORRECT if answer.value == expected else Outcome.WRONG
    return Outcome.UNPARSED if complete else Outcome.TRUNCATED
