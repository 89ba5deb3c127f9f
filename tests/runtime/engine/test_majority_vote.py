"""Majority vote: answers are sampled until the value with most votes is certain."""

import asyncio
from functools import partial
from queue import SimpleQueue
from threading import Thread
from time import monotonic, sleep

import pytest
from thirteen.errors import BusyError, FileError, RequestError
from thirteen.runtime.answer import Piece, grade
from thirteen.runtime.effort import Effort
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.engine.majority_vote import MajorityVote, sample_requests
from thirteen.runtime.grammar.grammar import from_regex
from thirteen.runtime.request import Request, Sampling, SequenceEnd, StopReason, Timings, Usage

from ..fakes import Context, Model

TIMEOUT_S = 60
QUESTION = "Tom has 3 apples and buys 4 more. How many apples does he have?"
LENGTH, STOP, END = StopReason.LENGTH, StopReason.STOP, StopReason.END


class FakeEngine:
    """Handles as the engine makes them, in the order in which a vote asks for them."""

    def __init__(self):
        self.handles, self.requests, self.aborted, self.full = [], [], [], False
        self._submitted = SimpleQueue()

    def submit_all(self, requests, *, wait):
        if self.full:
            assert not wait, "it would wait until another request ends"
            raise BusyError("the queue is full")
        wave = [
            Handle(lambda at=at: self.aborted.append(at), partial(grade, one))
            for at, one in enumerate(requests, len(self.handles))
        ]
        self.handles += wave
        self.requests += requests
        for handle in wave:
            self._submitted.put(handle)
        return wave

    def vote(self, effort=Effort.MEDIUM, **options):
        request = Request((1,), effort=effort, **options)
        return MajorityVote(request, self.submit_all, wait=False).handle

    def wait_for_handles(self, count):
        """Wait until so many were asked for."""
        end = monotonic() + TIMEOUT_S
        while len(self.handles) < count and monotonic() < end:
            sleep(0.001)

    def next(self):
        """The next handle that was asked for."""
        return self._submitted.get(timeout=TIMEOUT_S)

    def end(self, value, reason=END, mean=-1.0, first_token_s=0.0):
        """End the next of them with a text of two tokens and that mean log-probability."""
        text = value if value is None or "=" in value else f"The answer is {value}"
        end = SequenceEnd(reason, Usage(1, 2, sampled_tokens=2), Timings(0, first_token_s, 0), 2 * mean)
        self.next().put(Piece(text or "", (1, 2), end=end))


def test_only_where_clients_take_turns_a_vote_has_one_of_its_own():
    """A lone user's vote counted as another client, for which a slot was kept free."""
    for namespace, turn in (("", ""), ("one", "one (votes)")):
        asked = Request((1,), effort=Effort.MEDIUM, namespace=namespace)
        assert {one.turn for one in sample_requests(asked, asked.effort.rule)} == {turn}


# Answers of a vote at medium effort until it ends, and the value that wins.
VOTES = {
    "two agree": ([("4",), ("4",)], "4"),
    "four of five": ([("4",), ("5",), ("4",), ("4",), ("4",)], "4"),
    "no value is no vote": ([(None,), ("4",), ("4",)], "4"),
    "an answer cut short is no vote": ([("5", LENGTH), ("5", LENGTH), ("4",), ("4",)], "4"),
    "a wrong equation is no vote": ([("2 + 2 = 5",), ("3 + 2 = 6",), ("4",), ("4",)], "4"),
    "a stop string ends an answer": ([("5", STOP), ("5", STOP)], "5"),
    "the missing one cannot change it": (
        [("4",), ("5",), ("6",), ("5",), ("4",), ("6",), ("4",), ("7",)],
        "4",
    ),
    "only answers cut short": ([("5", LENGTH, -2.0)] * 7 + [("4", LENGTH, -1.0)], None),
    "a tie by verified votes": ([(str(n), STOP, -0.5) for n in range(7)] + [("3 + 4 = 7", STOP, -2.0)], "7"),
    "a tie by likelihood": ([(str(n), STOP, -2.0) for n in range(7)] + [("7", STOP, -0.5)], "7"),
}


@pytest.mark.parametrize("name", VOTES)
def test_the_vote_ends_as_soon_as_the_majority_is_certain_and_not_before(name):
    answers, value = VOTES[name]
    engine = FakeEngine()
    vote = engine.vote()
    for answer in answers:
        assert not vote.done
        engine.end(*answer)
    winner = vote.answer(TIMEOUT_S)
    assert (winner.value, winner.tally.ended, winner.tally.asked) == (value, len(answers), 8)
    assert next(iter(winner.tally.votes), value) == value, "the winner's votes are the first"
    assert winner.usage.completion_tokens == vote.wait().usage.completion_tokens == 2 * len(answers)
    assert set(engine.aborted) == set(range(len(answers), len(engine.handles))), "those still running"


