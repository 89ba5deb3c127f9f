"""Speed of each way to compute attention, by depth and by number of concurrent sequences.

python lab/attention.py MODEL.gguf [--depths 0 256 1024] [--sequences 1 4 8] [--rounds 8] [--threads N]
    [--json]

The depth is the number of tokens in the KV cache. Differences grow with it.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np
from gguf import GGML_QUANT_SIZES
from rich.table import Table
from thirteen.bench.harness.environment import BenchReport, report_head
from thirteen.bench.harness.format import report_table
from thirteen.bench.harness.iteration import random_prompt
from thirteen.bench.harness.schedule import ProgressCounter, alternating_order
from thirteen.cli.console import progress_bar, show_report
from thirteen.errors import ModelFileError
from thirteen.files.gguf.model_shape import read_model_shape
from thirteen.files.progress import Progress, no_progress
from thirteen.runtime.llama.context import Context, ContextParams, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.profile import KV_TYPES
from thirteen.runtime.threads import default_threads
from thirteen.runtime.validation import check_integer
from thirteen.stats.interval import FloatArray, Interval
from thirteen.stats.paired_ratio import RATIO_LEVEL, ROUNDS_MIN, paired_ratio

DEPTHS = (0, 256, 1024)
SEQUENCES = (1, 4, 8)
ROUNDS = 8
DECODE_TOKENS = 16  # at each depth
_BATCH = 512
_DEPTHS_MAX = 16
_PREFILL, _DECODE = range(2)  # indices of the last axis of the times


@dataclass(frozen=True, slots=True)
class AttentionWay:
    """A way to compute attention: with flash attention or without, and the type of the KV cache."""

    flash_attention: bool
    kv: str

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{'flash' if self.flash_attention else 'standard'} {self.kv}"


WAYS = (
    AttentionWay(flash_attention=True, kv="f16"),
    AttentionWay(flash_attention=False, kv="f16"),
    AttentionWay(flash_attention=True, kv="bf16"),
    AttentionWay(flash_attention=True, kv="q8_0"),
)


@dataclass(frozen=True, slots=True)
class AttentionSpeed:
    """Speed of one way.

    Attributes:
        way: how attention is computed.
        sequences: number of concurrent sequences.
        depth: tokens of each sequence in the KV cache.
        prefill: median tokens per second of a prefill of `depth` tokens per sequence; None at depth 0.
        decode: median tokens per second of all sequences.
        prefill_ratio: prefill speed over that of the first way, paired by round; None at depth 0.
        decode_ratio: decode speed over that of the first way, paired by round.
    """

    way: AttentionWay
    sequences: int
    depth: int
    prefill: float | None
    decode: float
    prefill_ratio: Interval | None
    decode_ratio: Interval


@dataclass(frozen=True, slots=True)
class AttentionReport(BenchReport):
    """Result of an attention sweep.

    Attributes:
        model: the model file.
        threads: threads that compute.
        rounds: number of rounds; each measures every way once.
        speeds: speed of each way, by sequences and depth.
    """

    model: str
    threads: int
    rounds: int
    speeds: tuple[AttentionSpeed, ...]


def run_attention_sweep(  # noqa: PLR0913 - options of a measurement, each with its default
    model: Path,
    *,
    depths: Sequence[int] = DEPTHS,
    sequences: Sequence[int] = SEQUENCES,
    threads: int | None = None,
    rounds: int = ROUNDS,
    progress: Progress = no_progress,
) -> AttentionReport:
    """Measure a model with each of WAYS that its heads allow.

    Args:
        model: a GGUF file.
        depths: depths at which tokens are decoded.
        sequences: numbers of concurrent sequences.
        threads: threads that compute; by default one per physical core.
        rounds: number of rounds, at least 8; every other one has the reverse order.
        progress: called with measurements done and in all.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: a number is out of range, or the KV caches do not fit in memory.
    """
    check_integer("bench: rounds", rounds, ROUNDS_MIN)
    check_integer("bench: number of depths", len(depths), 1, _DEPTHS_MAX)
    for depth in depths:
        check_integer("bench: depths", depth, 0)
    check_integer("bench: number of sequence counts", len(sequences), 1)
    for count in sequences:
        check_integer("bench: sequences", count, 1)
    depths, threads = sorted(set(depths)), threads or default_threads()
    head = report_head()
    speeds: list[AttentionSpeed] = []
    with Model(model) as loaded:
        ways = _supported_ways(loaded)
        advance = ProgressCounter(progress, len(sequences) * (rounds + 1) * len(ways))
        for count in sequences:
            params = [_context_params(way, count, depths[-1], threads) for way in ways]
            times = _measure(loaded, params, depths, rounds, advance)
            speeds.extend(_speeds(ways, count, depths, times))
    return AttentionReport(*head, str(model), threads, rounds, tuple(speeds))


def _supported_ways(model: Model) -> list[AttentionWay]:
    """Those of WAYS whose KV cache can hold the model's heads in whole blocks."""
    head_dim = read_model_shape(model.header, ModelFileError).head_dim
    return [way for way in WAYS if head_dim % GGML_QUANT_SIZES[KV_TYPES[way.kv]][0] == 0]


