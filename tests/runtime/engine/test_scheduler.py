"""The rules of the scheduler, without weights."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.engine.prefix_cache import PREFIX_TOKENS_MIN
from thirteen.runtime.engine.scheduler import PREFILL_CHUNK, Chunk, Scheduler
from thirteen.runtime.request import Request, SequenceState, StopReason


def add(
    scheduler: Scheduler,
    prompt: int | tuple[int, ...],
    max_tokens: int = 3,
    namespace: str = "",
    turn: str = "",
    **more,
) -> SequenceState:
    tokens = (7,) * prompt if isinstance(prompt, int) else prompt
    request = Request(tokens, max_tokens, namespace=namespace, turn=turn)
    sequence = SequenceState(request, context=10_000, **more)
    scheduler.add(sequence)
    return sequence


def plan(scheduler: Scheduler) -> list[Chunk]:
    list(scheduler.admit())
    if gap := next(scheduler.gaps(), None):
        scheduler.move(*gap)
    return scheduler.plan()


def run(scheduler: Scheduler) -> list[SequenceState]:
    """Run one step as the runner does, sampling token 1 always; returns the sequences of the batch."""
    chunks = plan(scheduler)
    apply(scheduler, chunks)
    return [chunk.sequence for chunk in chunks]


def apply(scheduler: Scheduler, chunks: list[Chunk]) -> None:
    for chunk in chunks:
        chunk.sequence.computed += len(chunk.tokens)
        if chunk.rows:
            chunk.sequence.output.append(1)
            if chunk.sequence.remaining <= 0:
                scheduler.finish(chunk.sequence, StopReason.LENGTH)


@pytest.mark.parametrize(
    ("greedy_fields", "other_fields"),
    [
        ({"namespace": "greedy"}, {"namespace": "other"}),
        ({"namespace": "one", "turn": "one (votes)"}, {"namespace": "one"}),  # of the same client
        ({"turn": "127.0.0.2"}, {"turn": "127.0.0.3"}),  # clients without keys
    ],
)
def test_the_client_with_the_fewest_running_requests_is_next(greedy_fields, other_fields):
    scheduler = Scheduler(slots=3, budget=8)
    greedy = [add(scheduler, prompt=1, **greedy_fields) for _ in range(4)]
    plan(scheduler)
    other = [add(scheduler, prompt=1, **other_fields) for _ in range(2)]
    scheduler.finish(greedy[0], StopReason.ABORTED)
    plan(scheduler)
    assert [sequence.slot for sequence in (greedy[3], *other)] == [None, 0, None]
    scheduler.finish(greedy[1], StopReason.ABORTED)
    scheduler.finish(greedy[2], StopReason.ABORTED)
    plan(scheduler)
    assert [sequence.slot for sequence in (greedy[3], *other)] == [1, 0, None]


def test_of_several_namespaces_the_last_slot_is_kept_for_one_that_has_none():
    scheduler = Scheduler(slots=3, budget=8)
    first = [add(scheduler, prompt=1, namespace=name) for name in ("greedy", "other")]
    plan(scheduler)
    greedy = add(scheduler, prompt=1, namespace="greedy")
    plan(scheduler)
    assert [sequence.slot for sequence in (*first, greedy)] == [0, 1, None]
    third = add(scheduler, prompt=1, namespace="third")
    plan(scheduler)
    assert (greedy.slot, third.slot) == (None, 2)


def test_a_namespace_that_is_alone_again_gets_every_slot():
    scheduler = Scheduler(slots=2, budget=8)
    scheduler.finish(add(scheduler, prompt=1, namespace="other"), StopReason.ABORTED)
    for _ in range(64):
        scheduler.finish(add(scheduler, prompt=1, namespace="alone"), StopReason.ABORTED)
    alone = [add(scheduler, prompt=1, namespace="alone") for _ in range(2)]
    plan(scheduler)
    assert [sequence.slot for sequence in alone] == [0, 1]


def test_a_long_prompt_is_computed_in_chunks_during_decode():
    scheduler = Scheduler(slots=2, budget=8)
    first = add(scheduler, prompt=2, max_tokens=100)
    run(scheduler)
    second = add(scheduler, prompt=20)
    sizes = []
    for _ in range(3):
        chunks = {chunk.sequence: chunk for chunk in plan(scheduler)}
        assert len(chunks[first].tokens) == 1
        sizes.append((len(chunks[second].tokens), chunks[second].rows))
        run(scheduler)
    assert sizes == [(7, 0), (7, 0), (6, 1)]


def test_prefill_chunks_are_small_during_decode():
    """An answer waits for the whole batch that has its next token."""
    scheduler = Scheduler(slots=3, budget=10 * PREFILL_CHUNK)
    add(scheduler, prompt=2 * PREFILL_CHUNK, max_tokens=100)
    assert [len(chunk.tokens) for chunk in plan(scheduler)] == [2 * PREFILL_CHUNK], "nothing decodes"
    run(scheduler)
    add(scheduler, prompt=PREFILL_CHUNK - 1)
    add(scheduler, prompt=PREFILL_CHUNK)
    assert [len(chunk.tokens) for chunk in plan(scheduler)] == [1, PREFILL_CHUNK - 1, 1]


def test_what_a_grammar_forces_does_not_hold_up_others():
    """Its thousands of tokens took whole batches, and others waited for as long."""
    scheduler = Scheduler(slots=3, budget=10 * PREFILL_CHUNK)
    first = add(scheduler, prompt=1, max_tokens=9_000)
    add(scheduler, prompt=1, max_tokens=9)
    run(scheduler)
    first.output += [1] * 20 * PREFILL_CHUNK
    assert [len(chunk.tokens) for chunk in plan(scheduler)] == [PREFILL_CHUNK, 1]


def test_prefill_chunks_are_small_while_another_adapter_decodes():
    scheduler = Scheduler(slots=2, budget=8 * PREFILL_CHUNK)
    add(scheduler, prompt=1, max_tokens=99, adapter="a")
    run(scheduler)
    add(scheduler, prompt=4 * PREFILL_CHUNK, adapter="b")
    assert [sum(len(chunk.tokens) for chunk in plan(scheduler)) for _ in range(2)] == [PREFILL_CHUNK, 1]


def test_a_batch_has_its_slots_in_ascending_order():
    """llama.cpp computes only ascending neighbours together."""
    scheduler = Scheduler(slots=3, budget=8)
    for number in range(3):
        add(scheduler, prompt=1, max_tokens=1 if number == 0 else 9)
    run(scheduler)
    add(scheduler, prompt=1)
    assert [chunk.sequence.slot for chunk in plan(scheduler)] == [0, 1, 2]


def test_a_slot_is_next_to_one_of_the_same_adapter():
    scheduler = Scheduler(slots=6, budget=8)
    short = [add(scheduler, prompt=1, max_tokens=1) for _ in range(2)]
    for adapter in ("a", "b"):
        add(scheduler, prompt=1, max_tokens=99, adapter=adapter)
    while not all(sequence.stop_reason for sequence in short):
        run(scheduler)
    more = [add(scheduler, prompt=1, adapter=adapter) for adapter in ("b", "a", "c")]
    list(scheduler.admit())
    assert [sequence.slot for sequence in more] == [4, 1, 0]


@pytest.mark.parametrize(
    ("ended", "adapters", "slots"),
    [
        ({1}, "aaaa", [0, 2, 1]),
        ({0, 2}, "aaaa", [1, 2]),
        ({0, 3}, "aaaa", [1, 2]),  # there is no gap
        ({0}, "aabb", [1, 2, 3]),  # nor here
        ({1}, "abab", [0, 1, 3]),
        ({1, 2}, "aaba", [0, 1]),
        ({2}, "abba", [0, 1, 3]),  # 2 is not next to 0
    ],
)
def test_the_last_sequence_moves_into_a_gap(ended, adapters, slots):
    scheduler = Scheduler(slots=4, budget=8)
    sequences = [
        add(scheduler, prompt=1, max_tokens=1 if at in ended else 99, adapter=adapter)
        for at, adapter in enumerate(adapters)
    ]
    for _ in range(4):
        run(scheduler)
    assert [sequence.slot for sequence in sequences if not sequence.stop_reason] == slots
    more = [add(scheduler, prompt=1) for _ in range(4 - len(slots))]
    list(scheduler.admit())
    assert {sequence.slot for sequence in more} == {0, 1, 2, 3} - {*slots}


def test_a_batch_has_one_adapter_and_adapters_alternate():
    scheduler = Scheduler(slots=4, budget=8)
    for adapter in ("a", "b", "a", "c"):
        add(scheduler, prompt=1, max_tokens=3, adapter=adapter)
    batches = [{sequence.adapter for sequence in run(scheduler)} for _ in range(9)]
    assert batches == [{"a"}, {"b"}, {"c"}] * 3
    assert scheduler.idle


def test_a_prompt_that_shares_a_prefix_in_prefill_waits_for_it():
    scheduler = Scheduler(slots=5, budget=PREFIX_TOKENS_MIN, prefix_caching=True)
    shared = tuple(range(2 * PREFIX_TOKENS_MIN))
    first = add(scheduler, (*shared, 1))
    same, shorter, other = (
        add(scheduler, p) for p in ((*shared, 2), shared[: PREFIX_TOKENS_MIN - 1], (5, *shared))
    )
    elsewhere = add(scheduler, (*shared, 3), adapter="a")
    list(scheduler.admit())
    assert [s.slot is None for s in (first, same, shorter, other, elsewhere)] == [0, 1, 0, 0, 0]
    while not first.decoding:
        run(scheduler)
    list(scheduler.admit())
    assert first.stop_reason is None and same.slot == 4


def test_a_prompt_that_will_not_be_cached_is_not_waited_for():
    """Requests waited for prefixes of exactly 16 new tokens, which are not saved."""
    shared = tuple(range(PREFIX_TOKENS_MIN))
    for prompts, waits in (
        ((shared, (*shared, 2)), False),
        (((*shared, 1), shared), False),  # the last token of a prompt is always computed
        (((*shared, 1), (*shared, 2)), True),
    ):
        for cacheable in (PREFIX_TOKENS_MIN, 1000):
            scheduler = Scheduler(slots=2, budget=8, prefix_caching=True, cacheable=cacheable)
            _, second = (add(scheduler, prompt) for prompt in prompts)
            list(scheduler.admit())
            assert (second.slot is None) == (waits and cacheable == 1000)


@given(
    slots=st.integers(1, 4),
    spare=st.integers(0, 8),
    requests=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 6), st.sampled_from("ab")), max_size=12),
    aborts=st.sets(st.integers(0, 11)),
    sharing=st.booleans(),
)
def test_all_requests_end_within_slots_and_budget(slots, spare, requests, aborts, sharing):
    scheduler = Scheduler(slots, slots + spare, sharing)
    sequences = [add(scheduler, *sizes, adapter=adapter) for *sizes, adapter in requests]
    started = []
    for step in range(1_000):
        if scheduler.idle:
            break
        if step in aborts and step < len(sequences) and sequences[step].stop_reason is None:
            scheduler.finish(sequences[step], StopReason.ABORTED)
        chunks = plan(scheduler)
        used = [chunk.sequence.slot for chunk in chunks]
        assert len(set(used)) == len(used) <= slots
        assert sum(len(chunk.tokens) for chunk in chunks) <= scheduler.budget
        assert all(chunk.tokens for chunk in chunks)
        adapters = {chunk.sequence.adapter for chunk in chunks}
        assert len(adapters) <= 1
        answering = {s for s in scheduler.running if s.decoding and s.adapter in adapters}
        assert answering <= {chunk.sequence for chunk in chunks}
        started += [s for s in scheduler.running if s not in started]
        apply(scheduler, chunks)
    assert scheduler.idle
    assert all(sequence.stop_reason for sequence in sequences)
    if not sharing:
        assert started == [sequence for sequence in sequences if sequence in started]
