"""Fuzzes a target with atheris: `make fuzz`, or `python tests/fuzz/fuzz.py NAME [OPTION OF libFuzzer…]`.

Inputs that reach new lines are kept in the cache folder for the next time. An input that fails is written to
build/fuzz/. `python tests/fuzz/fuzz.py NAME FILE` reads one input again.
"""

import logging
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random

import atheris

if Path("/dev/shm").is_dir():  # inputs are files for some targets; no disk needs to see them
    tempfile.tempdir = "/dev/shm"
with atheris.instrument_imports(include=["thirteen", "jinja2"]):
    from thirteen.files.cache_folder import cache_dir
    from thirteen.tests.fuzz import target as targets

    NAME, *ARGUMENTS = sys.argv[1:]
    TARGET = targets.load_target(NAME)
FINDINGS = targets.HERE.parents[1] / "build/fuzz"

_TRACED_EVERY = 32  # inputs, beginning with the first
_STRUCTURED = 0.7  # of all mutations, where a target has its own


def checker() -> Callable[[bytes], None]:
    """Check each input, and the memory that some take."""
    numbers = count()

    def check(data: bytes) -> None:
        targets.run(TARGET, data)
        if next(numbers) % _TRACED_EVERY == 0:
            targets.run_traced(TARGET, data)

    return check


def mutator(mutate: targets.Mutate) -> Callable[[bytes, int, int], bytes]:
    """Mix the mutations of a target with libFuzzer's own."""

    def mutated(data: bytes, max_bytes: int, seed: int) -> bytes:
        random = Random(seed)
        found = mutate(data, random, TARGET.words) if random.random() < _STRUCTURED else b""
        return found if 0 < len(found) <= max_bytes else bytes(atheris.Mutate(data, max_bytes))

    return mutated


def options() -> list[str]:
    """The options of libFuzzer, and the folders of inputs: it adds to the first one."""
    grown = cache_dir() / "fuzz" / NAME
    for folder in (grown, FINDINGS):
        folder.mkdir(parents=True, exist_ok=True)
    return [
        f"-max_len={TARGET.max_bytes}",
        "-timeout=20",
        "-rss_limit_mb=4096",
        f"-artifact_prefix={FINDINGS / NAME}-",
        str(grown),
        str(targets.HERE / "corpus" / NAME),
    ]


def limit_address_space() -> None:
    """Turn an allocation of gigabytes into an error of the input that asks for it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + targets.ADDRESS_SPACE_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main() -> None:
    """Fuzz the target until libFuzzer ends the process."""
    logging.disable()  # the targets warn of almost every input
    limit_address_space()
    is_one_input = any(not argument.startswith("-") for argument in ARGUMENTS)
    own = {"custom_mutator": mutator(TARGET.mutate)} if TARGET.mutate else {}
    atheris.Setup([sys.argv[0], *([] if is_one_input else options()), *ARGUMENTS], checker(), **own)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
