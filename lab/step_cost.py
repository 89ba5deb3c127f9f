"""Measures the time of a decode step by the number of sequences that it computes at once.

python lab/step_cost.py MODEL [--sequences 1 2 4 8 16 24] [--threads 2]
"""

import argparse
from dataclasses import replace
from pathlib import Path

from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import Sampling

_TOKENS = 64


def main() -> None:
    """Print a line for each number of sequences, in two rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 2, 4, 8, 16, 24])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    slots = max(given.sequences)
    with Engine(given.model, slots=slots, context=512, threads=given.threads, queue=slots) as engine:
        for sequences in given.sequences * 2:
            requests = [
                replace(
                    engine.request(f"Ann has {n} pens and buys {n + 3} more. How many?", max_tokens=_TOKENS),
                    sampling=Sampling(1.0, seed=n),
                    calculator=False,
                    ignore_end=True,
                )
                for n in range(sequences)
            ]
            answers = [handle.answer() for handle in engine.submit_all(requests, wait=True)]
            decode_s = max(answer.timings.decode_s for answer in answers)
            print(f"{sequences} sequences: {1000 * decode_s / _TOKENS:.1f} ms a step", flush=True)


if __name__ == "__main__":
    main()
