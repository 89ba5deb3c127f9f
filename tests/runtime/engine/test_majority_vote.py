"""Votes: the value of most answers wins, as soon as the missing ones cannot change that."""

import asyncio
from collections import Counter
from itertools import combinations_with_replacement
from threading import Thread

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

WHOLE, CUT = (StopReason.END, StopReason.STOP), (StopReason.LENGTH, StopReason.ABORTED)


class Asked:
    """Handles as the engine gives them, and a poll over them."""

    def __init__(self, votes):
        self.aborted = []
        self.handles = [Handle(lambda n=n: self.aborted.append(n)) for n in range(votes)]
        self.poll = MajorityVote(self.handles)

    def end(self, at, value, reason=StopReason.END, verified=False, mean=-1.0):
        """Have one of them end: its text is of two tokens, of that mean likelihood."""
        text = "" if value is None else f"0 + {value} = {value}" if verified else f"The answer is {value}"
        end = SequenceEnd(reason, Usage(1, 2, sampled_tokens=2), Timings(0, 0, 0), 2 * mean)
        self.handles[at].put(SequenceUpdate(None, text, (1, 2), (), end))

    @property
    def decided(self):
        return self.poll._decided.done()


def winners(answers):
    """The values that none is better than, by looking at each (value, reason, verified, mean)."""
    counted = [a for a in answers if a[0] is not None and a[1] in WHOLE] or answers

    def rank(value):
        of_it = [a for a in counted if a[0] == value]
        votes = sum(a[0] is not None and a[1] in WHOLE for a in of_it)
        return votes, sum(a[2] for a in of_it), max(a[3] for a in of_it)

    ranks = {a[0]: rank(a[0]) for a in counted}
    return {value for value in ranks if ranks[value] == max(ranks.values())}


def outcomes(missing, values):
    """All that the missing answers could be, as far as it matters."""
    one = [(value, StopReason.END, sure, mean) for value in values for sure in (0, 1) for mean in (-9.0, 0.0)]
    return combinations_with_replacement([*one, (None, StopReason.END, 0, 0.0)], missing)


def counts(answers):
    return Counter(value for value, reason, *_ in answers if value is not None and reason in WHOLE)


def could_tie(answers, missing, values):
    """Whether the value with most votes can come to have no more than another."""
    for more in outcomes(missing, values):
        first, second = (*(n for _, n in counts((*answers, *more)).most_common(2)), 0, 0)[:2]
        if first <= second:
            return True
    return False


ANSWERS = st.tuples(
    st.sampled_from(["4", "5", "6", None]),
    st.sampled_from([*WHOLE, StopReason.LENGTH]),
    st.booleans(),
    st.sampled_from([-0.5, -1.0, -2.0]),
).map(lambda answer: (*answer[:2], answer[2] and answer[0] is not None, answer[3]))


@given(st.lists(ANSWERS, min_size=1, max_size=5))
def test_it_is_decided_as_soon_as_nothing_can_change_it_and_not_before(answers):
    asked = Asked(len(answers))
    for at, answer in enumerate(answers):
        asked.end(at, *answer)
        seen, missing = answers[: at + 1], len(answers) - at - 1
        if asked.decided:
            break
        assert missing and could_tie(seen, missing, "4567")
    won = asked.poll.answer(0)
    for more in outcomes(missing, "4567"):
        assert won.value in winners((*seen, *more)), "what is missing could have changed it"
    assert not missing or not could_tie(seen, missing, "4567")
    assert (won.tally.asked, won.tally.ended) == (len(answers), len(seen))
    assert won.tally.votes == dict(counts(seen))
    assert set(asked.aborted) == set(range(len(seen), len(answers))), "those still running are ended"


def test_most_votes_win():
    asked = Asked(3)
    for at, value in enumerate(["4", "5", "4"]):
        asked.end(at, value, mean=-9 * (value == "4"))
    assert asked.poll.answer(0).value == "4"


def test_of_as_many_votes_more_verified_ones_win_then_the_likeliest():
    for first, second, won in (
        ({"verified": True, "mean": -2.0}, {"mean": -1.0}, "4"),
        ({"mean": -2.0}, {"mean": -1.0}, "5"),
        ({"mean": -1.0}, {"mean": -2.0}, "4"),
        ({"verified": True, "mean": -2.0}, {"verified": True, "mean": -1.0}, "5"),
    ):
        asked = Asked(2)
        asked.end(0, "4", **first)
        asked.end(1, "5", **second)
        assert asked.poll.answer(0).value == won


def test_the_answer_given_is_the_best_of_those_with_the_value():
    asked = Asked(3)
    asked.end(0, "4", mean=-1.0)
    asked.end(1, "5", verified=True)
    asked.end(2, "4", mean=-0.5, reason=StopReason.STOP)
    assert asked.poll.answer(0).stop_reason is StopReason.STOP


