"""Majority vote: the value with most votes wins, as soon as the missing answers cannot change that."""

import asyncio
from threading import Semaphore, Thread

import pytest
from thirteen.errors import ModelFileError, RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.engine.majority_vote import VOTES_MAX, MajorityVote
from thirteen.runtime.engine.runner import SequenceUpdate
from thirteen.runtime.request import Sampling, SequenceEnd, StopReason, Timings, Usage

TIMEOUT_S = 60


class ObservedVote(MajorityVote):
    """Tells when an answer has been counted."""

    def __init__(self, handles):
        self.counted = Semaphore(0)
        super().__init__(handles)

    def _count(self, handle):
        super()._count(handle)
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


LENGTH, STOP = StopReason.LENGTH, StopReason.STOP
# Arguments of FakePoll.end() in their order, after how many of them the vote ends, and the value that wins.
VOTES = {
    "one": ([("4",)], 1, "4"),
    "no value": ([(None,)], 1, None),
    "all the same": ([("4",), ("4",), ("4",)], 2, "4"),
    "the missing one could tie": ([("4",), ("5",), ("4",)], 3, "4"),
    "two of four can tie": ([("4",), ("4",), ("5",), ("4",), ("6",)], 4, "4"),
    "no value is no vote": ([(None,), ("4",), ("4",)], 3, "4"),
    "an answer cut short is no vote": ([("5", LENGTH), ("5", LENGTH), ("4",)], 3, "4"),
    "a stop string ends an answer": ([("5", STOP), ("5", STOP), ("4",)], 2, "5"),
    "only answers cut short": ([("5", LENGTH, False, -2.0), ("4", LENGTH, False, -1.0)], 2, "4"),
    "a tie by verified votes": ([("4", STOP, False, -0.5), ("5", STOP, True, -2.0)], 2, "5"),
    "a tie by likelihood": ([("4", STOP, False, -2.0), ("5", STOP, False, -0.5)], 2, "5"),
}


@pytest.mark.parametrize("name", VOTES)
def test_the_vote_ends_as_soon_as_nothing_can_change_it_and_not_before(name):
    answers, expected, value = VOTES[name]
    poll, ended = FakePoll(len(answers)), 0
    while not poll.decided:
        poll.end(ended, *answers[ended])
        ended += 1
    winner = poll.vote.answer(0)
    assert (ended, winner.value) == (expected, value)
    assert (winner.tally.asked, winner.tally.ended) == (len(answers), expected)
    assert set(poll.aborted) == set(range(ended, len(answers))), "those still running are aborted"


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


@pytest.mark.parametrize("votes", [0, -1, VOTES_MAX + 1, 1.5, True])
def test_votes_out_of_range_are_refused(open_fake_engine, votes):
    with pytest.raises(RequestError, match="votes must be"):
        open_fake_engine().poll("abc", votes)


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
