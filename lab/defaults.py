"""What the rows of runtime/defaults.py choose between, measured on this machine.

python lab/defaults.py MODEL.gguf... [--rounds 8] [--threads N] [--repack] [--lengths 200 500 1000 2000]

Prints a table in Markdown: for each file and each library, attention and KV type the tokens/s of a prompt of
200, of an answer after it, and of four answers at once, and their ratios to llama.cpp with flash attention
and f16. With --repack it compares mapped weights with repacked ones in llama.cpp, for prompts of several
lengths, with the size of the repacked copy. All ways of a file take turns in each round. Run it on a quiet
machine.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from thirteen.bench.environment import BenchReport, report_head
from thirteen.bench.rounds import ProgressCounter
from thirteen.bench.tune import (
    BATCH,
    PROMPT_TOKENS,
    SLOTS,
    STEPS,
    open_contexts,
    time_in_turns,
    time_question,
    way_name,
)
from thirteen.bench.workload import random_prompt
from thirteen.cli.console import progress_bar
from thirteen.files.gguf.header import Header, read_header
from thirteen.files.gguf.model_shape import read_decoder_shape
from thirteen.runtime.defaults import IK_STANDARD, Way, ik_equals, main_type
from thirteen.runtime.engine_options import EngineOptions
from thirteen.runtime.llama.ik_llama_library import installed
from thirteen.runtime.llama.settings import KV_TYPES, QUANTIZED_KV, Settings
from thirteen.runtime.machine import default_threads
from thirteen.runtime.memory import estimate_memory
from thirteen.runtime.plan import holds_heads
from thirteen.stats import Doubles
from thirteen.stats.intervals import RATIO_LEVEL, paired_ratio


def settings_of(way: Way, tokens: int, threads: int, slots: int = SLOTS) -> Settings:
    """Settings for prompts of so many tokens."""
    context = tokens + 2 * STEPS
    return EngineOptions(context=context, slots=slots, batch=BATCH, threads=threads).settings(way)


def ways_of(header: Header) -> Iterator[Way]:
    """The ways to compute a file, the one that others are compared with first."""
    for kv, flash in product(KV_TYPES, (True, False)):
        if holds_heads(header, kv) and (flash or kv not in QUANTIZED_KV):
            yield Way(flash_attention=flash, kv=kv)
    if installed() and ik_equals(header):
        yield IK_STANDARD


def measure(header: Header, settings: Sequence[Settings], tokens: int, rounds: int) -> Doubles:
    """Seconds of a prefill, a decode step and a step of all slots, (rounds, settings, 3)."""
    with ExitStack() as loaded, progress_bar(f"{header.path.name}, {tokens}") as progress:
        contexts = open_contexts(header, settings, loaded)
        prompts = [random_prompt(contexts[0].model, number, tokens) for number in range(rounds)]
        advance = ProgressCounter(progress, (rounds + 1) * len(contexts))
        return time_in_turns([partial(time_question, context) for context in contexts], prompts, advance)


def cells(tokens: int, first: Doubles, own: Doubles) -> tuple[str, str]:
    """Tokens/s, and the ratio to those of the first way, from the seconds of each round, (rounds,) each."""
    return f"{tokens / np.median(own):.1f}", paired_ratio(own, first).text(2)


def way_rows(header: Header, threads: int, rounds: int) -> Iterator[Sequence[str]]:
    """A row for each way to compute."""
    ways = [*ways_of(header)]
    settings = [settings_of(way, PROMPT_TOKENS, threads) for way in ways]
    seconds = measure(header, settings, PROMPT_TOKENS, rounds)
    for at, way in enumerate(ways):
        columns = zip((PROMPT_TOKENS, 1, SLOTS), seconds[:, 0].T, seconds[:, at].T, strict=True)
        yield way_name(way), *(cell for column in columns for cell in cells(*column))


def repack_rows(header: Header, threads: int, rounds: int, lengths: Sequence[int]) -> Iterator[Sequence[str]]:
    """A row for each length of a prompt: speeds of repacked weights, and ratios of mapped ones to them."""
    longest = read_decoder_shape(header).context - 2 * STEPS
    for tokens in (length for length in lengths if length <= longest):
        repacked = settings_of(Way(), tokens, threads, slots=1)
        seconds = measure(header, [repacked, replace(repacked, repack=False)], tokens, rounds)
        copied = estimate_memory(header, repacked).copied_bytes / 1e6
        speeds = (tokens / np.median(seconds[:, 0, 0]), 1 / np.median(seconds[:, 0, 1]))
        ratios = (paired_ratio(seconds[:, 1, part], seconds[:, 0, part]).text(2) for part in (0, 1))
        yield str(tokens), *(f"{speed:.1f}" for speed in speeds), *ratios, f"{copied:.0f}"


def main() -> None:
    """Print the rows of each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--repack", action="store_true")
    parser.add_argument("--lengths", type=int, nargs="+", default=[200, 500, 1000, 2000])
    given, head = parser.parse_args(), BenchReport(**report_head())
    titles: tuple[str, ...] = ("way", "prefill", "ratio", "decode", "ratio", f"{SLOTS} at once", "ratio")
    if given.repack:
        titles = ("prompt", "prefill", "decode", "mapped: prefill /", "decode /", "copy, MB")
    print(f"{head.environment(given.threads)}\n{given.rounds} rounds, tokens/s, {RATIO_LEVEL} intervals\n")
    print("| file, main type |", " | ".join(titles), "|\n|", " --- |" * (len(titles) + 1))
    for path in given.models:
        header = read_header(path)
        kind = main_type(header)
        rows = way_rows(header, given.threads, given.rounds)
        if given.repack:
            rows = repack_rows(header, given.threads, given.rounds, given.lengths)
        for row in rows:
            print(f"| {path.name}, {kind and kind.name} |", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
