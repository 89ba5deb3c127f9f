"""Fifty client threads that submit, iterate, abort and close at random, on one engine after the other.

A script, not a test: if it hangs or crashes, it dumps the stack of every thread and exits. It prints errors,
and nothing if there are none.
"""

import asyncio
import faulthandler
import sys
from contextlib import suppress
from random import Random
from threading import Thread
from threading import enumerate as enumerate_threads
from time import sleep

from thirteen.errors import BusyError, ClosedError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.options import Effort, Options

THREADS, SECONDS, TIMEOUT_S = 50, 0.5, 20


def read_all(handle: Handle, random: Random) -> None:
    *pieces, last = handle
    assert last.answer and "".join(piece.text for piece in (*pieces, last)) == last.answer.text


def read_some(handle: Handle, random: Random) -> None:
    for _, _ in zip(handle, range(random.randint(1, 3)), strict=False):
        pass


def wait_briefly(handle: Handle, random: Random) -> None:
    with suppress(TimeoutError):
        handle.answer(random.random() / 100)
    handle.abort()
    handle.wait()


def cancel(handle: Handle, random: Random) -> None:
    async def iterate() -> None:
        async for _ in handle:
            pass

    with suppress(TimeoutError):
        asyncio.run(asyncio.wait_for(iterate(), random.random() / 10))
    handle.wait()


USES = (read_all, read_some, wait_briefly, cancel)


def act(engine: Engine, random: Random) -> None:
    """One random action of a client."""
    if (kind := random.random()) < 0.1:
        engine.answer("12 + 1", effort=random.choice([*Effort]), max_tokens=9)
    elif kind < 0.15:
        assert engine.logits([1, 2, 3]).shape == (3, engine.model.vocabulary_size)
    else:
        options = Options(temperature=random.uniform(0.01, 1), max_tokens=random.randint(1, 30))
        request = engine.request("a" * random.randint(1, 9), options, seed=random.randint(0, 9))
        random.choice(USES)(engine.submit(request, wait=random.random() < 0.5), random)


def run_client(engine: Engine, seed: int, errors: list[str]) -> None:
    random = Random(seed)
    while True:
        try:
            with suppress(BusyError):
                act(engine, random)
        except ClosedError:
            return
        except BaseException as error:
            errors.append(repr(error))
            return


def stress(path: str, seed: int) -> list[str]:
    """Return the errors of one engine, which two threads close while it is in use."""
    errors: list[str] = []
    engine = Engine(path, context=96, slots=3, threads=1, batch=64, queue=8, prefix_bytes=1 << 16)
    clients = [Thread(target=run_client, args=(engine, 100 * seed + n, errors)) for n in range(THREADS)]
    closers = [Thread(target=engine.close) for _ in range(2)]
    for thread in clients:
        thread.start()
    sleep(SECONDS)
    for thread in closers:
        thread.start()
    for thread in clients + closers:
        thread.join()
    # Python keeps an object, "Dummy-1", of a thread that it did not start, also after its end.
    names = [thread.name for thread in enumerate_threads() if not thread.name.startswith("Dummy-")]
    if engine.load != (0, 0) or names != ["MainThread"]:
        errors.append(f"leaked: {engine.load}, {names}")
    return errors


if __name__ == "__main__":
    faulthandler.enable()
    engines = int(sys.argv[2])
    faulthandler.dump_traceback_later(TIMEOUT_S * engines, exit=True)
    for number in range(engines):
        for error in stress(sys.argv[1], number):
            print(error)
