"""Majority vote: answers are sampled until the value with most votes is certain; more agreement is surer."""

from dataclasses import replace

import pytest
from thirteen.errors import BusyError, FileError, RequestError
from thirteen.runtime.answer import Answer, StopReason, Timings, Usage, VoteTally, with_confidence
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.majority_vote import sample_requests, select_winner
from thirteen.runtime.options import Effort, Options, Request

from ...waiting import wait_until
from ..fakes import TIMEOUT_S, halted

OPTIONS = Options(effort=Effort.MEDIUM, calculator=False, max_tokens=20, stop=["\n"])


@pytest.fixture(scope="module")
def alone(tiny):
    """An engine whose answers end in the order in which they are submitted."""
    with Engine(tiny, slots=1, queue=7, threads=1) as engine:
        yield engine
        wait_until(lambda: engine.load == (0, 0))


def vote(engine, **options):
    return engine.stream("1 + 1?", replace(OPTIONS, **options))


# What the answers of a vote at medium effort say, the value that wins, and how many are needed.
VOTES = {
    "two agree": ("44", "4", 2),
    "four of five": ("45444", "4", 5),
    "a tie is not sure": ("45654645", None, 8),
    "the missing one cannot change it": ("45654647", "4", 8),
    "all differ": ("12345678", None, 8),
    "no value is no vote": (["none", "4", "4"], "4", 3),
    "a wrong equation is no vote": (["2 + 2 = 5", "3 + 2 = 6", "4", "4"], "4", 4),
    "an answer cut short is no vote": (["5. " * 9, "5. " * 9, "4", "4"], "4", 4),
    "a stop string ends an answer": (["5\nand so on"], "5", 2),
}


@pytest.mark.parametrize("name", VOTES)
def test_the_vote_ends_as_soon_as_the_majority_is_certain_and_not_before(alone, say, name):
    texts, value, ended = VOTES[name]
    say(*texts)
    handle = vote(alone)
    *tallies, last = handle
    winner = last.answer
    assert (winner.value, winner.sure) == (value, value is not None)
    assert (winner.tally.ended, winner.tally.asked) == (ended, 8)
    assert value is None or next(iter(winner.tally.votes)) == value, "the winner's votes are the first"
    assert [piece.text for piece in tallies] == [""] * len(tallies) and last.text == winner.text
    assert winner.usage.completion_tokens == handle.wait().usage.completion_tokens > ended
    assert winner.tally.agreement.startswith(
        f"{ended} without a vote" if not winner.tally.votes else f"{winner.tally.counts[0]} of {ended} agree"
    )


def test_of_equal_votes_a_verified_one_is_shown_and_then_the_first():
    first, second = replace(ONE, value="4"), replace(ONE, value="5")
    rule = Effort.MEDIUM.rule
    assert select_winner([first, second], rule).value == "4"
    assert select_winner([first, replace(second, verified=True)], rule).value == "5"
    cut = replace(second, stop_reason=StopReason.LENGTH)
    assert select_winner([cut, cut, first], rule).value == "4"


def test_answers_have_seeds_of_their_own_and_the_first_come_after_examples():
    request = Request((3,), replace(OPTIONS, effort=Effort.HIGH, seed=2**32 - 4), examples=(1, 2))
    samples = sample_requests(request, Effort.HIGH.rule)
    assert [one.tokens for one in samples] == [(1, 2)] * Effort.HIGH.rule.examples + [(3,)] * 2
    assert len({one.options.seed for one in samples}) == 10
    assert all(one.options.temperature > 0 and not one.options.effort.votes for one in samples)


def test_a_failure_is_raised_and_aborts_the_others(alone, say):
    say("4", FileError("broken"), "4")
    with pytest.raises(FileError, match="broken"):
        vote(alone).answer(TIMEOUT_S)
    wait_until(lambda: alone.load == (0, 0))


def test_an_aborted_vote_ends_with_the_answers_that_have_ended(alone, say):
    say("4", "5 " * 9, pause_s=0.01)
    handle = vote(alone)
    with pytest.raises(TimeoutError):
        handle.answer(timeout=0.001)
    tally = next(piece.tally for piece in handle if piece.tally)  # leaving the loop aborts it
    answer = handle.answer(TIMEOUT_S)
    assert tally.votes == answer.tally.votes == {"4": 1} and answer.value == "4"
    assert answer.timings.first_token_s > 0


def test_votes_that_share_a_full_queue_all_end(alone, say):
    """One waited for a place with its next answer, while those that had ended were not counted."""
    say(*"45" * 8)
    for question, effort in (("Why?", Effort.LOW), ("Twelve eggs and a dozen more?", Effort.MEDIUM)):
        assert alone.request(question, OPTIONS).options.effort is effort, "no number, no vote"
    request = alone.request("1 + 1?", OPTIONS)
    answers = [handle.answer(TIMEOUT_S) for handle in alone.submit_all([request] * 3, wait=True)]
    assert {answer.tally.ended for answer in answers} <= {*range(2, 9)}


@pytest.mark.parametrize(
    ("queue", "error", "named"),
    [
        (3, BusyError, "1 requests run and 3 wait: the queue is full"),
        (2, RequestError, r"^4 requests at once: slots and queue hold 3$"),
    ],
)
def test_a_vote_that_has_no_room_is_refused_as_a_whole_or_waits(tiny, say, queue, error, named):
    """An idle engine said that its queue is full; and after several answers a vote that waits failed."""
    say("no value")
    with Engine(tiny, slots=1, queue=queue, threads=1) as engine:
        question = engine.request("1 + 1", OPTIONS)
        with halted():
            handle = engine.submit(Request((1,)))
            with pytest.raises(error, match=named):
                engine.submit(question)
        handle.wait(TIMEOUT_S)
        assert engine.submit(question, wait=True).answer(TIMEOUT_S).tally.ended == 8


def test_below_the_minimum_of_confidence_there_is_no_value(alone, say):
    say("4")
    answer = vote(alone, min_confidence=0.99).answer(TIMEOUT_S)
    assert (answer.value, answer.sure, answer.text) == (None, False, "4")
    assert 0 < answer.confidence < 0.99 and answer.tally.votes == {"4": 2}, "more would not be so sure"


ONE = Answer("4", "The answer is 4.", StopReason.END, Usage(1, 1), Timings(0, 0, 0), (), verified=False)


def confidence(*votes, grounded=False):
    tally = VoteTally(8, sum(votes), {str(at): count for at, count in enumerate(votes)})
    return with_confidence(replace(ONE, tally=tally, grounded=grounded), 0).confidence


def test_agreement_and_grounding_make_an_answer_surer():
    assert 0 < confidence(2) < confidence(3) < confidence(8) < 1
    assert confidence(3, 1) < confidence(3)
    assert confidence(3, grounded=True) > confidence(3)
    tally = VoteTally(8, 8, {"4": 8})
    for useless in ({"value": None}, {"stop_reason": StopReason.LENGTH}):
        assert with_confidence(replace(ONE, tally=tally, **useless), 0).confidence is None


def test_without_a_calibration_there_is_no_confidence_and_no_minimum_is_reached():
    assert with_confidence(ONE, 0) == ONE
    unsure = with_confidence(ONE, 0.1)
    assert (unsure.value, unsure.sure, unsure.confidence) == (None, False, None)
