"""Fair turns: clients take turns, smaller requests go first, and a cancelled wait loses no turn."""

import asyncio

from thirteen.server.access.fair_turns import FairTurns


async def order_of(turns, requests, cancelled=()):
    """Order in which requests, given as client and size, get their turns while one is held."""
    order = []

    async def ask(client, size):
        async with turns.turn(client, size):
            order.append((client, size))
            await asyncio.sleep(0)

    async with turns.turn("first", 0):
        tasks = [asyncio.create_task(ask(*request)) for request in requests]
        await asyncio.sleep(0)
        for number in cancelled:
            tasks[number].cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    return order


def test_clients_take_turns_and_the_smallest_request_is_first():
    requests = [("a", 9), ("a", 9), ("a", 3), ("b", 5), ("c", 7), ("b", 1)]
    order = asyncio.run(order_of(FairTurns(), requests))
    assert order == [("a", 3), ("b", 1), ("c", 7), ("a", 9), ("b", 5), ("a", 9)]


def test_a_cancelled_wait_loses_no_turn():
    async def run():
        turns = FairTurns()
        requests = [("a", 1), ("a", 2), ("b", 1)]
        return [await order_of(turns, requests, cancelled) for cancelled in ((0,), (0, 1, 2), (2,), ())]

    first, none, third, whole = asyncio.run(run())
    assert (first, none, third) == ([("a", 2), ("b", 1)], [], [("a", 1), ("a", 2)])
    assert whole == [("a", 1), ("b", 1), ("a", 2)]


def test_a_wait_that_is_cancelled_as_its_turn_comes_passes_it_on():
    async def run():
        turns, got = FairTurns(), []

        async def ask(name):
            async with turns.turn(name, 1):
                got.append(name)

        async with turns.turn("first", 0):
            tasks = [asyncio.create_task(ask(name)) for name in "ab"]
            await asyncio.sleep(0)
        tasks[0].cancel()  # its turn has come, but it has not run yet
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(1), turns.turn("last", 1):
            return got

    assert asyncio.run(run()) == ["b"]
