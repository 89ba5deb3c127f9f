"""The fastest attention, KV type, library and number of threads for a model here, timed in turns."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np

from ..errors import RequestError
from ..files.gguf.header import Header
from ..files.gguf.model_shape import read_decoder_shape, read_pooling
from ..files.output import write_file
from ..files.processors import multiplies_bf16
from ..files.progress import Progress, no_progress
from ..runtime.defaults import IK_STANDARD, MAPPED, Way, tuned_file
from ..runtime.engine_options import EngineOptions
from ..runtime.llama.context import Context, Span
from ..runtime.llama.model import Model, read_model_header
from ..runtime.llama.settings import IK, Settings
from ..runtime.machine import default_threads, usable_threads
from ..runtime.plan import table_way, usable_libraries
from ..stats import Doubles
from ..stats.intervals import RATIO_LEVEL, ROUNDS_MIN, Interval, paired_ratio
from .environment import BenchReport, Table, report_head
from .rounds import ProgressCounter, in_turns
from .workload import random_prompt

# An ordinary question, asked alone, and four of them at once.
PROMPT_TOKENS, ANSWER_TOKENS, SLOTS = 200, 100, 4
STEPS = 8  # decode steps that are timed, of one sequence, then of all
BATCH = 512

Prompt = tuple[int, ...]
# Seconds of a prefill, of a decode step after it, and of a step of all slots.
Times = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class TimedWay:
    """Speeds of a way to compute, in tokens a second, and seconds of ordinary questions / the default's."""

    name: str
    prefill: float
    decode: float  # of an answer, after the prompt
    together: float  # of SLOTS answers at once
    ratio: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneReport(BenchReport):
    """What was measured, the default first, and what is used from now on."""

    model: str
    ways: tuple[TimedWay, ...]
    chosen: Way

    def sentences(self) -> Iterator[str]:
        """Whether the default stays."""
        default, chosen = self.ways[0].name, way_name(self.chosen)
        if chosen == default:
            yield f"Settings: the default stays, {default}: nothing is faster beyond doubt."
        else:
            yield f"Settings: {chosen} from now on, instead of {default}."

    def table(self) -> Table:
        """The ways by their speeds."""
        columns = ("way", "prefill", "decode", f"{SLOTS} at once", f"seconds / default ({RATIO_LEVEL})")
        rows = (
            (
                way.name,
                *(f"{speed:.1f}" for speed in (way.prefill, way.decode, way.together)),
                way.ratio.text(2),
            )
            for way in self.ways
        )
        notes = (self.environment(default_threads()),)
        return Table(f"{Path(self.model).name}: tokens/s", columns, tuple(rows), notes)