def _context_params(way: AttentionWay, sequences: int, depth: int, threads: int) -> ContextParams:
    return ContextParams(
        depth + DECODE_TOKENS,
        sequences,
        max(_BATCH, sequences),
        threads=threads,
        outputs=sequences,
        kv=way.kv,
        flash_attention=way.flash_attention,
    )


def _measure(
    model: Model,
    params: Sequence[ContextParams],
    depths: Sequence[int],
    rounds: int,
    advance: Callable[[], None],
) -> FloatArray:
    """Seconds of prefill up to each depth and of decode there, (rounds, ways, depths, 2)."""
    seconds = np.empty((rounds, len(params), len(depths), 2))
    with ExitStack() as loaded:
        contexts = [loaded.enter_context(Context(model, one)) for one in params]
        for context in contexts:
            _time(context, depths, rounds)  # warm-up, with a prompt of no round
            advance()
        for number in range(rounds):
            for way in alternating_order(len(contexts), number):
                seconds[number, way] = _time(contexts[way], depths, number)
                advance()
    return seconds


def _time(context: Context, depths: Sequence[int], number: int) -> FloatArray:
    """Seconds of prefill up to each depth and of decode there, (depths, 2)."""
    slots = range(context.params.slots)
    prompt = random_prompt(context.model, number, depths[-1] + DECODE_TOKENS)
    seconds = np.zeros((len(depths), 2))
    filled, prefill_s = 0, 0.0
    for index, depth in enumerate(depths):
        start = perf_counter()
        for slot, begin in product(slots, range(filled, depth, _BATCH)):
            tokens = prompt[begin : min(begin + _BATCH, depth)]
            context.decode([Span(slot, begin, tokens, rows=1)])
        filled, prefill_s = depth, prefill_s + perf_counter() - start
        seconds[index, _PREFILL] = prefill_s
        start = perf_counter()
        for place in range(depth, depth + DECODE_TOKENS):
            context.decode([Span(slot, place, prompt[place : place + 1], rows=1) for slot in slots])
        seconds[index, _DECODE] = perf_counter() - start
        for slot in slots:
            context.clear(slot, depth)
    for slot in slots:
        context.clear(slot)
    return seconds


def _speeds(
    ways: Sequence[AttentionWay], sequences: int, depths: Sequence[int], seconds: FloatArray
) -> Iterator[AttentionSpeed]:
    """Summarize seconds, (rounds, ways, depths, 2)."""
    for (index, depth), (place, way) in product(enumerate(depths), enumerate(ways)):
        first, own = seconds[:, 0, index], seconds[:, place, index]  # (rounds, 2)
        prefill = sequences * depth / float(np.median(own[:, _PREFILL])) if depth else None
        yield AttentionSpeed(
            way=way,
            sequences=sequences,
            depth=depth,
            prefill=prefill,
            decode=sequences * DECODE_TOKENS / float(np.median(own[:, _DECODE])),
            prefill_ratio=paired_ratio(own[:, _PREFILL], first[:, _PREFILL]) if depth else None,
            decode_ratio=paired_ratio(own[:, _DECODE], first[:, _DECODE]),
        )


def attention_table(report: AttentionReport) -> Table:
    """Tabulate each way by sequences and depth, with ratios to the first way."""
    title = f"{Path(report.model).name}: tokens/s, and ratio to {WAYS[0].name} ({RATIO_LEVEL})"
    caption = f"medians of {report.rounds} rounds, {report.environment(report.threads)}"
    table = report_table(
        title, caption, "attention", "sequences", "depth", "prefill", "ratio", "decode", "ratio"
    )
    for speed in report.speeds:
        table.add_row(
            speed.way.name,
            str(speed.sequences),
            str(speed.depth),
            "" if speed.prefill is None else f"{speed.prefill:.1f}",
            "" if speed.prefill_ratio is None else speed.prefill_ratio.text(3),
            f"{speed.decode:.1f}",
            speed.decode_ratio.text(3),
        )
    return table


def main() -> None:
    """Print the speed of each way to compute attention."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--sequences", type=int, nargs="+", default=SEQUENCES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with progress_bar("attention") as progress:
        report = run_attention_sweep(
            given.model,
            depths=given.depths,
            sequences=given.sequences,
            threads=given.threads,
            rounds=given.rounds,
            progress=progress,
        )
    show_report(given.json, report, attention_table)


if __name__ == "__main__":
    main()
