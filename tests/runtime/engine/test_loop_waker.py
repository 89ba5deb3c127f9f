"""The waker of an event loop: all events are set in one iteration of the loop."""

import asyncio
import gc
from threading import Thread
from weakref import ref

from thirteen.runtime.engine.loop_waker import waker_of


def set_from_thread(waker, events):
    """Call set_soon() for each event, from another thread."""
    thread = Thread(target=lambda: [waker.set_soon(event) for event in events])
    thread.start()
    thread.join()


def test_every_event_is_set_and_the_loop_wakes_once():
    async def wait_for_all():
        loop, events = asyncio.get_running_loop(), [asyncio.Event() for _ in range(5)]
        waker, wakes = waker_of(loop), 0
        call = loop.call_soon_threadsafe

        def counted(*args):
            nonlocal wakes
            wakes += 1
            return call(*args)

        loop.call_soon_threadsafe = counted
        set_from_thread(waker, events)  # the loop does not run meanwhile
        async with asyncio.timeout(5):
            await asyncio.gather(*(event.wait() for event in events))
        set_from_thread(waker, events[:1])
        await asyncio.sleep(0)
        return wakes

    assert asyncio.run(wait_for_all()) == 2


def test_a_loop_has_one_waker_which_does_not_keep_it_alive():
    loop, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    assert waker_of(loop) is waker_of(loop) is not waker_of(other)
    loop.close()
    other.close()
    waker, gone = waker_of(loop), ref(loop)
    waker.set_soon(asyncio.Event())  # the loop is closed
    del loop
    gc.collect()
    assert gone() is None
    waker.set_soon(asyncio.Event())
