"""Latency, memory and size of a model, or of an adapted model against its base.

A shared or warm machine drifts by more than the difference in question, so the two models alternate, and
drift cancels in their ratio. Prompts have random tokens: speed depends on their number, not on what they say.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import numpy as np

from ..files.progress import Progress, no_progress
from ..runtime.engine.engine import Engine
from ..stats import Doubles
from ..stats.intervals import NOISE_MAX, RATIO_LEVEL, ROUNDS_MIN, Interval, ratio_level
from .environment import BenchReport, ModelFile, ModelSource, Table, describe_model, report_head
from .program_run import ProgramRun, run_program
from .rounds import (
    ITERATIONS_PER_ROUND,
    EngineLoader,
    Measurement,
    ProgressCounter,
    count_iterations,
    interleave,
    summarize,
)
from .workload import Workload, load_engine, random_prompt, time_answers


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyReport(BenchReport):
    """Latency of a model, or of a base and an adapted model; the base comes first.

    `answer` and `first_token` are seconds from submitting the prompt, `prefill` and `decode` tokens per
    second. `memory` has a run of each model in a process of its own; it is empty if that was not measured.
    """

    threads: int
    rounds: int
    prompt_tokens: int
    decode_tokens: int
    files: tuple[ModelFile, ...]
    memory: tuple[ProgramRun, ...]
    answer: Measurement
    first_token: Measurement
    prefill: Measurement
    decode: Measurement

    def sentences(self) -> Iterator[str]:
        """The speed, and the size with the peak of memory."""
        *base, adapted = self.decode.medians
        if self.decode.ratio:
            yield speed_sentence(base[0], adapted, self.decode.ratio, self.rounds)
        else:
            yield (
                f"Speed: the model writes {adapted:.0f} tokens/s; an answer of {1 + self.decode_tokens} "
                f"tokens to a question of {self.prompt_tokens} takes {self.answer.medians[0]:.2f} s."
            )
        *base_size, size = [f"{file.total_bytes / 1e6:,.1f} MB" for file in self.files]
        *base_peak, peak = [f"{run.peak_bytes / 1e6:,.0f} MB" for run in self.memory] or [""]
        text = f"Size: the {'adapted ' if base_size else ''}model has {size}"
        text += f" and takes {peak} of memory at its peak" if peak else ""
        base_text = f", its base {base_size[0]}" if base_size else ""
        yield f"{text}{base_text}{f' and {base_peak[0]}' if base_peak else ''}."

    def table(self) -> Table:
        """The models side by side."""
        paired = len(self.files) == 2
        columns = ("base", "adapted", f"adapted / base ({RATIO_LEVEL})") if paired else ("model",)
        question = f"a question of {self.prompt_tokens} tokens, an answer of {1 + self.decode_tokens}"
        return Table(
            f"{' vs '.join(file.name for file in self.files)}: {question}",
            ("", *columns),
            tuple(self._rows()),
            (
                f"medians of {self.rounds} rounds of {ITERATIONS_PER_ROUND} iterations of each model",
                self.environment(self.threads),
            ),
        )

    def _rows(self) -> Iterator[tuple[str, ...]]:
        yield _row("time to an answer, s", self.answer.medians, 1, 2, self.answer.ratio)
        yield _row("first token, ms", self.first_token.medians, 1000, 1, self.first_token.ratio)
        yield _row("prefill, tokens/s", self.prefill.medians, 1, 1, self.prefill.ratio)
        yield _row("decode, tokens/s", self.decode.medians, 1, 1, self.decode.ratio)
        if runs := self.memory:
            yield _row("load, s", [run.load_s for run in runs], 1, 2)
            yield _row("load to first token, s", [run.load_s + run.first_token_s for run in runs], 1, 2)
            yield _row("peak memory, MB", [run.peak_bytes for run in runs], 1e-6, 0)
        yield _row("file, MB", [file.total_bytes for file in self.files], 1e-6, 1)
        yield _row("bits per weight", [file.bits_per_weight for file in self.files], 1, 2)


def _row(
    title: str, values: Sequence[float], scale: float, digits: int, ratio: Interval | None = None
) -> tuple[str, ...]:
    against = (ratio.text(3) if ratio else f"{values[1] / values[0]:.3f}",) if len(values) == 2 else ()
    return title, *(f"{scale * value:.{digits}f}" for value in values), *against


def run_latency(
    models: Sequence[ModelSource],
    work: Workload,
    *,
    rounds: int = ROUNDS_MIN,
    until: float = inf,
    progress: Progress = no_progress,
) -> LatencyReport:
    """Measure a model, or a base and then an adapted model.

    With `until`, a time of perf_counter(), the rounds end early, but for the first. Without it, memory and
    load time are measured before.

    Raises:
        FileError: a file is not a GGUF, is damaged, or cannot be run by this build; the adapter does not fit
            its model.
        RequestError: the work does not fit a model's context.
    """
    head, files = report_head(), tuple(map(describe_model, models))
    measured = models if until == inf else ()
    advance = ProgressCounter(progress, len(measured) + count_iterations(len(models), rounds))
    runs = []
    for model in measured:
        runs.append(run_program("thirteen", model, work))
        advance()
    first_s, last_s = time_in_turns(
        [partial(load_engine, model, work) for model in models], work, rounds, advance, until
    )
    return LatencyReport(
        **head,
        threads=work.threads,
        rounds=first_s.shape[1] // ITERATIONS_PER_ROUND,
        prompt_tokens=work.prompt_tokens,
        decode_tokens=work.decode_tokens,
        files=files,
        memory=tuple(runs),
        answer=summarize(last_s),
        first_token=summarize(first_s),
        prefill=summarize(first_s, work.prompt_tokens),
        decode=summarize(last_s - first_s, work.decode_tokens),
    )


def time_in_turns(
    loaders: Sequence[EngineLoader],
    work: Workload,
    rounds: int,
    advance: Callable[[], None],
    until: float = inf,
) -> tuple[Doubles, Doubles]:
    """Seconds to the first and to the last token, (models, iterations) each; see interleave()."""

    def answer_s(engine: Engine, number: int) -> tuple[float, ...]:
        prompt = random_prompt(engine.model, number, work.prompt_tokens)
        return time_answers(engine, prompt, (1, 1 + work.decode_tokens))

    times = interleave(loaders, answer_s, rounds, advance, until)
    seconds: Doubles = np.array(times)  # (models, iterations, 2)
    return seconds[..., 0], seconds[..., 1]


def speed_sentence(base: float, adapted: float, ratio: Interval, rounds: int) -> str:
    """Compare the tokens per second of two models after so many rounds."""
    end = f" ({rounds} rounds, {ratio_level(rounds)} sure)" if rounds < ROUNDS_MIN else ""
    if ratio.half_width > NOISE_MAX:
        end += "; more rounds would settle it"
    if not ratio.excludes_one:
        most = 100 * max(1 - ratio.low, ratio.high - 1)
        within = f"{most:.0f}" if most >= 1 else f"{most:.1f}"
        return f"Speed: no difference within {within} %: both write about {base:.0f} tokens/s{end}."
    word = "slower" if ratio.estimate < 1 else "faster"
    low, percent, high = sorted(100 * abs(bound - 1) for bound in (ratio.low, ratio.estimate, ratio.high))
    text = f"Speed: the adapted model writes {adapted:.0f} tokens/s, its base {base:.0f}"
    return f"{text}: {percent:.0f} % {word} ({low:.0f} to {high:.0f} %){end}."
