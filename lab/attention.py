"""Speed of each way to compute attention, and of ik_llama.cpp, by depth and by number of sequences.

python lab/attention.py MODEL.gguf [--depths 0 256 1024] [--sequences 1 4 8] [--rounds 8] [--threads N]

The depth is the number of tokens in the KV cache. Differences grow with it. `prefill` is of so many tokens
per sequence, `decode` of 16 tokens there; the rates are of all sequences. Ratios are to the first way.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np
from gguf import GGML_QUANT_SIZES
from thirteen.bench.harness.format import report_table
from thirteen.cli.console import out, progress_bar
from thirteen.files.gguf.model_shape import read_model_shape
from thirteen.quality.environment import BenchReport, report_head
from thirteen.quality.schedule import ProgressCounter, alternating_order
from thirteen.quality.workload import random_prompt
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.machine.threads import default_threads
from thirteen.runtime.native.ik_llama_library import installed
from thirteen.runtime.native.settings import KV_TYPES, LIBRARIES, Settings
from thirteen.stats.arrays import Doubles
from thirteen.stats.paired_ratio import RATIO_LEVEL, paired_ratio

DECODE_TOKENS = 16  # at each depth
# Flash attention, type of the cache, library.
WAYS = (
    *(
        (flash, kv, "llama.cpp")
        for flash, kv in ((True, "f16"), (False, "f16"), (True, "bf16"), (True, "q8_0"))
    ),
    (False, "f16", "ik"),
)
_BATCH = 512


def measure(
    models: Mapping[str, Model],
    params: Sequence[Settings],
    depths: Sequence[int],
    rounds: int,
    advance: ProgressCounter,
) -> Doubles:
    """Seconds of prefill up to each depth and of decode there, (rounds, ways, depths, 2)."""
    seconds = np.empty((rounds, len(params), len(depths), 2))
    with ExitStack() as loaded:
        contexts = [loaded.enter_context(Context(models[one.library], one)) for one in params]
        for context in contexts:
            run(context, depths, rounds)  # warm-up, with a prompt of no round
            advance()
        for number in range(rounds):
            for way in alternating_order(len(contexts), number):
                seconds[number, way] = run(contexts[way], depths, number)
                advance()
    return seconds


def run(context: Context, depths: Sequence[int], number: int) -> list[tuple[float, float]]:
    """Seconds of prefill up to each depth and of decode there, (depths, 2)."""
    slots = range(context.settings.slots)
    prompt = random_prompt(context.model, number, depths[-1] + DECODE_TOKENS)
    seconds, filled, prefill_s = [], 0, 0.0
    for depth in depths:
        start = perf_counter()
        for slot, begin in product(slots, range(filled, depth, _BATCH)):
            tokens = prompt[begin : min(begin + _BATCH, depth)]
            context.decode([Span(slot, begin, tokens, rows=1)])
        filled, prefill_s = depth, prefill_s + perf_counter() - start
        start = perf_counter()
        for place in range(depth, depth + DECODE_TOKENS):
            context.decode([Span(slot, place, prompt[place : place + 1], rows=1) for slot in slots])
        seconds.append((prefill_s, perf_counter() - start))
        for slot in slots:
            context.clear(slot, depth)
    for slot in slots:
        context.clear(slot)
    return seconds


def cells(tokens: int, own: Doubles, first: Doubles) -> tuple[str, str]:
    """The speed of a way from its seconds, and the ratio to the first way, (rounds,) each."""
    return (f"{tokens / np.median(own):.1f}", paired_ratio(own, first).text(3)) if tokens else ("", "")


def main() -> None:
    """Print the speed of each way to compute attention that the model's heads allow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 256, 1024])
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=default_threads())
    given = parser.parse_args()
    depths, head = sorted(set(given.depths)), BenchReport(*report_head())
    title = f"{given.model.name}: tokens/s, and ratio to the first way ({RATIO_LEVEL})"
    caption = f"medians of {given.rounds} rounds, {head.environment(given.threads)}"
    columns = ("attention", "sequences", "depth", "prefill", "ratio", "decode", "ratio")
    table = report_table(title, caption, *columns)
    with ExitStack() as loaded, progress_bar("attention") as progress:
        names = LIBRARIES if installed() else LIBRARIES[:1]
        models = {name: loaded.enter_context(Model(given.model, library=name)) for name in names}
        head_dim = read_model_shape(models[names[0]].header).head_dim
        ways = [
            way for way in WAYS if way[2] in names and head_dim % GGML_QUANT_SIZES[KV_TYPES[way[1]]][0] == 0
        ]
        advance = ProgressCounter(progress, len(given.sequences) * (given.rounds + 1) * len(ways))
        for count in given.sequences:
            sizes = (depths[-1] + DECODE_TOKENS, count, max(_BATCH, count))
            params = [
                Settings(
                    *(*sizes, count), threads=given.threads, kv=kv, flash_attention=flash, library=library
                )
                for flash, kv, library in ways
            ]
            seconds = np.moveaxis(measure(models, params, depths, given.rounds, advance), 0, 3)
            for (place, depth), (way, (flash, kv, library)) in product(enumerate(depths), enumerate(ways)):
                (prefill, decode), (prefill_0, decode_0) = seconds[way, place], seconds[0, place]
                table.add_row(
                    f"{library} {'flash' if flash else 'standard'} {kv}",
                    *(str(count), str(depth)),
                    *cells(count * depth, prefill, prefill_0),
                    *cells(count * DECODE_TOKENS, decode, decode_0),
                )
    out.print(table)


if __name__ == "__main__":
    main()
