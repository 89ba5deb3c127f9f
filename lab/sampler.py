"""Time to choose a token from its logits, beside the time to compute them.

python lab/sampler.py MODEL.gguf [--tokens 128] [--threads N] [--json]
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from rich.table import Table
from thirteen.bench.harness.format import report_table
from thirteen.bench.harness.schedule import ProgressCounter
from thirteen.cli.console import progress_bar, show_report
from thirteen.files.progress import Progress, no_progress
from thirteen.runtime.llama.context import Context, ContextParams, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.sampler import Sampler
from thirteen.runtime.request import Sampling
from thirteen.runtime.threads import default_threads
from thirteen.runtime.validation import check_integer

TOKENS = 128
_FIRST = 100  # the first token; the others are what greedy sampling chooses
_REPEATS = 5  # choices per token: one alone takes some microseconds


@dataclass(frozen=True, slots=True)
class SamplerReport:
    """Result of the measurement; times are medians over the tokens, in milliseconds.

    Attributes:
        model: the model file.
        vocabulary: number of tokens.
        tokens: decoded tokens.
        decode_ms: time of a decode step with one token.
        greedy_ms: time of the likeliest token.
        sampled_ms: time of a token by temperature 0.7 and the default cut-offs.
        no_digit_ms: the same where a number must not go on, as after the calculator's results.
    """

    model: str
    vocabulary: int
    tokens: int
    decode_ms: float
    greedy_ms: float
    sampled_ms: float
    no_digit_ms: float


def run_sampler_cost(
    model: Path, *, threads: int | None = None, tokens: int = TOKENS, progress: Progress = no_progress
) -> SamplerReport:
    """Decode tokens one by one, and choose each of them in several ways.

    Args:
        model: a GGUF file.
        threads: compute threads; by default one per physical core.
        tokens: number of tokens.
        progress: called after each token.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: `tokens` or `threads` is out of range.
    """
    check_integer("bench: tokens", tokens, 1)
    params = ContextParams(tokens + 1, 1, 1, threads=threads or default_threads(), outputs=1)
    with (
        Model(model) as loaded,
        Context(loaded, params) as context,
        Sampler(loaded, Sampling()) as greedy,
        Sampler(loaded, Sampling(temperature=0.7)) as sampled,
    ):
        advance, times, token = ProgressCounter(progress, tokens), [], _FIRST % loaded.vocabulary_size
        for position in range(tokens):
            start = perf_counter()
            (row,) = context.decode([Span(0, position, (token,), 1)])
            decode_s = perf_counter() - start
            times.append(
                [
                    decode_s,
                    _seconds(greedy, context, row),
                    _seconds(sampled, context, row),
                    _seconds(sampled, context, row, no_digit=True),
                ]
            )
            token = greedy.sample(context, row)
            advance()
        medians = [1e3 * median(column) for column in zip(*times, strict=True)]
        return SamplerReport(str(model), loaded.vocabulary_size, tokens, *medians)


def _seconds(sampler: Sampler, context: Context, row: int, *, no_digit: bool = False) -> float:
    start = perf_counter()
    for _ in range(_REPEATS):
        sampler.sample(context, row, no_digit=no_digit)
    return (perf_counter() - start) / _REPEATS


def sampler_table(report: SamplerReport) -> Table:
    """Tabulate the time of each way to choose a token, and its share of a decode step."""
    title = f"{Path(report.model).name}: choosing one of {report.vocabulary:,} tokens"
    caption = f"medians over {report.tokens} tokens; a decode step takes {report.decode_ms:.1f} ms"
    table = report_table(title, caption, "how", "ms", "of a decode step")
    rows = {"greedy": report.greedy_ms, "sampled": report.sampled_ms, "without digits": report.no_digit_ms}
    for name, milliseconds in rows.items():
        table.add_row(name, f"{milliseconds:.3f}", f"{milliseconds / report.decode_ms:.1%}")
    return table


def main() -> None:
    """Print the time of each way to choose a token."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with progress_bar("tokens") as progress:
        report = run_sampler_cost(given.model, threads=given.threads, tokens=given.tokens, progress=progress)
    show_report(given.json, report, sampler_table)


if __name__ == "__main__":
    main()
