"""Majority vote over several sampled answers to one question (self-consistency, arXiv 2203.11171).

Wrong chains of thought differ from each other, right ones end in the same value. The samples share one
prompt, whose KV cache is computed once and copied.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue
from threading import Thread
from time import perf_counter

from ...errors import BusyError, ClosedError
from ..answer import COMPLETE_REASONS, Answer, Piece, SequenceEnd, Timings, VoteTally, with_confidence
from ..options import Effort, Request, VotingRule
from .handle import Handle


def sample_requests(request: Request, rule: VotingRule) -> list[Request]:
    """The requests of a vote: the same one with other seeds, sampled at a temperature above 0."""
    alone = replace(request.options, effort=Effort.LOW, min_confidence=0.0)
    if rule.answers == 1:
        return [replace(request, options=alone, examples=())]
    samples = alone.stochastic.with_seeds(rule.answers)
    prompts = [request.examples or request.tokens] * rule.examples + [request.tokens] * rule.answers
    return [
        replace(request, tokens=tokens, options=options, examples=())
        for tokens, options in zip(prompts, samples, strict=False)
    ]


class MajorityVote:
    """A question that is answered several times: pieces of the handle are tallies, the last is the winner."""

    def __init__(self, request: Request, submit: Callable[..., list[Handle]], *, wait: bool) -> None:
        self._min_confidence = request.options.min_confidence
        self._rule = rule = request.options.effort.rule.until(self._min_confidence)
        self._submit = submit
        self.handle = Handle(self._abort, lambda *_: self._winner)
        self._waiting = sample_requests(request, rule)
        self._running: list[Handle] = []
        self._answers: list[Answer] = []
        self._began, self._aborted = perf_counter(), False
        self._ended: SimpleQueue[Handle] = SimpleQueue()
        self._start(rule.width, wait=wait)
        # Not in the compute thread, which computes nothing while the equations of an answer are checked.
        Thread(target=self._run, name="thirteen-vote", daemon=True).start()

    def _start(self, count: int, *, wait: bool) -> None:
        handles = self._submit(self._waiting[:count], wait=wait)
        self._waiting = self._waiting[count:]
        self._running += handles
        for handle in handles:
            handle.add_done_callback(self._ended.put)
        if self._aborted:  # meanwhile
            self._abort()

    def _abort(self) -> None:
        self._aborted = True
        for handle in tuple(self._running):
            handle.abort()

    def _run(self) -> None:
        try:
            self._count_all()
            self._abort()  # before anybody learns of the end
            winner = select_winner(self._answers, self._rule)
            # The first that ended: later ones count from their own submission; an aborted one may have 0.
            first_s = next((s for answer in self._answers if (s := answer.timings.first_token_s)), 0.0)
            decode_s = perf_counter() - self._began - first_s
            timings = Timings(winner.timings.prefill_s, first_s, decode_s)
            self._winner = with_confidence(replace(winner, timings=timings), self._min_confidence)
            end = SequenceEnd(winner.stop_reason, winner.usage, timings)
            self.handle.put(Piece(winner.text, end=end, thinking=winner.thinking))
        except Exception as failure:
            self._abort()
            self.handle.fail(failure)

    def _count_all(self) -> None:
        """Count the answers as they end, until the majority is certain."""
        while self._running:
            handle = self._ended.get()
            self._running.remove(handle)
            self._answers.append(handle.answer())
            counted = tally(self._answers, self._rule)
            self.handle.put(Piece("", tally=counted))
            if self._rule.is_decided(*counted.counts, counted.asked - counted.ended):
                return
            if self._waiting and not self._aborted:
                # While others run, a full queue must not keep their ends from being counted. One by one: it
                # may never have room for all at once.
                with suppress(BusyError, ClosedError):
                    for _ in self._waiting[: self._rule.width - len(self._running)]:
                        self._start(1, wait=not self._running)


def _is_vote(answer: Answer) -> bool:
    """Whether the answer has a value, was not cut short, and has no wrong equation."""
    complete = answer.stop_reason in COMPLETE_REASONS
    return answer.value is not None and complete and all(step.ok for step in answer.steps)


def tally(answers: Sequence[Answer], rule: VotingRule) -> VoteTally:
    """Count the votes of the answers that have ended."""
    votes = Counter(str(answer.value) for answer in _rank([*filter(_is_vote, answers)]))
    return VoteTally(rule.answers, len(answers), dict(votes.most_common()))


def _rank(answers: Sequence[Answer]) -> list[Answer]:
    """Sort answers: those whose value has most votes first, then most verified votes."""
    votes = Counter(answer.value for answer in answers)
    verified = Counter(answer.value for answer in answers if answer.verified)
    return sorted(answers, key=lambda one: (votes[one.value], verified[one.value]), reverse=True)


def select_winner(answers: Sequence[Answer], rule: VotingRule) -> Answer:
    """Select an answer of the value with most votes, then most verified votes; if possible a verified one.

    Answers that are no votes count only if there are no votes.
    """
    candidates = [*filter(_is_vote, answers)] or answers
    value = _rank(candidates)[0].value
    best = max((one for one in candidates if one.value == value), key=lambda one: one.verified)
    # The one that computed the prompt: others took it from the prefix cache.
    first = min(answers, key=lambda one: one.usage.cached_tokens)
    counts = ("completion_tokens", "sampled_tokens", "thinking_tokens")
    sums = {name: sum(getattr(one.usage, name) for one in answers) for name in counts}
    timings = replace(best.timings, prefill_s=first.timings.prefill_s)
    return replace(best, usage=replace(first.usage, **sums), timings=timings, tally=tally(answers, rule))
