"""Fuzzes a target with atheris until libFuzzer ends the process; campaign.py starts it.

`python tests/fuzz/fuzz_target.py NAME FILE` reads one input again.
"""

import importlib.metadata
import logging
import os
import resource
import sys
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from random import Random

import atheris

importlib.metadata.version = cache(importlib.metadata.version)  # half of the time of an answer file
with atheris.instrument_imports(include=["thirteen", "jinja2"]):
    from thirteen.tests.fuzz.target import ADDRESS_SPACE_BYTES, Mutate, Target, load_target, run, run_traced

    TARGET = load_target(sys.argv[1])

_TRACED_EVERY = 32  # inputs, beginning with the first
_STRUCTURED = 0.7  # of all mutations, where a target has its own


def checker(target: Target) -> Callable[[bytes], None]:
    """Check each input, and the memory that some take."""
    numbers = count()

    def check(data: bytes) -> None:
        run(target, data)
        if next(numbers) % _TRACED_EVERY == 0:
            run_traced(target, data)

    return check


def mutator(mutate: Mutate) -> Callable[[bytes, int, int], bytes]:
    """Mix the mutations of a target with libFuzzer's own."""

    def mutated(data: bytes, max_bytes: int, seed: int) -> bytes:
        random = Random(seed)
        found = mutate(data, random) if random.random() < _STRUCTURED else b""
        return found if 0 < len(found) <= max_bytes else bytes(atheris.Mutate(data, max_bytes))

    return mutated


def limit_address_space() -> None:
    """Turn an allocation of gigabytes into an error of the input that asks for it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + ADDRESS_SPACE_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main() -> None:
    """Fuzz the target that the first argument names; the others are libFuzzer's."""
    logging.disable()  # the targets warn of almost every input
    limit_address_space()
    own = {"custom_mutator": mutator(TARGET.mutate)} if TARGET.mutate else {}
    atheris.Setup([sys.argv[0], *sys.argv[2:]], checker(TARGET), **own)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
