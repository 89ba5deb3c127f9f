"""Measures the time of a decode step by the number of sequences that it computes at once.

python lab/step_cost.py MODEL [--sequences 1 2 4 8 16 24] [--threads 2] [--rounds 2]

Then 16 answers of 20 to 200 tokens over 8 slots, with sequences that move next to each other and without.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from time import perf_counter
from unittest.mock import patch

from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.context import Context
from thirteen.runtime.request import Sampling

_TOKENS = 64
_STAYS: Callable[..., bool] = lambda *_: False  # noqa: E731


def answer(engine: Engine, lengths: Sequence[int]) -> float:
    """Seconds that answers of these lengths take together."""
    requests = [
        replace(
            engine.request(f"Ann has {n} pens and buys {n + 3} more. How many?", max_tokens=tokens),
            sampling=Sampling(1.0, seed=n),
            calculator=False,
            ignore_end=True,
        )
        for n, tokens in enumerate(lengths)
    ]
    began = perf_counter()
    answers = [handle.answer() for handle in engine.submit_all(requests, wait=True)]
    total_s = perf_counter() - began
    return max(answer.timings.decode_s for answer in answers) if len(set(lengths)) == 1 else total_s


def main() -> None:
    """Print a line for each number of sequences and each way, in rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 2, 4, 8, 16, 24])
    for name in ("--threads", "--rounds"):
        parser.add_argument(name, type=int, default=2)
    given = parser.parse_args()
    slots = max(given.sequences)
    with Engine(given.model, slots=slots, context=512, threads=given.threads, queue=slots) as engine:
        for sequences in given.sequences * given.rounds:
            decode_s = answer(engine, [_TOKENS] * sequences)
            print(f"{sequences} sequences: {1000 * decode_s / _TOKENS:.1f} ms a step", flush=True)
    with Engine(given.model, slots=8, context=512, threads=given.threads, queue=16) as engine:
        answer(engine, [8, 9])
        for number in range(given.rounds):
            lengths = [Random(number * 16 + n).randint(20, 200) for n in range(16)]
            moving_s = answer(engine, lengths)
            with patch.object(Context, "move", _STAYS):
                staying_s = answer(engine, lengths)
            print(f"{sum(lengths)} tokens: {moving_s:.2f} s, {staying_s:.2f} s without moves", flush=True)


if __name__ == "__main__":
    main()
