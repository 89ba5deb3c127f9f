"""Answers by the majority of votes, to learn from questions without answers (arXiv 2504.16084).

The votes are those of `--effort high`, most of them after worked examples, and so more often right than one
answer. A question is kept where they agree; of its sampled solutions those with the majority's value then
count as right, and all others as wrong.
"""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ..errors import RequestError
from ..files.journal import Journal
from ..files.progress import Progress, no_progress
from ..models.rows import TrainingRow
from ..runtime.batch.reproducible_batches import BatchJob, BatchResult, answer_missing

AGREEMENT = 0.8  # share of the answers that must be above it
VOTES = "votes"


def label_by_votes(
    job: BatchJob, rows: Sequence[TrainingRow], output: Path, progress: Progress = no_progress
) -> list[TrainingRow]:
    """Answer questions by votes, in a journal from which an interrupted run resumes.

    Args:
        job: model and settings, with an effort that votes.
        rows: the questions.
        output: the journal.
        progress: called with questions done and in all.

    Returns:
        The questions on whose answer more than AGREEMENT of the votes agree, with it, in their order.

    Raises:
        RequestError: the journal belongs to another run, or is damaged.
        ThirteenError: the model cannot be loaded, or the computation failed.
    """
    job = job.decided(output, VOTES)
    digest = hashlib.sha256(repr([row.question for row in rows]).encode()).hexdigest()
    with Journal(output, {"questions_sha256": digest, **job.identity}, VOTES) as journal:
        try:
            done = {int(entry["number"]): str(entry["answer"]) for entry in journal.entries}
        except (KeyError, TypeError, ValueError):
            raise RequestError(f"{output}: not the votes on questions") from None
        questions = {number: row.question for number, row in enumerate(rows)}
        with closing(answer_missing(job, questions, tuple(done))) as results:
            for result in results:
                done[result.number] = answer = _agreed(result)
                journal.record({"number": result.number, "answer": answer})
                progress(len(done), len(rows))
    return [replace(row, answer=done[number]) for number, row in enumerate(rows) if done[number]]


def _agreed(result: BatchResult) -> str:
    """The value that the votes agree on; empty if they do not."""
    answer = result.answer
    if answer is None or answer.tally is None or answer.value is None:
        return ""
    return answer.value if answer.tally.counts[0] > AGREEMENT * answer.tally.ended else ""
