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
from ..effort import Effort, VotingRule
from ..request import Request
from .handle import Handle

ScoredAnswer = tuple[Answer, float]  # with the mean log-probability of its tokens


def sample_requests(request: Request, rule: VotingRule) -> list[Request]:
    """The requests of a vote: the same one with other seeds, sampled at a temperature above 0."""
    alone = replace(request.options, effort=Effort.LOW, min_confidence=0.0)
    if rule.answers == 1:
        return [replace(request, options=alone, examples=())]
    samples = replace(alone.stochastic, logprobs=0).with_seeds(rule.answers)
    prompts = [request.examples or request.tokens] * rule.examples + [request.tokens] * rule.answers
    return [
        replace(request, tokens=tokens, options=options, examples=())
        for tokens, options in zip(prompts, samples, strict=False)
    ]


class MajorityVote:
    """A question that is being answered several times.

    Attributes:
        handle: of all its answers. Its pieces are the tallies so far, without text; the last is the winner.
    """

    def __init__(self, request: Request, submit: Callable[..., list[Handle]], *, wait: bool) -> None:
        """Submit the first answers; `submit` and `wait` are those of Engine.submit_all()."""
        self._min_confidence = request.options.min_confidence
        self._rule = rule = request.options.effort.rule.until(self._min_confidence)
        self._submit = submit
        self.handle = Handle(self._abort, lambda *_: self._winner, self._place, rule.width)
        self._waiting = sample_requests(request, rule)
        self._running: list[Handle] = []
        self._answers: list[ScoredAnswer] = []
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
            self._abort(self.handle)

    def _abort(self, _: Handle) -> None:
        """Abort the answers that are not finished; the vote ends with the others."""
        self._aborted = True
        for handle in tuple(self._running):
            handle.abort()

    def _place(self, _: Handle) -> int:
        return min((handle.place for handle in tuple(self._running)), default=0)

    def _run(self) -> None:
        try:
            self._count_all()
            self._abort(self.handle)  # before anybody learns of the end
            winner = select_winner(self._answers, self._rule)
            # The first that ended: later ones count from their own submission; an aborted one may have 0.
            first_s = next((s for answer, _ in self._answers if (s := answer.timings.first_token_s)), 0.0)
            decode_s = perf_counter() - self._began - first_s
            timings = Timings(winner.timings.prefill_s, first_s, decode_s)
            self._winner = with_confidence(replace(winner, timings=timings), self._min_confidence)
            end = SequenceEnd(winner.stop_reason, winner.usage, timings)
            self.handle.put(Piece(winner.text, end=end, thinking=winner.thinking))
        except Exception as failure:
            self._abort(self.handle)
            self.handle.fail(failure)

    def _count_all(self) -> None:
        """Count the answers as they end, until the majority is certain."""
        while self._running:
            handle = self._ended.get()
            self._running.remove(handle)
            self._answers.append(score(handle))
            self.handle.put(Piece("", tally=tally(self._answers, self._rule)))
            if is_decided(self._answers, self._rule):
                return
            if self._waiting and not self._aborted:
                # While others run, a full queue must not keep their ends from being counted. One by one: it
                # may never have room for all at once.
                with suppress(BusyError, ClosedError):
                    for _ in self._waiting[: self._rule.width - len(self._running)]:
                        self._start(1, wait=not self._running)


def score(handle: Handle) -> ScoredAnswer:
    """Wait for an answer, and return it with the mean log-probability of its tokens; see Handle.wait()."""
    end = handle.wait()
    return handle.answer(), end.log_likelihood / max(end.usage.sampled_tokens, 1)


def _is_vote(answer: Answer) -> bool:
    """Whether the answer has a value, was not cut short, and has no wrong equation."""
    complete = answer.stop_reason in COMPLETE_REASONS
    return answer.value is not None and complete and all(step.ok for step in answer.steps)


def tally(answers: Sequence[ScoredAnswer], rule: VotingRule) -> VoteTally:
    """Count the votes of the answers that have ended."""
    votes = Counter(str(answer.value) for answer, _ in _rank([one for one in answers if _is_vote(one[0])]))
    return VoteTally(rule.answers, len(answers), dict(votes.most_common()))


def _rank(answers: Sequence[ScoredAnswer]) -> list[ScoredAnswer]:
    """Sort answers: those whose value has most votes first, then most verified votes, then the likeliest."""
    votes = Counter(answer.value for answer, _ in answers)
    verified = Counter(answer.value for answer, _ in answers if answer.verified)
    return sorted(answers, key=lambda s: (votes[s[0].value], verified[s[0].value], s[1]), reverse=True)


def is_decided(answers: Sequence[ScoredAnswer], rule: VotingRule) -> bool:
    """Whether no more answers are needed."""
    counted = tally(answers, rule)
    return counted.ended == rule.answers or rule.is_decided(*counted.counts, rule.answers - counted.ended)


def select_winner(answers: Sequence[ScoredAnswer], rule: VotingRule) -> Answer:
    """Select the best answer of the winning value.

    The value with most votes wins; ties go to the value with most verified votes, then to the likeliest.
    Answers that are no votes count only if there are no votes.
    """
    candidates = [scored for scored in answers if _is_vote(scored[0])] or answers
    counted = tally(answers, rule)
    value = _rank(candidates)[0][0].value
    best, _ = max(
        (scored for scored in candidates if scored[0].value == value), key=lambda s: (s[0].verified, s[1])
    )
    usages = [answer.usage for answer, _ in answers]
    # The one that computed the prompt: others took it from the prefix cache.
    first, _ = min(answers, key=lambda scored: scored[0].usage.cached_tokens)
    timings = replace(best.timings, prefill_s=first.timings.prefill_s)
    usage = replace(
        first.usage,
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        sampled_tokens=sum(usage.sampled_tokens for usage in usages),
        thinking_tokens=sum(usage.thinking_tokens for usage in usages),
    )
    return replace(best, usage=usage, timings=timings, tally=counted)
