"""Time to choose a token from its logits, beside the time to compute them.

python lab/sampler.py MODEL.gguf [--tokens 128] [--threads N]

Times are medians over the tokens. "Without digits" is where a number must not go on, as after the
calculator's results.
"""

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.sampler import Sampler
from thirteen.runtime.machine.threads import default_threads
from thirteen.runtime.native.settings import Settings
from thirteen.runtime.request import Sampling

_FIRST = 100  # the first token; the others are what greedy sampling chooses
_REPEATS = 5  # choices per token: one alone takes some microseconds


def choice_s(sampler: Sampler, context: Context, row: int, *, no_digit: bool = False) -> float:
    """Seconds of one choice."""
    start = perf_counter()
    for _ in range(_REPEATS):
        sampler.sample(context, row, no_digit=no_digit)
    return (perf_counter() - start) / _REPEATS


def main() -> None:
    """Print the time of each way to choose a token, by temperature 0 and 0.7 and the default cut-offs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=default_threads())
    given = parser.parse_args()
    params = Settings(given.tokens + 1, 1, 1, threads=given.threads, outputs=1)
    with (
        Model(given.model) as model,
        Context(model, params) as context,
        Sampler(model, Sampling()) as greedy,
        Sampler(model, Sampling(temperature=0.7)) as sampled,
    ):
        times, token = [], _FIRST % model.vocabulary_size
        for position in range(given.tokens):
            start = perf_counter()
            (row,) = context.decode([Span(0, position, (token,), 1)])
            decode_s = perf_counter() - start
            choices = [choice_s(one, context, row) for one in (greedy, sampled)]
            times.append([decode_s, *choices, choice_s(sampled, context, row, no_digit=True)])
            token = greedy.sample(context, row)
        decode_ms, *choices_ms = (1e3 * median(column) for column in zip(*times, strict=True))
        print(f"a decode step: {decode_ms:.1f} ms, then one of {model.vocabulary_size:,} tokens:")
    for name, choice_ms in zip(("greedy", "sampled", "without digits"), choices_ms, strict=True):
        print(f"{name}: {choice_ms:.3f} ms, {choice_ms / decode_ms:.1%} of a decode step")


if __name__ == "__main__":
    main()
