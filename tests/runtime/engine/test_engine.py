"""Logic of the engine over a fake model, which repeats its prompt, one token per byte."""

import asyncio
from threading import Thread

import pytest
from thirteen.errors import BusyError, ClosedError, FileError, RequestError
from thirteen.runtime.request import Request, StopReason

from ..fakes import Context, Native


def request(text, max_tokens=100):
    return Request(tuple(text.encode()), max_tokens)


def test_an_answer_ends_at_the_end_of_turn_token(open_fake_engine):
    answer = open_fake_engine().answer("12 apples")
    assert (answer.text, answer.value, answer.stop_reason) == ("12 apples", "12", StopReason.END)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 10)


def test_a_sum_gets_its_result_and_no_digit_follows_it(open_fake_engine):
    answer = open_fake_engine().answer("so 12 * 13 =99. 1 + 1 =3.5 and on")
    assert answer.text == "so 12 * 13 = 156. 1 + 1 = 2. and on"
    assert [step.computed for step in answer.steps] == ["156", "2"]
    assert answer.verified and answer.value == "2"


def test_without_the_calculator_a_wrong_sum_stays_and_is_not_verified(open_fake_engine):
    answer = open_fake_engine().answer("12 * 13 = 99", calculator=False)
    assert (answer.text, answer.verified) == ("12 * 13 = 99", False)
    assert [(step.claimed, step.computed, step.ok) for step in answer.steps] == [("99", "156", False)]


def test_a_result_is_computed_in_one_batch(open_fake_engine):
    engine = open_fake_engine()
    context, batches = engine._runner._context, []
    decode, context.decode = context.decode, lambda spans: batches.append(spans) or decode(spans)
    assert engine.answer("7 * 8 = ").text == "7 * 8 = 56 "
    assert max(len(span.tokens) for spans in batches for span in spans if span.start >= 8) == 4  # "= 56"


@pytest.mark.parametrize("max_tokens", range(6, 10))
def test_a_result_does_not_exceed_max_tokens(open_fake_engine, max_tokens):
    answer = open_fake_engine().answer("7 * 8 =", max_tokens=max_tokens)
    assert (answer.text, answer.stop_reason) == ("7 * 8 = 56"[:max_tokens], StopReason.LENGTH)


def test_a_stream_yields_the_text_as_it_comes_and_then_the_answer(open_fake_engine, monkeypatch):
    monkeypatch.setattr(Context, "seconds", 0.02)
    *pieces, last = open_fake_engine().stream("aé😀b")
    assert len(pieces) > 1
    assert "".join(piece.text for piece in (*pieces, last)) == last.answer.text == "aé😀b"


def test_a_full_context_ends_one_answer_and_no_other(open_fake_engine):
    long, short = open_fake_engine(context=20).answers(["a" * 15, "b" * 5])
    assert (long.text, long.stop_reason) == ("a" * 6, StopReason.LENGTH)
    assert (short.text, short.stop_reason) == ("b" * 5, StopReason.END)


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(open_fake_engine):
    engine = open_fake_engine(context=20)
    with pytest.raises(RequestError, match=r"21 tokens.* 20"):
        engine.answer("a" * 21)


def test_the_context_is_clamped_to_the_trained_one(open_fake_engine):
    assert open_fake_engine(context=5000).context == 100


@pytest.mark.parametrize(
    "options", [{"context": 0}, {"slots": 0}, {"slots": 5}, {"batch": 0}, {"threads": 0}]
)
def test_options_out_of_range_are_refused_and_nothing_leaks(open_fake_engine, options):
    with pytest.raises(RequestError, match=f"^{next(iter(options))} must be "):
        open_fake_engine(**options)
    assert Native.open_count == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda engine: engine.answer("a", adapter=["x"]), r"adapter must be a string, not \['x'\]"),
        (lambda engine: engine.answer("a", prompt="x"), "prompt must be a QuestionPrompt, not 'x'"),
        (lambda engine: engine.answer("a", turn=["x"]), r"request: turn must be a string, not \['x'\]"),
        (lambda engine: engine.conversation([{"role": "user"}]), "messages: each must be a Message, not "),
        (lambda engine: engine.encode_text(None), "text must be a string, not None"),
    ],
)
def test_values_of_other_types_are_refused_by_name(open_fake_engine, call, message):
    """They raised what Python does, or ended the engine for everybody."""
    engine = open_fake_engine()
    with pytest.raises(RequestError, match=f"^{message}"):
        call(engine)
    assert engine.answer("abc").text == "abc"


