"""A sitting's questions through the engine, wave by wave, and what became of each."""

from collections.abc import Callable
from contextlib import closing

from ...runtime.answer import Answer
from ...runtime.batch.reproducible_batches import BatchExecutor, BatchJob, BatchResult, split_into_batches
from ...runtime.engine.majority_vote import COMPLETE_REASONS
from .eval_log import EvalLog, Outcome, QuestionRecord, Sample
from .run_config import RunConfig


def evaluate(
    sitting: RunConfig,
    records: EvalLog,
    told: Callable[[QuestionRecord], None],
    answer: BatchExecutor = BatchJob.run,
) -> None:
    """Ask the questions that there are no records of yet, and write one for each as it ends.

    Args:
        sitting: who is asked what.
        records: of the sitting.
        told: called with each new record.
        answer: what has waves of questions answered; by default this machine.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, or cannot be run by this build.
        AdapterError: the adapter is not one for this model.
        OutputError: the records cannot be written.
    """
    questions = sitting.asked.questions
    waves = split_into_batches({n: question.text for n, question in enumerate(questions)}, sitting.terms.batch_size)
    missing = (wave for wave in waves if not any(number in records for number in wave))
    with closing(answer(sitting.job, missing)) as answers:
        for asked in answers:
            record = _record(asked, questions[asked.number].answer)
            records.append(record)
            told(record)


def _record(asked: BatchResult, expected: str) -> QuestionRecord:
    if asked.answer is None:
        return QuestionRecord(asked.number, expected, None, Outcome.ERROR, (), asked.error)
    samples = tuple(
        Sample(a.value, grade(a, expected), a.verified, a.usage.completion_tokens, a.text)
        for a in asked.samples
    )
    return QuestionRecord(asked.number, expected, asked.answer.value, grade(asked.answer, expected), samples)


def grade(answer: Answer, expected: str) -> Outcome:
    """What an answer is worth where a number is right; one that was cut short is never correct."""
    whole = answer.stop_reason in COMPLETE_REASONS
    counts = whole if answer.tally is None else answer.value in answer.tally.votes
    if counts and answer.value is not None:
        return Outcome.CORRECT if answer.value == expected else Outcome.WRONG
    return Outcome.UNPARSED if whole else Outcome.TRUNCATED
