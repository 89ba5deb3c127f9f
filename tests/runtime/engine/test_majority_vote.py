"""Majority vote: the value with most votes wins, as soon as the missing answers cannot change that."""

import asyncio
from collections import Counter
from itertools import combinations_with_replacement
from threading import Semaphore, Thread, current_thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.errors import BusyError, ModelFileError, RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.engine.majority_vote import VOTES_MAX, MajorityVote
from thirteen.runtime.engine.runner import SequenceUpdate
from thirteen.runtime.request import Sampling, SequenceEnd, StopReason, Timings, Usage

from ..fakes import Context

COMPLETE, CUT = (StopReason.END, StopReason.STOP), (StopReason.LENGTH, StopReason.ABORTED)
TIMEOUT_S = 60


class ObservedVote(MajorityVote):
    """Tells when an answer has been counted, and by which threads."""

    def __init__(self, handles):
        self.counted, self.threads = Semaphore(0), set()
        super().__init__(handles)

    def _count(self, handle):
        super()._count(handle)
        self.threads.add(current_thread())
        self.counted.release()


class FakePoll:
    """Handles as the engine makes them, and a vote over them."""

    def __init__(self, votes):
        self.aborted = []
        self.handles = [Handle(lambda n=n: self.aborted.append(n)) for n in range(votes)]
        self.vote = ObservedVote(self.handles)

    def end(self, at, value, reason=StopReason.END, verified=False, mean=-1.0):
        """End one of them with a text of two tokens and that mean log-probability, and let it be counted."""
        text = "" if value is None else f"0 + {value} = {value}" if verified else f"The answer is {value}"
        end = SequenceEnd(reason, Usage(1, 2, sampled_tokens=2), Timings(0, 0, 0), 2 * mean)
        decided = self.decided
        self.handles[at].put(SequenceUpdate(None, text, (1, 2), (), end))
        assert decided or self.vote.counted.acquire(timeout=TIMEOUT_S)

    def fail(self, at, failure):
        """Let the computation of one of them fail."""
        self.handles[at].fail(failure)
        assert self.vote.counted.acquire(timeout=TIMEOUT_S)

    @property
    def decided(self):
        return self.vote._winner.done


def winners(answers):
    """The values that may win, found by comparing all (value, reason, verified, mean)."""
    counted = [a for a in answers if a[0] is not None and a[1] in COMPLETE] or answers

    def rank(value):
        same = [a for a in counted if a[0] == value]
        votes = sum(a[0] is not None and a[1] in COMPLETE for a in same)
        return votes, sum(a[2] for a in same), max(a[3] for a in same)

    ranks = {a[0]: rank(a[0]) for a in counted}
    return {value for value in ranks if ranks[value] == max(ranks.values())}


def outcomes(missing, values):
    """All combinations of missing answers that differ in what matters."""
    one = [(value, StopReason.END, sure, mean) for value in values for sure in (0, 1) for mean in (-9.0, 0.0)]
    return combinations_with_replacement([*one, (None, StopReason.END, 0, 0.0)], missing)


def counts(answers):
    return Counter(value for value, reason, *_ in answers if value is not None and reason in COMPLETE)


def could_tie(answers, missing, values):
    """Whether another value can still get as many votes as the leading one."""
    for more in outcomes(missing, values):
        first, second = (*(n for _, n in counts((*answers, *more)).most_common(2)), 0, 0)[:2]
        if first <= second:
            return True
    return False


ANSWERS = st.tuples(
    st.sampled_from(["4", "5", "6", None]),
    st.sampled_from([*COMPLETE, StopReason.LENGTH]),
    st.booleans(),
    st.sampled_from([-0.5, -1.0, -2.0]),
).map(lambda answer: (*answer[:2], answer[2] and answer[0] is not None, answer[3]))


@given(st.lists(ANSWERS, min_size=1, max_size=5))
def test_the_vote_ends_as_soon_as_nothing_can_change_it_and_not_before(answers):
    poll = FakePoll(len(answers))
    for at, answer in enumerate(answers):
        poll.end(at, *answer)
        seen, missing = answers[: at + 1], len(answers) - at - 1
        if poll.decided:
            break
        assert missing and could_tie(seen, missing, "4567")
    winner = poll.vote.answer(0)
    for more in outcomes(missing, "4567"):
        assert winner.value in winners((*seen, *more)), "the missing answers could have changed it"
    assert not missing or not could_tie(seen, missing, "4567")
    assert (winner.tally.asked, winner.tally.ended) == (len(answers), len(seen))
    assert winner.tally.votes == dict(counts(seen))
    assert set(poll.aborted) == set(range(len(seen), len(answers))), "those still running are aborted"


