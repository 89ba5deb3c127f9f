"""The engine's own logic, over a model that is a fake: one token for each byte, every token as likely."""

import pytest
from thirteen.errors import ModelFileError, RequestError
from thirteen.runtime import engine as module
from thirteen.runtime.engine import Engine
from thirteen.runtime.request import End, Request, Sampling, StopReason, Token

END_OF_TURN = 256


class Native:
    """What the fakes share: freed once, and counted while they are not."""

    alive = 0

    def __init__(self):
        Native.alive += 1
        self.open = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        Native.alive -= self.open
        self.open = False


class Model(Native):
    bos, eos, adds_bos, context_trained, vocabulary_size = None, END_OF_TURN, False, 100, 257
    control_tokens = {"<end>": END_OF_TURN}  # noqa: RUF012

    def __init__(self, path):
        super().__init__()
        self.header = type("Header", (), {"metadata": {}, "path": path})()

    def tokenize(self, text, *, special, bos):
        return list(text.encode())

    def piece(self, token):
        return b"" if token == END_OF_TURN else bytes((token,))

    def ends(self, token):
        return token == END_OF_TURN

    def check_tokens(self, tokens):
        assert all(0 <= token < self.vocabulary_size for token in tokens)


class Context(Native):
    """Checks what the native one demands; a slot says its prompt again, then ends the turn."""

    fail = False

    def __init__(self, model, room, adapter):
        super().__init__()
        self.room, self.held, self.rows = room, {slot: [] for slot in range(room.slots)}, []

    def decode(self, spans):
        if Context.fail:
            raise ModelFileError("decoding failed")
        assert [span.slot for span in spans] == sorted({span.slot for span in spans})
        for span in spans:
            assert span.start == len(self.held[span.slot])
            self.held[span.slot] += span.tokens
            assert len(self.held[span.slot]) <= self.room.context
        self.rows = [span.slot for span in spans if span.rows]
        return list(range(len(self.rows)))

    def clear(self, slot):
        self.held[slot] = []


class Sampler(Native):
    def __init__(self, model, sampling, grammar):
        super().__init__()
        self.said = None

    def sample(self, context, row, *, no_digit=False):
        held = context.held[context.rows[row]]
        self.said = list(held) if self.said is None else self.said
        while no_digit and self.said and chr(self.said[0]).isdigit():
            self.said.pop(0)
        return self.said.pop(0) if self.said else END_OF_TURN


@pytest.fixture
def opened(monkeypatch):
    for fake in (Model, Context, Sampler):
        monkeypatch.setattr(module, fake.__name__, fake)
    monkeypatch.setattr(Context, "fail", False)
    engines = []

    def make(**options):
        engines.append(Engine("fake.gguf", **{"slots": 2, "batch": 4, "threads": 1} | options))
        return engines[-1]

    yield make
    for engine in engines:
        assert all(not held for held in engine._native.held.values()) or not engine.idle, "a slot leaks"
        engine.close()
    assert Native.alive == 0, "a native handle leaks"


def request(text, max_tokens=100):
    return Request(tuple(text.encode()), max_tokens)


def test_an_answer_ends_with_the_turn(opened):
    answer = opened().answer("12 apples")
    assert (answer.text, answer.value, answer.stop_reason) == ("12 apples", "12", StopReason.END)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 10)


def test_a_sum_gets_its_result_and_no_digit_follows_it(opened):
    answer = opened().answer("so 12 * 13 =99. 1 + 1 =3.5 and on")
    assert answer.text == "so 12 * 13 = 156. 1 + 1 = 2. and on"
    assert [step.computed for step in answer.steps] == ["156", "2"]
    assert answer.verified and answer.value == "2"


def test_without_the_calculator_a_wrong_sum_stands_and_is_not_verified(opened):
    answer = opened().answer("12 * 13 = 99", calculator=False)
    assert (answer.text, answer.verified) == ("12 * 13 = 99", False)
    assert [(step.claimed, step.computed, step.ok) for step in answer.steps] == [("99", "156", False)]


def test_a_result_goes_in_as_one_batch(opened):
    engine = opened()
    [*engine.stream("x 7 * 8 =")]
    batches = []
    decode, engine._native.decode = (
        engine._native.decode,
        lambda spans: batches.append(spans) or decode(spans),
    )
    assert engine.answer("7 * 8 = ").text == "7 * 8 = 56 "
    assert max(len(span.tokens) for spans in batches for span in spans if span.start >= 8) == 4  # "= 56"


@pytest.mark.parametrize("max_tokens", range(6, 10))
def test_a_result_does_not_pass_the_tokens_asked_for(opened, max_tokens):
    answer = opened().answer("7 * 8 =", max_tokens=max_tokens)
    assert (answer.text, answer.stop_reason) == ("7 * 8 = 56"[:max_tokens], StopReason.LENGTH)