def tune_engine(model: Path, progress: Progress = no_progress) -> TuneReport:
    """Time a model in each way to compute, and by default with other numbers of threads.

    What is faster than the default beyond doubt is kept for engines with models of this shape and type.

    Raises:
        FileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        OutputError: the choice cannot be kept.
        RequestError: the model makes embeddings, or its context is too short.
    """
    header, head, cores = read_model_header(model), report_head(), default_threads()
    if read_pooling(header) or read_decoder_shape(header).context < PROMPT_TOKENS + 2 * STEPS:
        raise RequestError(f"{model}: only models that answer questions of {PROMPT_TOKENS} tokens are tuned")
    libraries = usable_libraries(EngineOptions(), header)
    ways = [*dict.fromkeys([table_way(EngineOptions(), header, libraries), *_ways(libraries)])]
    others = [replace(ways[0], threads=n) for n in {max(1, cores // 2), usable_threads()} - {cores}]
    advance = ProgressCounter(progress, (ROUNDS_MIN + 1) * (len(ways) + len(others)))
    with ExitStack() as loaded:
        contexts = open_contexts(header, [_settings(way) for way in ways], loaded)
        measures = [partial(time_question, context, threads=cores) for context in contexts]
        measures += [partial(time_question, contexts[0], threads=way.threads) for way in others]
        prompts = [random_prompt(contexts[0].model, n, PROMPT_TOKENS) for n in range(ROUNDS_MIN)]
        seconds = time_in_turns(measures, prompts, advance)
    timed = timed_ways([*map(way_name, ways), *map(way_name, others)], seconds)
    of_ways, of_threads = timed[: len(ways)], [timed[0], *timed[len(ways) :]]
    chosen = replace(ways[_fastest(of_ways)], threads=[ways[0], *others][_fastest(of_threads)].threads)
    write_file(tuned_file(header), json.dumps(asdict(chosen)).encode() + b"\n")
    return TuneReport(**head, model=str(model), ways=tuple(timed), chosen=chosen)


def _ways(libraries: Sequence[str]) -> Iterator[Way]:
    kinds = ("f16", "bf16") if multiplies_bf16() else ("f16",)
    for flash, kv in product((True, False), kinds):
        yield Way(flash_attention=flash, kv=kv)
    yield MAPPED
    if IK in libraries:
        yield IK_STANDARD


def _settings(way: Way) -> Settings:
    options = EngineOptions(
        context=PROMPT_TOKENS + 2 * STEPS, slots=SLOTS, batch=BATCH, adaptive_threads=False
    )
    return options.settings(way)


def open_contexts(header: Header, settings: Sequence[Settings], loaded: ExitStack) -> list[Context]:
    """Load the model once in each library and with each way to keep weights, and open a context for each."""
    keys = dict.fromkeys((one.library, one.repack) for one in settings)
    models = {
        (library, repack): loaded.enter_context(Model(header, library=library, repack=repack))
        for library, repack in keys
    }
    return [loaded.enter_context(Context(models[one.library, one.repack], one)) for one in settings]


def time_in_turns(
    measures: Sequence[Callable[[Prompt], Times]], prompts: Sequence[Prompt], advance: ProgressCounter
) -> Doubles:
    """Times of each measure with each prompt, (prompts, measures, 3), after a round that does not count."""
    for measure in measures:
        measure(prompts[0])
        advance()
    tasks = [lambda number, measure=measure: measure(prompts[number]) for measure in measures]
    return np.array(in_turns(tasks, len(prompts), advance)).swapaxes(0, 1)


def time_question(context: Context, prompt: Prompt, threads: int | None = None) -> Times:
    """Time a prompt and decode steps in the empty slots of a context, which are empty again after it."""
    if threads:
        context.set_threads(threads, threads)
    slots, depth = range(context.settings.slots), len(prompt)
    start = perf_counter()
    for at in range(0, depth, BATCH):
        context.decode([Span(0, at, prompt[at : at + BATCH], 1)])
    prefilled = perf_counter()
    for at in range(depth, depth + STEPS):
        context.decode([Span(0, at, prompt[:1], 1)])
    decoded = perf_counter()
    state = context.save(0)
    for slot in slots[1:]:
        context.restore(slot, state, depth + STEPS)
    copied = perf_counter()
    for at in range(depth + STEPS, depth + 2 * STEPS):
        context.decode([Span(slot, at, prompt[:1], 1) for slot in slots])
    end = perf_counter()
    for slot in slots:
        context.clear(slot)
    return prefilled - start, (decoded - prefilled) / STEPS, (end - copied) / STEPS


def timed_ways(names: Sequence[str], seconds: Doubles) -> list[TimedWay]:
    """Speeds of measures of SLOTS slots, with ratios to the first one."""
    prefill, decode, together = np.moveaxis(seconds, 2, 0)  # (rounds, measures) each
    one, all_ = prefill + ANSWER_TOKENS * decode, SLOTS * prefill + ANSWER_TOKENS * together
    questions = np.sqrt(one * all_)
    return [
        TimedWay(
            name,
            PROMPT_TOKENS / float(np.median(prefill[:, at])),
            1 / float(np.median(decode[:, at])),
            SLOTS / float(np.median(together[:, at])),
            paired_ratio(questions[:, 0], questions[:, at]),
        )
        for at, name in enumerate(names)
    ]


def _fastest(timed: Sequence[TimedWay]) -> int:
    """Index of the fastest of those that are faster than the first beyond doubt; else of the first."""
    faster = [at for at, way in enumerate(timed) if way.ratio.high < 1]
    return min(faster, key=lambda at: timed[at].ratio.estimate, default=0)


def way_name(way: Way) -> str:
    """A way in words."""
    attention = "flash" if way.flash_attention else "standard"
    weights = "" if way.repack else ", mapped weights"
    threads = f", threads: {way.threads}" if way.threads else ""
    return f"{way.library}, {attention} attention, {way.kv}{weights}{threads}"
