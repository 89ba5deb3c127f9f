"""Cost and gain of a grammar: speed of constrained beside free decode, and of answers with forced tokens.

python lab/constrained.py MODEL.gguf [--rounds 8] [--threads N]
"""

import argparse
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import numpy as np
import psutil
from thirteen.bench.harness.format import megabytes, report_table
from thirteen.cli.console import out, progress_bar
from thirteen.quality.schedule import ProgressCounter, alternating_order
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.grammar.grammar import from_schema
from thirteen.runtime.llama.constraint import GrammarCompiler
from thirteen.runtime.llama.sampler import Sampler
from thirteen.runtime.request import Request
from thirteen.stats.paired_ratio import paired_ratio, ratio_level

DECODE_TOKENS = 96
_QUESTION = "Describe a day in the life of a harbour pilot, in plain words."
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


def compile_costs(engine: Engine) -> str:
    """Seconds for the vocabulary, once per model, and for a schema, and bytes for both."""
    process = psutil.Process()
    before = process.memory_info().rss
    start = perf_counter()
    compiler = GrammarCompiler(engine.model)
    compiler.constraint(from_schema({"type": "null"}))
    prepared = perf_counter()
    compiler.constraint(from_schema(_LONG_KEYS))
    schema_ms, nbytes = 1e3 * (perf_counter() - prepared), process.memory_info().rss - before
    return f"vocabulary {prepared - start:.2f} s once, schema {schema_ms:.1f} ms, both {megabytes(nbytes)} MB"


def decode_speed(engine: Engine, request: Request) -> float:
    """Tokens per second."""
    answer = engine.submit(request).answer()
    return answer.timings.decode_tokens_per_s(answer.usage)


def answer_speed(engine: Engine, request: Request) -> float:
    """Answers per second."""
    start = perf_counter()
    engine.submit(replace(request, max_tokens=300)).answer()
    return 1 / (perf_counter() - start)


def sampled_answer_speed(engine: Engine, request: Request) -> float:
    """The same, but forced tokens are sampled like others."""
    with patch.object(Sampler, "take_forced", lambda _: ()):
        return answer_speed(engine, request)


def main() -> None:
    """Print the speeds with a grammar and without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    with (
        Engine(given.model, context=512, slots=1, threads=given.threads) as engine,
        progress_bar("rounds") as progress,
    ):
        costs = compile_costs(engine)
        free, string, keys = (
            engine.request(_QUESTION, grammar=grammar, calculator=False, max_tokens=DECODE_TOKENS)
            for grammar in (None, from_schema(_LONG_STRING), from_schema(_LONG_KEYS))
        )
        measures = (
            (decode_speed, replace(free, ignore_end=True)),
            (decode_speed, string),
            (sampled_answer_speed, keys),
            (answer_speed, keys),
        )
        for measure, request in measures:  # warm-up
            measure(engine, request)
        advance = ProgressCounter(progress, given.rounds * len(measures))
        speeds = np.empty((len(measures), given.rounds))
        for number in range(given.rounds):
            for place in alternating_order(len(measures), number):
                measure, request = measures[place]
                speeds[place, number] = measure(engine, request)
                advance()
        usage = engine.answer(_QUESTION, grammar=from_schema(_LONG_KEYS)).usage
    forced = 1 - usage.sampled_tokens / usage.completion_tokens
    title = f"{given.model.name}: constrained output, ratios with {ratio_level(given.rounds)}"
    caption = (
        f"{forced:.0%} of the tokens of an answer with long keys are forced; {costs}; {given.rounds} rounds"
    )
    table = report_table(title, caption, "per second", "without", "with", "ratio")
    rows = ("tokens: with a grammar", "answers with long keys: forced tokens")
    for name, (without, with_) in zip(rows, speeds.reshape(2, 2, -1), strict=True):
        medians = (f"{np.median(one):.2f}" for one in (without, with_))
        table.add_row(name, *medians, paired_ratio(without, with_).text(3))
    out.print(table)


if __name__ == "__main__":
    main()