def test_an_answer_that_ends_makes_room_for_the_next():
    engine = FakeEngine()
    vote = engine.vote(Effort.HIGH)
    for number in range(10):
        engine.end(str(number))
        assert number + 1 <= len(engine.handles) <= number + 1 + vote.width
    assert vote.answer(TIMEOUT_S).tally.ended == len(engine.handles) == 10
    assert [one.sampling.seed for one in engine.requests] == list(range(10))


def test_the_pieces_are_tallies_and_then_the_winning_answer():
    engine = FakeEngine()
    vote = engine.vote(Effort.HIGH)
    pieces = iter(vote)
    for value in ("4", "5"):
        engine.end(value)
    tallies = [next(pieces)]
    while tallies[-1].tally.ended < 2:
        tallies.append(next(pieces))
    assert tallies[-1].tally.votes == {"4": 1, "5": 1} and not any(piece.text for piece in tallies)
    for _ in range(4):
        engine.end("4")
    *_, last = pieces
    assert last.text == last.answer.text == "The answer is 4" and last.tally.votes == {"4": 5, "5": 1}
    assert last.tally.agreement == "5 of 6 agree on 4"


def test_a_failure_is_raised_and_aborts_the_others():
    engine = FakeEngine()
    vote = engine.vote()
    engine.end("4")
    engine.next().fail(FileError("broken"))
    with pytest.raises(FileError, match="broken"):
        vote.answer(TIMEOUT_S)
    assert engine.aborted == [2, 3, 4]


def test_a_full_queue_does_not_keep_a_vote_from_its_end():
    """It waited for a place with the next answer, while those that ended were not counted."""
    engine = FakeEngine()
    vote = engine.vote()
    engine.full = True
    engine.end("4")
    engine.end("5")
    engine.end("4")
    engine.full = False
    engine.end(None)  # the last one that runs: now three more start
    engine.wait_for_handles(8)
    engine.end("4")
    engine.end("4")
    assert vote.answer(TIMEOUT_S).value == "4" and vote.answer().tally.ended == 6


@pytest.mark.parametrize(("slots", "queue"), [(1, 0), (1, 1), (2, 1)])
def test_a_vote_that_waits_for_its_places_never_asks_for_more_than_there_are(open_fake_engine, slots, queue):
    """After several answers it failed: "2 requests at once: slots and queue hold 1"."""
    engine = open_fake_engine(slots=slots, queue=queue)
    asked = Request(tuple(b"no value"), effort=Effort.MEDIUM)
    answer = engine.submit(asked, wait=True).answer(TIMEOUT_S)
    assert answer.tally.ended == 8


def test_an_aborted_vote_ends_with_the_answers_that_have_ended():
    engine = FakeEngine()
    vote = engine.vote()
    engine.end("4")
    with pytest.raises(TimeoutError):
        vote.answer(timeout=0.01)
    engine.wait_for_handles(5)
    vote.abort()
    assert engine.aborted == [1, 2, 3, 4]
    for _ in range(4):
        engine.end(None, StopReason.ABORTED)
    assert vote.answer(TIMEOUT_S).value == "4" and len(engine.handles) == 5
    assert vote.answer().tally.agreement == "1 of 5 agree on 4"


@pytest.mark.parametrize(
    ("times", "first_token_s"),
    [((0.3, 0.1), 0.3), ((0.0, 0.3), 0.3), ((0.0, 0.0), 0.0)],  # 0: aborted before it had a token
)
def test_the_first_token_is_that_of_the_first_answer_that_ended(times, first_token_s):
    """Later answers are submitted later, and their own wait was taken for that of the vote."""
    engine = FakeEngine()
    vote = engine.vote()
    for one in times:
        engine.end("4", first_token_s=one)
    assert vote.answer(TIMEOUT_S).timings.first_token_s == first_token_s


def test_answers_that_do_not_vote_are_counted():
    """It said that they have no value."""
    engine = FakeEngine()
    vote = engine.vote()
    for _ in range(8):
        engine.end("5", LENGTH)
    assert vote.answer(TIMEOUT_S).tally.agreement == "8 without a vote"