def test_a_failure_is_raised_and_aborts_the_others():
    poll = FakePoll(3)
    poll.end(0, "4")
    poll.fail(1, ModelFileError("broken"))
    with pytest.raises(ModelFileError, match="broken"):
        poll.vote.answer(0)
    assert poll.aborted == [2]


def test_answers_after_the_decision_change_nothing():
    poll = FakePoll(3)
    poll.end(0, "4")
    poll.end(1, "4")
    winner = poll.vote.answer(0)
    poll.end(2, "4")
    poll.vote.abort()
    assert poll.vote.answer(0) is winner and poll.aborted == [2]


def test_answers_that_ended_before_the_vote_are_counted():
    poll = FakePoll(2)
    for at in range(2):
        poll.end(at, "4")
    assert MajorityVote(poll.handles).answer(TIMEOUT_S).value == "4"


def test_answers_are_not_counted_in_the_thread_that_ends_them():
    """It is the engine's, which computed nothing while the equations of an answer were checked."""
    poll = FakePoll(2)
    for at in range(2):
        poll.end(at, "4")
    (counting,) = poll.vote.threads
    assert counting is not current_thread()


def test_abort_ends_running_samples_and_a_timeout_does_not():
    poll = FakePoll(3)
    poll.end(1, "4")
    with pytest.raises(TimeoutError):
        poll.vote.answer(timeout=0.01)
    poll.vote.abort()
    assert poll.aborted == [0, 2]
    poll.end(0, None, StopReason.ABORTED)
    poll.end(2, "5", StopReason.ABORTED)
    assert poll.vote.answer(0).value == "4"


def test_a_vote_is_awaited_and_a_cancelled_task_aborts_it():
    async def both():
        poll, cancelled = FakePoll(2), FakePoll(2)
        task = asyncio.ensure_future(_wait(cancelled.vote))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        Thread(target=lambda: [poll.end(at, "4") for at in range(2)]).start()
        return cancelled.aborted, await poll.vote

    aborted, winner = asyncio.run(both())
    assert winner.value == "4" and aborted == [0, 1]


async def _wait(vote):
    return await vote


def test_the_engine_samples_with_seeds_and_computes_the_prompt_once(open_fake_engine):
    engine = open_fake_engine(slots=4, batch=64)
    vote = engine.poll("I think the answer is 12", 4)
    winner = vote.answer(5)
    assert (winner.value, winner.tally.votes["12"]) == (
        "12",
        winner.tally.ended,
    ) and 3 <= winner.tally.ended <= 4
    usages = [handle.answer(5).usage for handle in vote.handles]
    assert sorted(usage.cached_tokens for usage in usages) == [0, 23, 23, 23]


@pytest.mark.parametrize("votes", [0, -1, VOTES_MAX + 1, 1.5, True])
def test_votes_out_of_range_are_refused(open_fake_engine, votes):
    with pytest.raises(RequestError, match="votes must be"):
        open_fake_engine().poll("abc", votes)


def test_a_poll_that_does_not_fit_the_queue_leaves_no_place_reserved(open_fake_engine):
    engine = open_fake_engine(slots=1, queue=2, batch=8)
    Context.gate.clear()
    with pytest.raises(BusyError):
        engine.poll("abc", 4)
    Context.gate.set()
    assert engine.answer("abc").text == "abc"


def test_a_real_model_gives_other_answers_by_seed_and_computes_the_prompt_once(smollm2):
    question = "Tom has 3 apples and buys 4 more. How many apples does he have?"
    with Engine(smollm2, context=128, slots=4, threads=1) as engine:
        vote = engine.poll(question, 4, max_tokens=12, sampling=Sampling(1.5, min_p=0.02, seed=2**32 - 4))
        answers = [handle.answer() for handle in vote.handles]
        winner = vote.answer(TIMEOUT_S)
    prompt = answers[0].usage.prompt_tokens
    assert sorted(answer.usage.cached_tokens for answer in answers) == [0, *[prompt - 1] * 3]
    assert len({answer.text for answer in answers}) == 4
    assert winner.tally.asked == 4 and winner.value in [answer.value for answer in answers]
