"""Measures the time between two native steps, and where it goes.

python lab/step_gap.py MODEL [--sequences 1 4] [--rounds 4]

Each round answers with the engine, and decodes as many tokens by the native calls and an argmax alone.
Then the parts of the engine's gaps, in microseconds between two events; timing them makes them longer.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

from thirteen import Engine
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.engine.output_stream import OutputStream
from thirteen.runtime.engine.runner import Runner
from thirteen.runtime.engine.scheduler import Scheduler
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.sampler import Sampler
from thirteen.runtime.native.compute_thread import COMPUTE_THREAD

_TOKENS = 96
_COUNTED = 80  # the last steps of an answer, without prefill
_PARTS = (
    *((Runner, name) for name in ("step", "_append", "_report")),
    *((Context, name) for name in ("decode", "logprob")),
    *((Sampler, "sample"), (OutputStream, "inserted_tokens"), (Handle, "put"), (Scheduler, "plan")),
)
_Events = list[tuple[float, str]]


def timed(function: Callable[..., Any], name: str, events: _Events) -> Callable[..., Any]:
    """The function, whose begin and end become events."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        events.append((perf_counter(), f"{name}("))
        result = function(*arguments, **keywords)
        events.append((perf_counter(), f"{name})"))
        return result

    return call


def answer(engine: Engine, sequences: int) -> None:
    """Answer so many questions at once."""
    questions = [f"Ann has {n} pens and buys {n + 3} more. How many?" for n in range(sequences)]
    requests = [replace(engine.request(one, max_tokens=_TOKENS), ignore_end=True) for one in questions]
    for handle in engine.submit_all(requests, wait=True):
        handle.wait()


def plain(context: Context, sequences: int) -> None:
    """Decode with the native calls and an argmax alone."""
    tokens = [100 + n for n in range(sequences)]
    for position in range(_TOKENS):
        spans = [Span(slot, position, (token,), 1) for slot, token in enumerate(tokens)]
        rows = context._batch.fill(spans)
        context._library.decode(context.handle, context._batch.native)
        tokens = [int(context.logits_row(row).argmax()) for row in rows]
    for slot in range(sequences):
        context.clear(slot)


def gaps(events: _Events) -> list[list[tuple[float, str]]]:
    """The events of each gap, from the end of a native step to the begin of the next."""
    ends = [at for at, (_, name) in enumerate(events) if name == "native)"]
    begins = [at for at, (_, name) in enumerate(events) if name == "native("]
    found = [events[end : begin + 1] for end, begin in zip(ends, begins[1:], strict=False)]
    return found[-_COUNTED:]


def main() -> None:
    """Print the gaps of each number of sequences, and their parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    events: _Events = []
    with Engine(given.model, slots=max(given.sequences), context=512) as engine:
        context = engine._runner._context
        native = timed(context._library.decode, "native", events)
        with patch.object(context._library, "decode", native):
            for sequences in given.sequences:
                milliseconds: dict[str, list[float]] = {"engine": [], "plain loop": []}
                for _ in range(given.rounds):
                    for name, found in milliseconds.items():
                        events.clear()
                        if name == "engine":
                            answer(engine, sequences)
                        else:
                            COMPUTE_THREAD.call(lambda: plain(context, sequences))  # noqa: B023
                        found.append(median(1000 * (gap[-1][0] - gap[0][0]) for gap in gaps(events)))
                print(sequences, {name: f"{median(found):.3f} ms" for name, found in milliseconds.items()})
            for part, name in _PARTS:
                patch.object(part, name, timed(getattr(part, name), name, events)).start()
            events.clear()
            answer(engine, 1)
    parts = gaps(events)
    names = [name for _, name in parts[-1]]
    alike = [gap for gap in parts if [name for _, name in gap] == names]
    for at in range(1, len(names)):
        part_us = median(1e6 * (gap[at][0] - gap[at - 1][0]) for gap in alike)
        print(f"{part_us:6.1f}  {names[at - 1]} to {names[at]}")


if __name__ == "__main__":
    main()
