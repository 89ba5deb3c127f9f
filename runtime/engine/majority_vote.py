"""Majority vote over several sampled answers to one question (self-consistency, arXiv 2203.11171).

Wrong chains of thought differ from each other, right ones end in the same value. The samples share one
prompt, whose KV cache is computed once and copied.
"""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace
from queue import SimpleQueue
from threading import Thread
from typing import Any

from ..answer import Answer, VoteTally
from ..outcome import Outcome
from ..request import Request, StopReason
from ..validation import check_integer
from .handle import Handle

VOTES_MAX = 64
COMPLETE_REASONS = (StopReason.END, StopReason.STOP)  # stop reasons of an answer that was not cut short

ScoredAnswer = tuple[Answer, float]  # with its mean_logprob()


def vote_requests(request: Request, votes: int) -> list[Request]:
    """The requests of a vote: the same one with other seeds, sampled at a temperature above 0.

    Raises:
        RequestError: `votes` is out of range.
    """
    check_integer("votes", votes, 1, VOTES_MAX)
    samplings = request.sampling.stochastic.with_seeds(votes)
    return [replace(request, sampling=sampling, logprobs=0) for sampling in samplings]


class MajorityVote:
    """A question that is being answered several times; awaited like a Handle.

    Attributes:
        handles: handles of the samples, in the order of their seeds.
    """

    def __init__(self, handles: Sequence[Handle]) -> None:
        """Count the answers of requests as they end; the requests must ask for log-probabilities."""
        self.handles = tuple(handles)
        self._answers: list[ScoredAnswer] = []
        self._winner: Outcome[Answer] = Outcome()
        ended: SimpleQueue[Handle] = SimpleQueue()
        for handle in handles:
            handle.call_at_end(ended.put)
        # Not in the engine's thread, which computes nothing while the equations of an answer are checked.
        Thread(target=self._count_all, args=(ended,), name="thirteen-vote", daemon=True).start()

    def abort(self) -> None:
        """Abort the samples that are still running."""
        for handle in self.handles:
            handle.abort()

    def answer(self, timeout: float | None = None) -> Answer:
        """Wait for the winning answer, which carries the tally; see Handle.wait()."""
        return self._winner.result(timeout)

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._wait().__await__()

    async def _wait(self) -> Answer:
        try:
            await self._winner.wait()
            return self._winner.result(0)
        finally:
            self.abort()

    def _count_all(self, ended: "SimpleQueue[Handle]") -> None:
        while not self._winner.done:
            self._count(ended.get())

    def _count(self, handle: Handle) -> None:
        try:
            self._answers.append((handle.answer(), mean_logprob(handle)))
        except Exception as failure:
            self._winner.set_failure(failure)
        else:
            if not _is_open(self._answers, len(self.handles) - len(self._answers)):
                self._winner.set_result(select_winner(self._answers, len(self.handles)))
        if self._winner.done:
            self.abort()


def mean_logprob(handle: Handle) -> float:
    """Wait for an answer and return the mean log-probability of its tokens; see Handle.wait()."""
    end = handle.wait()
    return end.log_likelihood / max(end.usage.sampled_tokens, 1)


def _is_vote(answer: Answer) -> bool:
    """Whether the answer has a value and was not cut short."""
    return answer.value is not None and answer.stop_reason in COMPLETE_REASONS


def _votes(answers: Sequence[ScoredAnswer]) -> Counter[str | None]:
    return Counter(answer.value for answer, _ in answers if _is_vote(answer))


def _is_open(answers: Sequence[ScoredAnswer], missing: int) -> bool:
    """Whether the missing answers could change which value has most votes."""
    counts = [count for _, count in _votes(answers).most_common(2)]
    first, second = [*counts, 0, 0][:2]
    return missing > 0 and first <= second + missing


def select_winner(answers: Sequence[ScoredAnswer], requested: int) -> Answer:
    """Select the best answer of the winning value.

    The value with most votes wins; ties go to the value with most verified votes, then to the likeliest.
    Answers that are no votes count only if there are no votes.

    Args:
        answers: the answers that have ended.
        requested: number of requested answers.
    """
    candidates = [scored for scored in answers if _is_vote(scored[0])] or answers
    votes = _votes(candidates)
    verified = Counter(answer.value for answer, _ in candidates if answer.verified)
    value = max(candidates, key=lambda s: (votes[s[0].value], verified[s[0].value], s[1]))[0].value
    best, _ = max(
        (scored for scored in candidates if scored[0].value == value), key=lambda s: (s[0].verified, s[1])
    )
    tally = {value: count for value, count in votes.most_common() if value is not None}
    return replace(best, tally=VoteTally(requested, len(answers), tally))
