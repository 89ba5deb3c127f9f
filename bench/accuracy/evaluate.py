"""Run the questions of an evaluation in batches, and grade and log the answers."""

from collections.abc import Callable
from contextlib import closing

from ...runtime.answer import Answer
from ...runtime.batch.reproducible_batches import BatchExecutor, BatchResult, answer_missing
from ...runtime.request import COMPLETE_REASONS
from .eval_log import EvalLog, Outcome, QuestionRecord, Sample
from .run_config import RunConfig


def evaluate(config: RunConfig, log: EvalLog, on_record: Callable[[], None], executor: BatchExecutor) -> None:
    """Answer the questions that the log lacks, and append a record for each as it finishes.

    Args:
        config: the run.
        log: log of the run.
        on_record: called after each new record.
        executor: answers batches, BatchJob.run or RayWorkers.run.

    Raises:
        FileError: a file is not a GGUF, is damaged, or cannot be run by this build; or a computation
            failed; the adapter does not fit the model.
        OutputError: the log cannot be written.
    """
    questions = config.question_set.questions
    numbered = {number: question.text for number, question in enumerate(questions)}
    with closing(answer_missing(config.job, numbered, log, executor)) as results:
        for result in results:
            log.append(_record(result, questions[result.number].answer))
            on_record()


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
