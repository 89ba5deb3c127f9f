"""Fifty threads that ask, listen, give up and close at random, over one engine after the other.

A script, not a test: where it hangs or crashes it shows every thread's stack, and ends. It prints what went
wrong, and nothing if all went well.
"""

import asyncio
import faulthandler
import sys
from collections.abc import Callable
from random import Random
from threading import Thread, active_count
from time import sleep

from thirteen.errors import BusyError, RequestError
from thirteen.runtime.engine.dispatcher import EngineLoad
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.request import Request, Sampling

THREADS, ENGINES, SECONDS = 50, 6, 0.5


def request(random: Random) -> Request:
    tokens = tuple(random.choices(range(256), k=random.randint(1, 40)))
    return Request(tokens, random.randint(1, 60), Sampling(random.random(), seed=random.randint(0, 9)))


def whole(handle: Handle, random: Random) -> None:
    *pieces, last = handle
    assert "".join(piece.text for piece in (*pieces, last)) == last.answer.text


def part(handle: Handle, random: Random) -> None:
    for _, _ in zip(handle, range(random.randint(1, 3)), strict=False):
        pass


def patience(handle: Handle, random: Random) -> None:
    try:
        handle.answer(random.random() / 100)
    except TimeoutError:
        handle.abort()
    handle.wait()


def loop(handle: Handle, random: Random) -> None:
    async def pieces() -> None:
        *some, last = [piece async for piece in handle]
        assert "".join(piece.text for piece in (*some, last)) == last.answer.text

    async def cancelled() -> None:
        try:
            await asyncio.wait_for(wait(), random.random() / 100)
        except TimeoutError:
            handle.wait()

    async def wait() -> None:
        await handle

    asyncio.run(random.choice((pieces, cancelled, wait))())


def ask(engine: Engine, random: Random) -> None:
    """One thing that a caller can do."""
    if (kind := random.random()) < 0.1:
        engine.poll("12 + 1", random.randint(1, 3), max_tokens=9).answer()
    elif kind < 0.15:
        assert engine.logits([1, 2, 3]).shape == (3, engine.model.vocabulary_size)
    elif kind < 0.25:
        engine.answers(["1", "2"], max_tokens=5)
    else:
        handle = engine.submit(request(random), wait=random.random() < 0.5)
        random.choice((whole, part, patience, loop))(handle, random)


def caller(engine: Engine, seed: int, wrong: list[str]) -> Callable[[], None]:
    def run() -> None:
        random = Random(seed)
        while True:
            try:
                ask(engine, random)
            except BusyError:
                continue
            except RequestError as error:
                if "engine: it is closed" not in str(error):
                    wrong.append(repr(error))
                return
            except BaseException as error:
                wrong.append(repr(error))
                return

    return run


def crowd(path: str, seed: int) -> list[str]:
    """What went wrong with one engine; two close it while it is in use."""
    wrong: list[str] = []
    engine = Engine(path, context=64, slots=3, threads=1, batch=64, queue=8, lookup=2, prefix_bytes=1 << 16)
    callers = [Thread(target=caller(engine, 100 * seed + at, wrong)) for at in range(THREADS)]
    for thread in callers:
        thread.start()
    sleep(SECONDS)
    closers = [Thread(target=engine.close) for _ in range(2)]
    for thread in (*closers, *callers):
        thread.start() if thread in closers else thread.join()
    for thread in closers:
        thread.join()
    if engine.load != EngineLoad(0, 0) or active_count() != 1:
        wrong.append(f"left behind: {engine.load}, {active_count()} threads")
    return wrong


if __name__ == "__main__":
    faulthandler.enable()
    faulthandler.dump_traceback_later(float(sys.argv[2]), exit=True)
    for number in range(ENGINES):
        for line in crowd(sys.argv[1], number):
            print(line)