def test_a_stop_string_ends_the_answer_within_a_result(opened):
    answer = opened().answer("7 * 8 =", stop=("5",))
    assert (answer.text, answer.stop_reason) == ("7 * 8 = ", StopReason.STOP)


def test_more_questions_than_slots_are_all_answered_in_order(opened):
    questions = [f"question {n} é😀" for n in range(7)]
    assert [answer.text for answer in opened().answers(questions)] == questions


def test_a_stream_gives_the_text_as_it_comes_and_then_the_answer(opened):
    *pieces, last = opened().stream("aé😀b")
    assert [piece.text for piece in pieces] == ["a", "é", "😀", "b"]
    assert (last.text, last.answer.text) == ("", "aé😀b")


def test_a_stop_string_ends_the_answer_and_never_shows(opened):
    pieces = list(opened().stream("one\ntwo\n\nthree", stop=("\n\n",)))
    assert "".join(piece.text for piece in pieces) == pieces[-1].answer.text == "one\ntwo"
    assert pieces[-1].answer.stop_reason is StopReason.STOP


def test_max_tokens_end_the_answer(opened):
    answer = opened().answer("abcdef", max_tokens=3)
    assert (answer.text, answer.stop_reason, answer.usage.completion_tokens) == ("abc", StopReason.LENGTH, 3)


def test_a_full_context_ends_one_answer_and_no_other(opened):
    long, short = opened(context=20).answers(["a" * 15, "b" * 5])
    assert (long.text, long.stop_reason) == ("a" * 6, StopReason.LENGTH)
    assert (short.text, short.stop_reason) == ("b" * 5, StopReason.END)


def test_a_prompt_as_long_as_the_context_gives_one_token(opened):
    answer = opened(context=20).answer("a" * 20)
    assert (answer.text, answer.stop_reason) == ("a", StopReason.LENGTH)


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(opened):
    engine = opened(context=20)
    with pytest.raises(RequestError, match=r"21 tokens.* 20"):
        engine.answer("a" * 21)
    assert engine.idle


def test_one_bad_question_among_several_leaves_nothing_behind(opened):
    engine = opened(context=20)
    with pytest.raises(RequestError):
        engine.answers(["fine", "a" * 21])
    engine.step()
    assert engine.idle


def test_the_context_is_clamped_to_the_trained_one(opened):
    assert opened(context=5000).context == 100


@pytest.mark.parametrize(
    "options", [{"context": 0}, {"slots": 0}, {"slots": 5}, {"batch": 0}, {"threads": 0}]
)
def test_a_room_out_of_bounds_is_refused_and_nothing_leaks(opened, options):
    with pytest.raises(RequestError):
        opened(**options)
    assert Native.alive == 0


def test_events_tell_of_each_token_and_then_of_the_end(opened):
    engine = opened()
    id = engine.submit(request("hi"))
    events = []
    while not engine.idle:
        events += engine.step()
    assert events[:-1] == [Token(id, ord("h")), Token(id, ord("i"))]
    assert isinstance(events[-1], End)
    assert events[-1].stop_reason is StopReason.END
    assert events[-1].timings.first_token_s >= events[-1].timings.prefill_s > 0


def test_abort_frees_the_slot_for_the_next_and_is_told(opened):
    engine = opened(slots=1)
    first, second = engine.submit(request("a" * 50)), engine.submit(request("b"))
    engine.step()
    engine.abort(first)
    engine.abort(first)
    events = []
    while not engine.idle:
        events += engine.step()
    assert [(event.id, event.stop_reason) for event in events if isinstance(event, End)] == [
        (first, StopReason.ABORTED),
        (second, StopReason.END),
    ]


def test_leaving_a_stream_early_aborts_it(opened):
    engine = opened()
    stream = engine.stream("abc")
    next(stream)
    stream.close()
    engine.step()
    assert engine.idle


def test_two_streams_share_the_steps(opened):
    engine = opened()
    one, two = engine.stream("abc"), engine.stream("xyz")
    first, second = next(one), next(two)
    rest, others = list(one), list(two)
    assert "".join(piece.text for piece in (first, *rest)) == rest[-1].answer.text == "abc"
    assert "".join(piece.text for piece in (second, *others)) == others[-1].answer.text == "xyz"


def test_a_failed_computation_ends_its_requests_and_the_engine_goes_on(opened, monkeypatch):
    engine = opened()
    monkeypatch.setattr(Context, "fail", True)
    with pytest.raises(ModelFileError):
        engine.answer("abc")
    monkeypatch.setattr(Context, "fail", False)
    assert engine.answer("abc").text == "abc"


def test_a_closed_engine_has_ended_its_requests(opened):
    engine = opened()
    engine.submit(request("abc"))
    engine.step()
    engine.close()
    assert engine.step()[-1].stop_reason is StopReason.ABORTED
    engine.close()


def test_sampling_is_made_for_each_request(opened):
    assert opened().answer("abc", sampling=Sampling(temperature=1.0, seed=3)).text == "abc"
