"""The scheduler's rules, without weights."""

from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.request import Request, Sequence, StopReason
from thirteen.runtime.scheduler import READING, Scheduler


def add(scheduler: Scheduler, id: int, prompt: int, max_tokens: int = 3) -> Sequence:
    sequence = Sequence(id, Request((7,) * prompt, max_tokens), context=10_000)
    scheduler.add(sequence)
    return sequence


def run(scheduler: Scheduler) -> list[int]:
    """One step as the engine takes it, with the token 1 for every choice; gives the ids in the batch."""
    chunks = scheduler.plan()
    for chunk in chunks:
        chunk.sequence.computed += len(chunk.tokens)
        if chunk.samples:
            chunk.sequence.output.append(1)
            if chunk.sequence.full:
                scheduler.retire(chunk.sequence, StopReason.LENGTH)
    return [chunk.sequence.id for chunk in chunks]


def test_an_idle_scheduler_plans_nothing():
    assert Scheduler(slots=2, budget=8).plan() == []


def test_slots_go_out_in_the_order_of_asking():
    scheduler = Scheduler(slots=2, budget=8)
    waiting = [add(scheduler, id, prompt=1) for id in range(3)]
    scheduler.plan()
    assert [sequence.slot for sequence in waiting] == [0, 1, None]


def test_a_long_prompt_is_read_in_pieces_while_answers_flow():
    scheduler = Scheduler(slots=2, budget=8)
    add(scheduler, 1, prompt=2, max_tokens=100)
    run(scheduler)
    add(scheduler, 2, prompt=20)
    sizes = []
    for _ in range(3):
        chunks = {chunk.sequence.id: chunk for chunk in scheduler.plan()}
        assert len(chunks[1].tokens) == 1
        sizes.append((len(chunks[2].tokens), chunks[2].samples))
        run(scheduler)
    assert sizes == [(7, False), (7, False), (6, True)]


def test_beside_answers_prompts_are_read_in_small_pieces():
    """An answer waits for the whole batch that its next token is in."""
    scheduler = Scheduler(slots=3, budget=10 * READING)
    add(scheduler, 1, prompt=2 * READING, max_tokens=100)
    assert [len(chunk.tokens) for chunk in scheduler.plan()] == [2 * READING], "nobody waits"
    run(scheduler)
    add(scheduler, 2, prompt=READING - 1)
    add(scheduler, 3, prompt=READING)
    assert [len(chunk.tokens) for chunk in scheduler.plan()] == [1, READING - 1, 1]


def test_neighbouring_slots_stand_together_in_a_batch():
    """llama.cpp takes only ascending neighbours through the weights at once."""
    scheduler = Scheduler(slots=3, budget=8)
    for id in range(3):
        add(scheduler, id, prompt=1, max_tokens=1 if id == 0 else 9)
    run(scheduler)
    add(scheduler, 3, prompt=1)
    assert [chunk.sequence.slot for chunk in scheduler.plan()] == [0, 1, 2]


def test_a_waiting_request_can_be_retired():
    scheduler = Scheduler(slots=1, budget=8)
    add(scheduler, 1, prompt=1)
    second = add(scheduler, 2, prompt=1)
    scheduler.plan()
    assert scheduler.retire(second, StopReason.ABORTED) is None
    assert scheduler.find(2) is None


@given(
    slots=st.integers(1, 4),
    spare=st.integers(0, 8),
    requests=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 6)), max_size=12),
    aborts=st.sets(st.integers(0, 11)),
)
def test_all_requests_end_within_slots_and_budget_and_start_in_order(slots, spare, requests, aborts):
    scheduler = Scheduler(slots, slots + spare)
    sequences = [add(scheduler, id, *sizes) for id, sizes in enumerate(requests)]
    started = []
    for step in range(1_000):
        if scheduler.idle:
            break
        if step in aborts and (sequence := scheduler.find(step)):
            scheduler.retire(sequence, StopReason.ABORTED)
        chunks = scheduler.plan()
        used = [chunk.sequence.slot for chunk in chunks]
        assert len(set(used)) == len(used) <= slots
        assert sum(len(chunk.tokens) for chunk in chunks) <= scheduler.budget
        assert all(chunk.tokens for chunk in chunks)
        answering = {s.id for s in scheduler.running if s.decoding}
        assert answering <= {chunk.sequence.id for chunk in chunks}
        started += [s.id for s in scheduler.running if s.id not in started]
        run(scheduler)
    assert scheduler.idle
    assert all(sequence.stop_reason for sequence in sequences)
    assert started == sorted(started)