def test_an_answer_that_is_submitted_during_an_abort_is_aborted_too():
    engine = FakeEngine()
    submit_all, votes = engine.submit_all, []

    def submit_and_abort(requests, *, wait):
        if votes:
            votes[0].abort()
        return submit_all(requests, wait=wait)

    engine.submit_all = submit_and_abort
    votes.append(engine.vote())
    engine.end("4")
    engine.wait_for_handles(5)
    for _ in range(4):
        engine.end(None, StopReason.ABORTED)
    assert votes[0].answer(TIMEOUT_S).tally.ended == 5 and {1, 2, 3, 4} == set(engine.aborted)


def test_a_vote_is_awaited_and_a_cancelled_task_aborts_it():
    async def both():
        engine, cancelled = FakeEngine(), FakeEngine()
        task = asyncio.ensure_future(_wait(cancelled.vote()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        vote = engine.vote()
        Thread(target=lambda: [engine.end("4") for _ in range(2)]).start()
        return cancelled.aborted, await vote

    aborted, winner = asyncio.run(both())
    assert winner.value == "4" and aborted == [0, 1, 2, 3]


async def _wait(vote):
    return await vote


def test_below_the_minimum_of_confidence_there_is_no_value():
    engine = FakeEngine()
    vote = engine.vote(min_confidence=0.99)
    for _ in range(2):  # more would not be so sure
        assert not vote.done
        engine.end("4")
    answer = vote.answer(TIMEOUT_S)
    assert (answer.value, answer.sure) == (None, False)
    assert 0 < answer.confidence < 0.99 and answer.tally.votes == {"4": 2} and "4" in answer.text


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"effort": "extreme"}, "effort must be low, medium, high, not 'extreme'"),
        (
            {"effort": "high", "grammar": from_regex("[0-9]+")},
            "effort high cannot be combined with a grammar",
        ),
        ({"min_confidence": 1}, "min_confidence must be from 0 and below 1, not 1"),
        ({"min_confidence": float("nan")}, "min_confidence must be"),
    ],
)
def test_bad_options_are_named(open_fake_engine, options, named):
    with pytest.raises(RequestError, match=named):
        open_fake_engine().request("1 + 1", **options)


def test_votes_exclude_log_probabilities():
    with pytest.raises(RequestError, match="effort medium cannot be combined with logprobs"):
        Request((1,), logprobs=0, effort=Effort.MEDIUM)


@pytest.fixture
def with_examples(monkeypatch):
    """The fake model has a token for each byte, and so a long prompt."""
    monkeypatch.setattr(Model, "context_trained", 2000)


@pytest.mark.usefixtures("with_examples")
def test_a_question_without_a_number_is_answered_once(open_fake_engine):
    engine = open_fake_engine()
    assert engine.request("Why?", effort="high").effort is Effort.LOW
    asked = engine.request("Why 7?", effort="high")
    assert asked.effort is Effort.HIGH and asked.tokens == engine.request("Why 7?").tokens
    assert asked.examples == asked.tokens  # without a chat template, examples stand before any question
    prompts = [one.tokens for one in sample_requests(asked, asked.effort.rule)]
    assert prompts == [asked.examples] * asked.effort.rule.examples + [asked.tokens] * 2


@pytest.mark.usefixtures("with_examples")
@pytest.mark.parametrize(
    ("queue", "error", "named"),
    [
        (4, BusyError, "1 requests run and 4 wait: the queue is full"),
        (2, RequestError, r"^4 requests at once: slots and queue hold 3$"),
    ],
)
def test_a_vote_that_has_no_room_is_refused_as_a_whole(open_fake_engine, queue, error, named):
    """An idle engine said that its queue is full."""
    engine = open_fake_engine(slots=1, queue=queue)
    Context.gate.clear()
    handles = [engine.submit(Request((1,), max_tokens=1)) for _ in range(2)]
    with pytest.raises(error, match=named):
        engine.submit(engine.request("1 + 1", effort="medium", max_tokens=4))
    Context.gate.set()
    for handle in handles:
        handle.wait(TIMEOUT_S)
    assert engine.load.running == engine.load.waiting == 0


@pytest.mark.slow
def test_a_real_model_gives_other_answers_by_seed_and_computes_the_prompt_once(smollm2):
    sampling = Sampling(1.5, min_p=0.02, seed=2**32 - 4)
    with Engine(smollm2, context=1024, slots=4, threads=1) as engine:
        low, high = (
            engine.answer(QUESTION, effort=effort, max_tokens=12, sampling=sampling)
            for effort in ("low", "high")
        )
        assert engine.load.running == engine.load.waiting == 0
    assert low.tally is None and high.tally.asked == 10 and high.tally.ended > 4
    assert high.usage.completion_tokens > high.tally.ended
