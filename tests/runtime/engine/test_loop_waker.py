"""The bell of an event loop: all that was rung for is set, in one turn of the loop."""

import asyncio
import gc
from threading import Thread
from weakref import ref

from thirteen.runtime.engine.loop_waker import waker_of


def ringing(bell, events):
    """Ring for each event, from a thread of its own."""
    thread = Thread(target=lambda: [bell.ring(event) for event in events])
    thread.start()
    thread.join()


def test_every_event_is_set_and_the_loop_wakes_once():
    async def wait_for_all():
        loop, events = asyncio.get_running_loop(), [asyncio.Event() for _ in range(5)]
        bell, woken = waker_of(loop), 0
        call = loop.call_soon_threadsafe

        def counted(*args):
            nonlocal woken
            woken += 1
            return call(*args)

        loop.call_soon_threadsafe = counted
        ringing(bell, events)  # the loop does not turn meanwhile
        async with asyncio.timeout(5):
            await asyncio.gather(*(event.wait() for event in events))
        ringing(bell, events[:1])
        await asyncio.sleep(0)
        return woken

    assert asyncio.run(wait_for_all()) == 2


def test_a_loop_has_one_bell_and_is_not_kept_by_it():
    loop, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    assert waker_of(loop) is waker_of(loop) is not waker_of(other)
    loop.close()
    other.close()
    bell, gone = waker_of(loop), ref(loop)
    bell.ring(asyncio.Event())  # nobody hears it
    del loop
    gc.collect()
    assert gone() is None
    bell.ring(asyncio.Event())