def test_abort_frees_the_slot_for_the_next(open_fake_engine):
    engine = open_fake_engine(slots=1)
    Context.gate.clear()
    first, second = engine.submit(request("a" * 50)), engine.submit(request("b"))
    first.abort()
    Context.gate.set()
    assert first.wait(5).stop_reason is StopReason.ABORTED
    assert second.wait(5).stop_reason is StopReason.END
    first.abort()
    assert engine._runner._context.computed < 50


def test_leaving_a_stream_early_aborts_it(open_fake_engine, monkeypatch):
    monkeypatch.setattr(Context, "seconds", 0.02)
    handle = open_fake_engine().submit(request("abc" * 9))
    for _ in handle:
        break
    assert handle.wait(5).stop_reason is StopReason.ABORTED


def test_a_full_queue_refuses_and_wait_waits(open_fake_engine):
    engine = open_fake_engine(queue=1)
    Context.gate.clear()
    handles = [engine.submit(request("abc")) for _ in range(3)]
    with pytest.raises(BusyError, match="2 requests run and 1 wait: the queue is full"):
        engine.submit(request("abc"))
    waiting = Thread(target=lambda: handles.append(engine.submit(request("xyz"), wait=True)))
    waiting.start()
    Context.gate.set()
    waiting.join(5)
    assert [handle.answer(5).text for handle in handles] == ["abc"] * 3 + ["xyz"]


def test_an_event_loop_awaits_and_iterates(open_fake_engine):
    engine = open_fake_engine()

    async def both():
        text = [piece async for piece in engine.submit(request("abc"))]
        return text, await asyncio.gather(*(engine.submit(request(f"{n}")) for n in range(2)))

    pieces, answers = asyncio.run(both())
    assert "".join(piece.text for piece in pieces) == pieces[-1].answer.text == "abc"
    assert [answer.text for answer in answers] == ["0", "1"]


def test_a_cancelled_task_aborts_its_request(open_fake_engine):
    engine = open_fake_engine()
    Context.gate.clear()

    async def cancelled():
        handles = [engine.submit(request("abc")) for _ in range(2)]
        tasks = [asyncio.ensure_future(wait(handle)) for handle in handles]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return handles

    async def wait(handle):
        return await handle

    handles = asyncio.run(cancelled())
    Context.gate.set()
    assert [handle.wait(5).stop_reason for handle in handles] == [StopReason.ABORTED] * 2


def test_a_timeout_does_not_end_the_request(open_fake_engine):
    Context.gate.clear()
    handle = open_fake_engine().submit(request("abc"))
    with pytest.raises(TimeoutError):
        handle.answer(timeout=0.01)
    Context.gate.set()
    assert handle.answer(5).text == "abc"


def test_a_shared_prefix_is_computed_once(open_fake_engine):
    engine = open_fake_engine(slots=4)
    shared = "a prompt that is long enough, "
    answers = engine.answers([shared + end for end in ("x", "y", "z")])
    assert [answer.text for answer in answers] == [shared + end for end in ("x", "y", "z")]
    assert sorted(answer.usage.cached_tokens for answer in answers) == [0, len(shared), len(shared)]
    again = engine.answer(shared + "x")
    assert again.usage.cached_tokens == len(shared), "the last token of a prompt is always computed"


def test_adapters_share_no_prefix(open_fake_engine):
    engine = open_fake_engine(adapters={"a": "a.gguf", "b": "b.gguf"}, adapter="own.gguf")
    assert engine.adapters == ("base", "a", "b", "adapter")
    question = "a prompt that is long enough"
    answers = [engine.answer(question, adapter=name) for name in (None, "base", "a", "b", "a", "base")]
    assert [answer.usage.cached_tokens for answer in answers] == [0, 0, 0, 0, 27, 27]
    assert {answer.text for answer in answers} == {question}
    handles = [engine.submit(engine.request("0123456789" * 3, adapter=name)) for name in ("a", "b", "a")]
    assert {handle.answer(5).text for handle in handles} == {"0123456789" * 3}


