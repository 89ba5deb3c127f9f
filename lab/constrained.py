"""Cost and gain of a grammar: speed of constrained beside free decode, and of answers with forced tokens.

python lab/constrained.py MODEL.gguf [--rounds 8] [--threads N] [--json]
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import numpy as np
import psutil
from rich.table import Table
from thirteen.bench.harness.format import megabytes, report_table
from thirteen.bench.harness.schedule import ProgressCounter, alternating_order
from thirteen.cli.console import progress_bar, show_report
from thirteen.files.progress import Progress, no_progress
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.grammar.grammar import Grammar, from_schema
from thirteen.runtime.llama.constraint import GrammarCompiler
from thirteen.runtime.llama.sampler import Sampler
from thirteen.runtime.request import Request
from thirteen.runtime.validation import check_integer
from thirteen.stats.interval import Interval
from thirteen.stats.paired_ratio import paired_ratio, ratio_level

ROUNDS = 8
DECODE_TOKENS = 96
_QUESTION = "Describe a day in the life of a harbour pilot, in plain words."
_FREE, _CONSTRAINED, _SAMPLED, _FORCED = range(4)  # the columns of the measurements

_NAMES = [
    *("customer_first_name_as_given", "number_of_items_in_the_order", "is_delivery_address_confirmed"),
    *("estimated_delivery_time_in_days", "has_been_a_customer_before", "total_weight_of_all_parcels"),
]
_TYPES = ["boolean", "integer"]
# Nothing is forced within a long string, and little else is in an object with long keys.
_LONG_STRING: dict[str, object] = {"type": "string", "minLength": 1000}
_LONG_KEYS: dict[str, object] = {
    "type": "object",
    "properties": {
        name: {"type": _TYPES[place % 2], **({"minimum": 0, "maximum": 9} if place % 2 else {})}
        for place, name in enumerate(_NAMES)
    },
    "required": _NAMES,
}


@dataclass(frozen=True, slots=True)
class ConstrainedReport:
    """Result of the measurement.

    Attributes:
        model: the model file.
        rounds: number of rounds; each measures everything once.
        free: median tokens per second of free decode.
        constrained: median tokens per second within a grammar that forces none of them.
        decode_ratio: constrained over free decode, paired by round.
        sampled_answers: median answers per second of a schema with long keys, all tokens sampled.
        forced_answers: the same, with the tokens that the grammar forces in one batch each.
        answer_ratio: forced over sampled answers, paired by round.
        forced_fraction: fraction of such an answer's tokens that the grammar forces.
        vocabulary_s: seconds to prepare the vocabulary, once per model.
        compile_s: seconds to check and compile the schema with long keys.
        memory_bytes: resident memory that both take.
    """

    model: str
    rounds: int
    free: float
    constrained: float
    decode_ratio: Interval
    sampled_answers: float
    forced_answers: float
    answer_ratio: Interval
    forced_fraction: float
    vocabulary_s: float
    compile_s: float
    memory_bytes: int


def run_constrained(
    model: Path, *, threads: int | None = None, rounds: int = ROUNDS, progress: Progress = no_progress
) -> ConstrainedReport:
    """Measure a model with and without grammars, in alternation.

    Args:
        model: a GGUF file.
        threads: compute threads; by default the engine's.
        rounds: number of rounds; every other one has the reverse order.
        progress: called with measurements done and in all.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: `rounds` or `threads` is out of range.
    """
    check_integer("bench: rounds", rounds, 1)
    with Engine(model, context=512, slots=1, threads=threads) as engine:
        vocabulary_s, compile_s, memory_bytes = _measure_compile(engine)
        measures = _measures(engine)
        advance = ProgressCounter(progress, rounds * len(measures))
        for measure in measures:  # warm-up
            measure()
        speeds = np.empty((rounds, len(measures)))
        for number in range(rounds):
            for place in alternating_order(len(measures), number):
                speeds[number, place] = measures[place]()
                advance()
        usage = engine.answer(_QUESTION, grammar=from_schema(_LONG_KEYS)).usage
    medians = np.median(speeds, axis=0).tolist()
    return ConstrainedReport(
        model=str(model),
        rounds=rounds,
        free=medians[_FREE],
        constrained=medians[_CONSTRAINED],
        decode_ratio=paired_ratio(speeds[:, _FREE], speeds[:, _CONSTRAINED]),
        sampled_answers=medians[_SAMPLED],
        forced_answers=medians[_FORCED],
        answer_ratio=paired_ratio(speeds[:, _SAMPLED], speeds[:, _FORCED]),
        forced_fraction=1 - usage.sampled_tokens / usage.completion_tokens,
        vocabulary_s=vocabulary_s,
        compile_s=compile_s,
        memory_bytes=memory_bytes,
    )


def _measure_compile(engine: Engine) -> tuple[float, float, int]:
    """Measure seconds for the vocabulary, seconds for a schema, and bytes for both."""
    process = psutil.Process()
    before = process.memory_info().rss
    start = perf_counter()
    compiler = GrammarCompiler(engine.model)
    compiler.constraint(from_schema({"type": "null"}))
    prepared = perf_counter()
    compiler.constraint(from_schema(_LONG_KEYS))
    compiled = perf_counter()
    return prepared - start, compiled - prepared, process.memory_info().rss - before


def _measures(engine: Engine) -> list[Callable[[], float]]:
    """The measurements, in the order of the columns."""
    string, keys = from_schema(_LONG_STRING), from_schema(_LONG_KEYS)
    free = replace(_request(engine, None), ignore_end=True)
    forced = _request(engine, keys)
    return [
        lambda: _decode_speed(engine, free),
        lambda: _decode_speed(engine, _request(engine, string)),
        lambda: _sampled_answer_speed(engine, forced),
        lambda: _answer_speed(engine, forced),
    ]


def _request(engine: Engine, grammar: Grammar | None) -> Request:
    return engine.request(_QUESTION, grammar=grammar, calculator=False, max_tokens=DECODE_TOKENS)


def _decode_speed(engine: Engine, request: Request) -> float:
    answer = engine.submit(request).answer()
    return answer.timings.decode_tokens_per_s(answer.usage)


def _answer_speed(engine: Engine, request: Request) -> float:
    start = perf_counter()
    engine.submit(replace(request, max_tokens=300)).answer()
    return 1 / (perf_counter() - start)


def _sampled_answer_speed(engine: Engine, request: Request) -> float:
    """The same, but forced tokens are sampled like others."""
    with patch.object(Sampler, "take_forced", lambda _: ()):
        return _answer_speed(engine, request)


def constrained_table(report: ConstrainedReport) -> Table:
    """Tabulate both ratios, with the costs of a compile below."""
    caption = (
        f"{report.forced_fraction:.0%} of the tokens of an answer with long keys are forced; vocabulary "
        f"{report.vocabulary_s:.2f} s once, schema {report.compile_s * 1e3:.1f} ms, both "
        f"{megabytes(report.memory_bytes)} MB; {report.rounds} rounds"
    )
    title = f"{Path(report.model).name}: constrained output, ratios with {ratio_level(report.rounds)}"
    table = report_table(title, caption, "per second", "without", "with", "ratio")
    table.add_row(
        "tokens: with a grammar",
        f"{report.free:.1f}",
        f"{report.constrained:.1f}",
        report.decode_ratio.text(3),
    )
    table.add_row(
        "answers with long keys: forced tokens",
        f"{report.sampled_answers:.2f}",
        f"{report.forced_answers:.2f}",
        report.answer_ratio.text(3),
    )
    return table


def main() -> None:
    """Print the speeds with a grammar and without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with progress_bar("rounds") as progress:
        report = run_constrained(given.model, threads=given.threads, rounds=given.rounds, progress=progress)
    show_report(given.json, report, constrained_table)


if __name__ == "__main__":
    main()
