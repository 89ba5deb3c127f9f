"""The engine: answers, streams, aborts, the queue and failures, on a model that says what a test wants."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Thread
from time import sleep

import pytest
from thirteen.errors import BusyError, ClosedError, FileError, RequestError
from thirteen.runtime.answer import Piece, SequenceEnd, StopReason, Timings, Usage, grade
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.options import Options, Request

from ..conftest import CONTEXT
from ..fakes import FIXED, TIMEOUT_S, halted

ABORTED, END, LENGTH = StopReason.ABORTED, StopReason.END, StopReason.LENGTH
REQUEST = Request((1, 2, 3))


async def collect(handle):
    return [piece async for piece in handle]


TAKES = [list, lambda handle: asyncio.run(collect(handle))]


def test_sums_get_their_results_and_texts_end_where_they_should(engine, say):
    for said, options, text, steps in (
        (
            "so 12 * 13 =99. 1 + 1 =3.5 and on",
            {},
            "so 12 * 13 = 156. 1 + 1 = 2. and on",  # no digit follows a result
            [("156", True), ("2", True)],
        ),
        ("12 * 13 = 99", {"calculator": False}, "12 * 13 = 99", [("156", False)]),
        *(("7 * 8 =", {"max_tokens": n}, "7 * 8 = 56"[:n], None) for n in range(6, 10)),
        ("one\ntwo\nthree", {"stop": ["\nth", "wo\n"]}, "one\nt", []),
        ("one\ntwo", {"stop": "\n"}, "one", []),
    ):
        say(said)
        answer = engine.answer("How many?", **options)
        assert answer.text == text
        assert steps is None or [(step.computed, step.ok) for step in answer.steps] == steps
        assert answer.verified == (steps == [("156", True), ("2", True)])
        reason = LENGTH if "max_tokens" in options else StopReason.STOP if "stop" in options else END
        assert answer.stop_reason is reason


@pytest.mark.parametrize("take", TAKES)
def test_a_stream_yields_the_text_as_it_comes_and_then_the_answer(engine, say, take):
    say("aé😀b", pause_s=0.02)
    *pieces, last = take(engine.stream("a"))
    assert len(pieces) > 1 and all("\ufffd" not in piece.text for piece in pieces)
    assert "".join(piece.text for piece in (*pieces, last)) == last.answer.text == "aé😀b"


def test_the_times_of_tokens_count_from_the_submission(engine, say):
    say("abc", pause_s=0.02)
    handle = engine.submit(REQUEST)
    end = handle.wait()
    first_s, last_s = end.timings.first_token_s, end.timings.first_token_s + end.timings.decode_s
    assert 0 < end.timings.prefill_s <= first_s == pytest.approx(end.token_s[0])
    assert first_s < end.token_s[1] < end.token_s[2] <= last_s


def test_options_come_as_a_whole_or_as_keywords(engine):
    texts = [
        engine.answer("a", Options(temperature=1.5, seed=4, max_tokens=9)),
        engine.answer("a", max_tokens=9, temperature=1.5, seed=4),
        engine.answer("a", Options(temperature=1.5), seed=4, max_tokens=9),
        engine.answer("a", max_tokens=9, temperature=1.5, seed=5),
    ]
    assert texts[0].text == texts[1].text == texts[2].text != texts[3].text


def test_a_full_context_ends_one_answer_and_no_other(engine, say):
    say("a" * 20)
    long, short = engine.submit_all([Request((1,) * (CONTEXT - 5)), REQUEST])
    assert (long.answer().text, long.answer().stop_reason) == ("a" * 6, LENGTH)
    assert (short.answer().text, short.answer().stop_reason) == ("a" * 20, END)


def test_what_cannot_be_is_refused_by_name_and_the_engine_goes_on(engine):
    for ask, message in (
        (lambda engine: engine.submit(Request((1,) * 257)), r"257 tokens.* 256"),
        (lambda engine: engine.submit(Request(())), "the prompt is empty"),
        (lambda engine: engine.submit(Request((1, 9999))), "token 9999 is not one of the model's"),
        (lambda engine: engine.submit(Request((1,), Options(logit_bias={999: 1}))), "token 999 is not one"),
        (lambda engine: engine.answer(" "), "the question is empty"),
        (lambda engine: engine.answer(None), "question must be a string, not None"),
        (lambda engine: engine.answer("a", adapter="z"), "adapter: 'z' is not one of base, a, b, c, nan"),
        (lambda engine: engine.answers("abc"), "give a list"),
        (lambda engine: engine.prompt_logprobs([1] * 257), r"257 tokens.* 256"),
        (lambda engine: engine.prompt_logprobs([1, 2.5]), r"token 2\.5 is not one"),
        (lambda engine: engine.prompt_logprobs([1, 2], adapter="z"), "adapter: 'z' is not one of"),
        (lambda engine: engine.encode_text(None), "text must be a string, not None"),
        (lambda engine: engine.submit_all([REQUEST] * 9), "9 requests at once: slots and queue hold 8"),
    ):
        with pytest.raises(RequestError, match=message):
            ask(engine)
        assert engine.answer("a", max_tokens=1).usage.completion_tokens == 1 and engine.load == (0, 0)


def test_leaving_a_stream_aborts_it(engine, say):
    say("abc" * 30, pause_s=0.005)
    handles = engine.submit_all([REQUEST] * 6)
    while engine.load != (4, 2):
        sleep(0.001)
    for handle in handles:
        for _ in handle:
            break
    assert {handle.wait(TIMEOUT_S).stop_reason for handle in handles} == {ABORTED}


def test_a_full_queue_refuses_and_wait_waits(engine, say):
    say("abc")
    with ThreadPoolExecutor(1) as thread:
        with halted():
            handles = engine.submit_all([REQUEST] * 8)
            with pytest.raises(BusyError, match="4 requests run and 4 wait: the queue is full"):
                engine.submit(REQUEST)
            waiting = thread.submit(engine.submit, REQUEST, wait=True)
            with pytest.raises(TimeoutError):
                handles[0].answer(timeout=0.01)  # and the request goes on
            assert not waiting.done()
        handles.append(waiting.result(TIMEOUT_S))
    assert [handle.answer(TIMEOUT_S).text for handle in handles] == ["abc"] * 9


def test_an_event_loop_awaits_answers_and_a_cancelled_task_aborts_its_request(engine, say):
    say("abc")

    async def ask():
        answers = await asyncio.gather(*map(wait, engine.submit_all([REQUEST] * 2)))
        with halted():
            handle = engine.submit(REQUEST)
            task = asyncio.ensure_future(wait(handle))
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return answers, await handle

    async def wait(handle):
        return await handle

    answers, cancelled = asyncio.run(ask())
    assert [answer.text for answer in answers] == ["abc"] * 2 and cancelled.stop_reason is ABORTED


@pytest.mark.parametrize(("logprobs", "tops"), [(None, None), (0, 0), (2, 2)])
def test_pieces_carry_the_log_probabilities_of_their_tokens_if_requested(engine, say, logprobs, tops):
    say("1 + 1 =")
    pieces = list(engine.stream("a", logprobs=logprobs))
    found = [logprob for piece in pieces for logprob in piece.logprobs]
    tokens = [token for piece in pieces for token in piece.tokens]
    assert bytes(tokens) == b"1 + 1 = 2"
    assert [logprob.token for logprob in found] == (tokens if tops is not None else [])
    assert all(one.logprob < 0 and len(one.top) == tops for one in found[:7])
    assert all(one.logprob == 0 for one in found[7:]), "inserted tokens are certain"


def test_a_failed_computation_ends_its_requests_and_the_engine_continues(engine):
    """The adapter "nan" makes every number of a batch NaN."""
    before = engine.answer("a", max_tokens=9).text
    failed, *others = (engine.stream("a", adapter=name, max_tokens=9) for name in ("nan", "base", "base"))
    with pytest.raises(FileError, match="logits are not finite"):
        failed.answer(TIMEOUT_S)
    assert {handle.answer(TIMEOUT_S).text for handle in others} == {before}
    assert engine.answer("a", max_tokens=9).text == before


def test_a_closed_engine_has_ended_its_requests_and_accepts_no_more(tiny):
    engine = Engine(tiny, slots=1, **FIXED)
    handles = engine.submit_all([Request((1,), Options(max_tokens=200, ignore_end=True))] * 5)
    with ThreadPoolExecutor(2) as threads:
        for closing in [threads.submit(engine.close) for _ in range(2)]:
            closing.result(TIMEOUT_S)
    assert handles[-1].wait(0).stop_reason is ABORTED and all(handle.done for handle in handles)
    engine.close()
    for use in (lambda: engine.submit(REQUEST), lambda: engine.answer("a"), lambda: engine.logits([1])):
        with pytest.raises(ClosedError, match="the engine is closed"):
            use()


def test_an_engine_in_an_async_block_is_closed_outside_of_the_event_loop(tiny):
    async def ask():
        async with Engine(tiny, **FIXED) as engine:
            answer = await engine.stream("a", max_tokens=3)
        assert engine.closed
        return answer.stop_reason

    assert asyncio.run(ask()) in StopReason


def test_an_unexpected_error_fails_every_request_and_closes_the_engine(tiny, say):
    say(ZeroDivisionError())
    with Engine(tiny, **FIXED) as engine:
        for handle in engine.submit_all([REQUEST] * 3):
            with pytest.raises(ZeroDivisionError):
                handle.answer(TIMEOUT_S)
        with pytest.raises(ClosedError):
            engine.submit(REQUEST)


SEQUENCE_END = SequenceEnd(StopReason.END, Usage(1, 2), Timings(0, 0, 0))


def handle_of(kind=Handle):
    return kind(lambda: None, partial(grade, Request((1,)), None))


class LateHandle(Handle):
    """Its last piece comes from another thread while an iterator reads `done`."""

    reads = 0

    @property
    def done(self):
        self.reads += 1
        if self.reads == 1:
            last = Thread(target=self.put, args=(Piece("the last", (1, 2), end=SEQUENCE_END),), daemon=True)
            last.start()
            last.join(0.2)  # put() blocks if the reader holds the lock
        return super().done


@pytest.mark.parametrize("take", TAKES)
def test_the_last_piece_is_not_lost_between_two_reads(take):
    pieces = take(handle_of(LateHandle))
    assert "".join(piece.text for piece in pieces) == pieces[-1].answer.text == "the last"
    assert [token for piece in pieces for token in piece.tokens] == [1, 2]


@pytest.mark.parametrize("take", TAKES)
def test_pieces_before_a_failure_come_first_and_then_the_failure(take):
    handle, seen = handle_of(), []
    handle.put(Piece("some"))
    handle.fail(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        seen.extend(piece.text for piece in handle)
    with pytest.raises(ValueError, match="broken"):
        take(handle)


def test_each_piece_goes_to_one_iterator_and_the_answer_to_all():
    handle, ended = handle_of(), []
    handle.add_done_callback(ended.append)
    handle.put(Piece("one "))
    first = iter(handle)
    assert next(first).text == "one " and not ended
    handle.put(Piece("two", end=SEQUENCE_END))
    handle.add_done_callback(ended.append)
    assert [piece.text for piece in handle] == ["two"]
    assert [(piece.text, piece.answer.text) for piece in first] == [("", "one two")]
    assert ended == [handle, handle]