@pytest.mark.parametrize("adapters", [{"base": "a.gguf"}, {"adapter": "a.gguf"}])
def test_reserved_names_of_adapters_are_refused(open_fake_engine, adapters):
    with pytest.raises(RequestError, match="reserved"):
        open_fake_engine(adapters=adapters)


def test_pieces_carry_the_log_probabilities_of_their_tokens_if_requested(open_fake_engine):
    engine = open_fake_engine()
    text = "1 + 1 ="
    for logprobs, top in ((None, None), (0, []), (1, [-0.5])):
        pieces = list(engine.submit(Request(tuple(text.encode()), calculator=True, logprobs=logprobs)))
        found = [logprob for piece in pieces for logprob in piece.logprobs]
        tokens = [token for piece in pieces for token in piece.tokens]
        assert [logprob.token for logprob in found] == (tokens if logprobs is not None else [])
        assert all(logprob.logprob == -0.5 for logprob in found[: len(text)])
        assert all(logprob.logprob == 0 for logprob in found[len(text) :]), "inserted tokens are certain"
        assert all([one for _, one in logprob.top] == top for logprob in found[: len(text)])


def test_a_failed_computation_ends_its_requests_and_the_engine_continues(open_fake_engine, monkeypatch):
    engine = open_fake_engine()
    monkeypatch.setattr(Context, "fail", True)
    with pytest.raises(FileError):
        engine.answer("abc")
    monkeypatch.setattr(Context, "fail", False)
    assert engine.answer("abc").text == "abc"


def test_a_closed_engine_has_ended_its_requests_and_accepts_no_more(open_fake_engine):
    engine = open_fake_engine()
    Context.gate.clear()
    handles = [engine.submit(request("abc")) for _ in range(5)]
    closing = Thread(target=engine.close)
    closing.start()
    Context.gate.set()
    closing.join(5)
    assert {handle.wait(0).stop_reason for handle in handles} <= {StopReason.ABORTED, StopReason.END}
    engine.close()
    with pytest.raises(ClosedError):
        engine.submit(request("abc"))


def test_an_engine_in_an_async_block_is_closed_outside_of_the_event_loop(open_fake_engine):
    async def ask():
        async with open_fake_engine() as engine:
            answer = await engine.submit(request("abc"))
        assert engine.closed
        return answer.stop_reason

    assert asyncio.run(ask()) in StopReason


def test_an_unexpected_error_fails_every_request(open_fake_engine, monkeypatch):
    engine = open_fake_engine()
    monkeypatch.setattr(engine._runner, "step", lambda: 1 / 0)
    handles = engine.submit_all([request("abc")] * 3)
    for handle in handles:
        with pytest.raises(ZeroDivisionError):
            handle.answer(5)
    with pytest.raises(ClosedError):
        engine.submit(request("abc"))


@pytest.mark.parametrize("prefix_bytes", [8 * 40, 8 * 42])
def test_a_state_that_would_not_fit_the_prefix_cache_is_not_copied(open_fake_engine, prefix_bytes):
    engine, copies = open_fake_engine(prefix_bytes=prefix_bytes), []
    context = engine._runner._context
    save = context.save
    context.save = lambda slot: copies.append(slot) or save(slot)
    engine.submit(Request(tuple(b"a" * 40))).answer()
    assert len(copies) == (prefix_bytes > 8 * 41)


def test_requests_that_do_not_all_fit_the_queue_are_not_started(open_fake_engine):
    """Those that fitted were, and then aborted."""
    engine = open_fake_engine(queue=1)
    with pytest.raises(RequestError, match=r"^4 requests at once: slots and queue hold 3$"):
        engine.submit_all([request("abc")] * 4)
    assert engine.answer("xyz").text == "xyz"
    assert engine._runner._context.computed == len("xyz") * 2
    assert len(engine.submit_all([request("abc")] * 4, wait=True)) == 4
