"""Decode beside busy programs: fixed numbers of threads, and threads that adapt.

python lab/busy_decode.py MODEL.gguf [SECONDS]
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.settings import Settings
from thirteen.runtime.machine import default_threads

PROMPT = tuple(range(1, 17))
ANSWER_TOKENS = 96
BUSY = (0, 1, 2, 0)  # busy processes, in this order: the last shows the recovery


def main(model: Path, seconds: Annotated[float, typer.Argument()] = 5.0) -> None:
    """Print a line for each number of busy processes and each way."""
    threads = default_threads()
    params = Settings(256, 1, 64, threads=threads, outputs=1)
    ways = {
        f"{threads} threads": params,
        "1 thread": replace(params, threads=1),
        "adaptive": replace(params, adaptive_threads=True),
    }
    with Model(model) as loaded, ExitStack() as open_contexts:
        contexts = {name: open_contexts.enter_context(Context(loaded, way)) for name, way in ways.items()}
        for context in contexts.values():
            context.decode([Span(0, 0, PROMPT, 1)])
        for busy in BUSY:
            with ExitStack() as others:
                for _ in range(busy):
                    others.enter_context(busy_process())
                for name, context in contexts.items():
                    times = list(step_times(context, seconds))
                    print(
                        f"{busy} busy, {name}: {len(times) / sum(times):.1f} tokens/s, "
                        f"longest step {1e3 * max(times):.0f} ms",
                        flush=True,
                    )


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep a processor busy meanwhile, by a process of its own."""
    command = [sys.executable, "-S", "-E", "-c", "print(flush=True)\nwhile True: pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout, "it is a pipe"
            process.stdout.readline()  # now it is busy
            yield
        finally:
            process.kill()


def step_times(context: Context, seconds: float) -> Iterator[float]:
    """Seconds of each decode step, for so many seconds; answers begin anew after ANSWER_TOKENS."""
    end, number = perf_counter() + seconds, 0
    while perf_counter() < end:
        start = len(PROMPT) + number % ANSWER_TOKENS
        if start == len(PROMPT):
            context.clear(0, start)
        began = perf_counter()
        context.decode([Span(0, start, PROMPT[:1], 1)])
        yield perf_counter() - began
        number += 1


if __name__ == "__main__":
    typer.run(main)
