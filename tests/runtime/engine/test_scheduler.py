"""The rules of the scheduler, without weights."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.answer import StopReason
from thirteen.runtime.engine.prefix_cache import PREFIX_TOKENS_MIN
from thirteen.runtime.engine.scheduler import PREFILL_CHUNK, Scheduler, SequenceState
from thirteen.runtime.options import BASE, Request


def add(scheduler, prompt, max_tokens=3, adapter=BASE):
    tokens = (7,) * prompt if isinstance(prompt, int) else prompt
    sequence = SequenceState(Request(tokens), adapter, max_tokens)
    scheduler.waiting.append(sequence)
    return sequence


def plan(scheduler):
    list(scheduler.admit())
    return scheduler.plan()


def run(scheduler):
    """Run one step as the runner does, sampling token 1 always; returns its batch."""
    for chunk in (chunks := plan(scheduler)):
        chunk.sequence.computed += len(chunk.tokens)
        if chunk.rows:
            chunk.sequence.output.append(1)
            if chunk.sequence.remaining <= 0:
                scheduler.finish(chunk.sequence, StopReason.LENGTH)
    return chunks


def sizes(chunks):
    return [len(chunk.tokens) for chunk in chunks]


def test_prefill_chunks_are_small_during_decode():
    """An answer waits for the whole batch that has its next token."""
    scheduler = Scheduler(slots=3, budget=10 * PREFILL_CHUNK)
    first = add(scheduler, prompt=2 * PREFILL_CHUNK, max_tokens=9_000)
    assert sizes(run(scheduler)) == [2 * PREFILL_CHUNK], "nothing decodes"
    add(scheduler, prompt=PREFILL_CHUNK - 1)
    add(scheduler, prompt=PREFILL_CHUNK)
    assert sizes(run(scheduler)) == [1, PREFILL_CHUNK - 1, 1]
    first.output += [1] * 20 * PREFILL_CHUNK  # what a grammar forces held up the others
    assert sizes(plan(scheduler)) == [PREFILL_CHUNK, 1]
    add(scheduler, prompt=4 * PREFILL_CHUNK, adapter="other")
    scheduler.finish(scheduler.running[1], StopReason.ABORTED)
    assert sizes(plan(scheduler)) == [PREFILL_CHUNK], "also under another adapter, whose turn is next"


def test_slots_are_ascending_in_a_batch_and_those_of_an_adapter_are_neighbours():
    """llama.cpp computes only ascending neighbours together."""
    scheduler = Scheduler(slots=6, budget=8)
    short = [add(scheduler, prompt=1, max_tokens=1) for _ in range(2)]
    for adapter in ("a", "b"):
        add(scheduler, prompt=1, max_tokens=99, adapter=adapter)
    while not all(sequence.stop_reason for sequence in short):
        run(scheduler)
    more = [add(scheduler, prompt=1, adapter=adapter) for adapter in ("b", "a", "c")]
    list(scheduler.admit())
    assert [sequence.slot for sequence in more] == [4, 1, 0]
    slots = [[chunk.slot for chunk in run(scheduler)] for _ in range(3)]
    assert sorted(slots) == [[0], [1, 2], [3, 4]]


def test_a_batch_has_one_adapter_and_adapters_alternate():
    scheduler = Scheduler(slots=4, budget=8)
    for adapter in ("a", "b", "a", "c"):
        add(scheduler, prompt=1, max_tokens=3, adapter=adapter)
    batches = [{chunk.sequence.adapter for chunk in run(scheduler)} for _ in range(9)]
    assert batches == [{"a"}, {"b"}, {"c"}] * 3
    assert scheduler.idle


SHARED, LONG = tuple(range(PREFIX_TOKENS_MIN)), tuple(range(2 * PREFIX_TOKENS_MIN))


@pytest.mark.parametrize(
    ("first", "second", "waits"),
    [
        ((*LONG, 1), (*LONG, 2), True),
        ((*LONG, 1), LONG[: PREFIX_TOKENS_MIN - 1], False),
        ((*LONG, 1), (5, *LONG), False),
        ((*SHARED, 1), (*SHARED, 2), True),
        (SHARED, (*SHARED, 2), False),  # so few new tokens are not saved
        ((*SHARED, 1), SHARED, False),  # the last token of a prompt is always computed
    ],
)
@pytest.mark.parametrize(("adapter", "cacheable"), [(BASE, 1000), ("a", 1000), (BASE, PREFIX_TOKENS_MIN)])
def test_a_prompt_waits_for_a_prefix_in_prefill_that_it_can_share(first, second, waits, adapter, cacheable):
    scheduler = Scheduler(slots=2, budget=8, cacheable=cacheable)
    computed, sequence = add(scheduler, first), add(scheduler, second, adapter=adapter)
    list(scheduler.admit())
    assert (sequence.slot is None) == (waits and (adapter, cacheable) == (BASE, 1000))
    while not computed.decoding:
        run(scheduler)
    list(scheduler.admit())
    assert sequence.slot == 1 or sequence.stop_reason


@given(
    slots=st.integers(1, 4),
    spare=st.integers(0, 8),
    requests=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 6), st.sampled_from("ab")), max_size=12),
    aborts=st.sets(st.integers(0, 11)),
    sharing=st.booleans(),
)
def test_all_requests_end_within_slots_and_budget(slots, spare, requests, aborts, sharing):
    scheduler = Scheduler(slots, slots + spare, 1000 * sharing)
    sequences = [add(scheduler, *request) for request in requests]
    started: list[SequenceState] = []
    for step in range(1_000):
        if scheduler.idle:
            break
        if step in aborts and step < len(sequences) and sequences[step].stop_reason is None:
            scheduler.finish(sequences[step], StopReason.ABORTED)
        list(scheduler.admit())
        running = list(scheduler.running)
        started += [sequence for sequence in running if sequence not in started]
        decoding = {sequence for sequence in running if sequence.decoding}
        chunks = run(scheduler)
        used, adapters = [chunk.start for chunk in chunks], {chunk.sequence.adapter for chunk in chunks}
        assert len(used) == len({chunk.sequence for chunk in chunks}) <= slots and len(adapters) <= 1
        assert all(sizes(chunks)) and sum(sizes(chunks)) <= slots + spare
        assert {s for s in decoding if s.adapter in adapters} <= {chunk.sequence for chunk in chunks}
    assert scheduler.idle and all(sequence.stop_reason for sequence in sequences)
    assert sharing or started == [sequence for sequence in sequences if sequence in started]