@pytest.mark.parametrize("cut", CUT)
def test_one_cut_short_neither_counts_nor_speaks_for_the_others(cut):
    """Though it be verified, and the likeliest."""
    asked = Asked(4)
    asked.end(0, "4", mean=-2.0)
    asked.end(1, "4", cut, verified=True, mean=-0.1)
    asked.end(2, "5", cut, verified=True, mean=-0.1)
    asked.end(3, None, mean=-0.1)
    won = asked.poll.answer(0)
    assert (won.value, won.stop_reason, won.verified) == ("4", StopReason.END, False)
    assert won.tally.votes == {"4": 1}


def test_ties_are_not_broken_by_what_was_cut_short():
    asked = Asked(3)
    asked.end(0, "4", mean=-2.0)
    asked.end(1, "4", StopReason.LENGTH, verified=True)
    asked.end(2, "5", mean=-1.0)
    assert asked.poll.answer(0).value == "5"


def test_where_none_counts_one_is_given_all_the_same():
    asked = Asked(3)
    asked.end(0, None, mean=-0.1)
    asked.end(1, "4", StopReason.LENGTH, mean=-2.0)
    asked.end(2, "5", StopReason.LENGTH, verified=True, mean=-3.0)
    won = asked.poll.answer(0)
    assert (won.value, won.tally.votes) == ("5", {})


def test_a_failure_is_raised_and_ends_the_others():
    asked = Asked(3)
    asked.end(0, "4")
    asked.handles[1].fail(ModelFileError("broken"))
    with pytest.raises(ModelFileError, match="broken"):
        asked.poll.answer(0)
    assert asked.aborted == [2]


def test_what_comes_after_the_decision_changes_nothing():
    asked = Asked(3)
    asked.end(0, "4")
    asked.end(1, "4")
    won = asked.poll.answer(0)
    asked.end(2, "4")
    asked.poll.abort()
    assert asked.poll.answer(0) is won and asked.aborted == [2]


def test_answers_that_had_ended_before_are_counted():
    asked = Asked(2)
    for at in range(2):
        asked.end(at, "4")
    assert MajorityVote(asked.handles).answer(0).value == "4"


def test_abort_ends_what_runs_and_a_wait_can_be_given_up():
    asked = Asked(3)
    asked.end(1, "4")
    with pytest.raises(TimeoutError):
        asked.poll.answer(timeout=0.01)
    asked.poll.abort()
    assert asked.aborted == [0, 2]
    asked.end(0, None, StopReason.ABORTED)
    asked.end(2, "5", StopReason.ABORTED)
    assert asked.poll.answer(0).value == "4"


def test_a_poll_is_awaited_and_a_cancelled_task_ends_it():
    async def both():
        asked, given_up = Asked(2), Asked(2)
        task = asyncio.ensure_future(_wait(given_up.poll))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        Thread(target=lambda: [asked.end(at, "4") for at in range(2)]).start()
        return given_up.aborted, await asked.poll

    aborted, won = asyncio.run(both())
    assert won.value == "4" and aborted == [0, 1]


async def _wait(poll):
    return await poll


def test_the_engine_asks_with_seeds_and_reads_the_prompt_once(opened):
    engine = opened(slots=4, batch=64)
    poll = engine.poll("I think the answer is 12", 4)
    won = poll.answer(5)
    assert (won.value, won.tally.votes["12"]) == ("12", won.tally.ended) and 3 <= won.tally.ended <= 4
    usages = [handle.answer(5).usage for handle in poll.handles]
    assert sorted(usage.cached_tokens for usage in usages) == [0, 23, 23, 23]


@pytest.mark.parametrize("votes", [0, -1, VOTES_MAX + 1, 1.5, True])
def test_votes_out_of_bounds_are_refused(opened, votes):
    with pytest.raises(RequestError, match="votes must be"):
        opened().poll("abc", votes)


def test_a_poll_that_finds_no_places_leaves_none_taken(opened):
    engine = opened(slots=1, queue=2, batch=8)
    Context.gate.clear()
    with pytest.raises(BusyError):
        engine.poll("abc", 4)
    Context.gate.set()
    assert engine.answer("abc").text == "abc"


def test_a_real_model_answers_differently_by_seed_and_computes_the_prompt_once(smollm2):
    question = "Tom has 3 apples and buys 4 more. How many apples does he have?"
    with Engine(smollm2, context=128, slots=4, threads=1) as engine:
        poll = engine.poll(question, 4, max_tokens=12, sampling=Sampling(1.5, min_p=0.02, seed=2**32 - 4))
        answers = [handle.answer() for handle in poll.handles]
        won = poll.answer(0)
    prompt = answers[0].usage.prompt_tokens
    assert sorted(answer.usage.cached_tokens for answer in answers) == [0, *[prompt - 1] * 3]
    assert len({answer.text for answer in answers}) == 4
    assert won.tally.asked == 4 and won.value in [answer.value for answer in answers]
