"""Votes: several answers to one question, of which the value that most of them give is taken.

Self-consistency (arXiv 2203.11171): a chain of thought that goes wrong goes wrong in many ways, one that is
right ends alike. The chains share one prompt, whose keys and values are computed once and copied.
"""

import asyncio
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from threading import Lock
from typing import Any

from ..answer import Answer, VoteTally
from ..request import StopReason, check_integer
from .handle import Handle

VOTES_MAX = 64
WHOLE = (StopReason.END, StopReason.STOP)  # of an answer that was not cut short


def check_votes(votes: object) -> None:
    """Raise RequestError if it is not a number of votes."""
    check_integer("votes", votes, 1, VOTES_MAX)


class MajorityVote:
    """A question that is being answered several times over; used as a Handle is."""

    def __init__(self, handles: Sequence[Handle]) -> None:
        """Count the answers of some requests as they end; each is to have its likelihood taken."""
        self._handles = tuple(handles)
        self._lock = Lock()  # of the answers
        self._answers: list[tuple[Answer, float]] = []  # and the mean log-probability of a token of each
        self._decided: Future[Answer] = Future()
        for handle in handles:
            handle.when_done(self._count)

    @property
    def handles(self) -> tuple[Handle, ...]:
        """Those of the answers, in the order of their seeds."""
        return self._handles

    def abort(self) -> None:
        """End all that are still running."""
        for handle in self._handles:
            handle.abort()

    def answer(self, timeout: float | None = None) -> Answer:
        """Wait for the answer that has won; it carries the tally. See Handle.wait()."""
        return self._decided.result(timeout)

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._wait().__await__()

    async def _wait(self) -> Answer:
        try:
            return await asyncio.shield(asyncio.wrap_future(self._decided))
        finally:
            self.abort()

    def _count(self, handle: Handle) -> None:
        with self._lock:
            if self._decided.done():
                return
            try:
                self._answers.append((handle.answer(), mean_logprob(handle)))
            except Exception as failure:
                self._decided.set_exception(failure)
            else:
                if not _open(self._answers, len(self._handles) - len(self._answers)):
                    self._decided.set_result(winner(self._answers, len(self._handles)))
        if self._decided.done():
            self.abort()


def mean_logprob(handle: Handle) -> float:
    """The mean log-probability of a token of an answer, which is to have it taken; see Handle.wait()."""
    end = handle.wait()
    return end.log_likelihood / max(end.usage.sampled_tokens, 1)


def _counts(answer: Answer) -> bool:
    """Whether it is a vote: one cut short has come to none."""
    return answer.value is not None and answer.stop_reason in WHOLE


def _votes(answers: Sequence[tuple[Answer, float]]) -> Counter[str | None]:
    """How many gave each value."""
    return Counter(answer.value for answer, _ in answers if _counts(answer))


def _open(answers: Sequence[tuple[Answer, float]], missing: int) -> bool:
    """Whether the answers that are missing could change which value has most."""
    counts = [count for _, count in _votes(answers).most_common(2)]
    first, second = [*counts, 0, 0][:2]
    return missing > 0 and first <= second + missing


def winner(answers: Sequence[tuple[Answer, float]], asked: int) -> Answer:
    """Of the value with most votes, then most verified ones, then the likeliest: the best of its answers.

    What does not count is looked at only if nothing else is there.

    Args:
        answers: each with its mean_logprob().
        asked: how many answers were wanted.
    """
    counted = [found for found in answers if _counts(found[0])] or answers
    votes = _votes(counted)
    verified = Counter(answer.value for answer, _ in counted if answer.verified)
    leader = max(counted, key=lambda f: (votes[f[0].value], verified[f[0].value], f[1]))[0].value
    best, _ = max(
        (found for found in counted if found[0].value == leader), key=lambda f: (f[0].verified, f[1])
    )
    given = {value: count for value, count in votes.most_common() if value is not None}
    return replace(best, tally=VoteTally(asked, len(answers), given))
