"""Base against adapted in speed, memory and size: both models are loaded and take turns, round by round.

A shared or warm machine drifts by more than the difference in question, so single figures say little. The two
are measured in turns, A B B A A B B A …, so that a drift meets both alike, and their ratio is what counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ...files.gguf_header import read_header
from ...files.progress import Progress, no_progress
from ...runtime.request import check_integer
from ...runtime.threads import physical_cores
from ...stats.paired_ratio import RATIO_LEVEL, ROUNDS_MIN
from ..harness.environment import Build, Machine, this_build, this_commit, this_machine
from ..harness.format import NOT_AVAILABLE
from ..harness.interleave import ITERATIONS, PairedMeasurement, count_iterations
from ..harness.schedule import ProgressCounter
from ..harness.wording import describe_difference, describe_noise, more_rounds, too_noisy
from ..harness.workload import Workload, load_engine
from ..memory.subject import Subject, describe_subject
from .ab_speed import ABSpeeds, compare_speeds
from .length_sweep import DECODE_TOKENS, LengthSpeeds, check_lengths, measure_lengths
from .length_sweep import ROUNDS as ROUNDS_AT

ROUNDS = 20
_TABLE_WIDTH = 76  # so that most lines below the table stay whole


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """All that was measured, and with what; dataclasses.asdict makes it JSON.

    Attributes:
        date: when it began, in UTC.
        machine: where.
        build: with which versions.
        commit: of the checkout that ran; see machine.this_commit().
        settings: the work of a turn.
        rounds: in each, both models took TURNS turns.
        base: the one side.
        adapted: the other.
        question_tokens: see Speeds, as the next three.
        prefill: likewise.
        first_token: likewise.
        decode: likewise.
        lengths: both sides at prompts of several lengths.
        noisy: whether the run was too noisy to settle the decode speed.
        more_rounds: about how many more would settle it; 0 if it is settled.
        verdict: what it comes to in words, a line each. Each interval stands for itself: of equal models,
            up to three runs in a hundred will show some difference in one of the three.
    """

    date: str
    machine: Machine
    build: Build
    commit: str | None
    settings: Workload
    rounds: int
    base: Subject
    adapted: Subject
    question_tokens: tuple[int, int]
    prefill: PairedMeasurement
    first_token: PairedMeasurement
    decode: PairedMeasurement
    lengths: tuple[LengthSpeeds, ...]
    noisy: bool
    more_rounds: int
    verdict: tuple[str, ...]


def run_latency(  # noqa: PLR0913 - the knobs of a measurement, each with its default
    base: Path,
    adapted: Path,
    *,
    adapter: Path | None = None,
    threads: int | None = None,
    prompt_tokens: int = 128,
    decode_tokens: int = 64,
    rounds: int = ROUNDS,
    lengths: Sequence[int] = (),
    progress: Progress = no_progress,
) -> LatencyReport:
    """Measure two models side by side.

    Memory and load time come first, each model in a process of its own. Then they go through the rounds; in
    each, both are loaded, and take a turn that is not counted before those that are.

    Args:
        base: a GGUF file.
        adapted: another, or the same one with an adapter.
        adapter: a LoRA in a GGUF file that the adapted model gets at run time.
        threads: that compute; by default one for each physical core.
        prompt_tokens: tokens read in each turn.
        decode_tokens: tokens written after the first.
        rounds: in each, both models take two turns; at least 8.
        lengths: of prompts that are measured besides, and of texts that are decoded after.
        progress: called with what is done and how much there is in all: turns, and two for the memory.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, or cannot be run by this build.
        AdapterError: the adapter is not one for the adapted model.
        RequestError: a number is out of bounds, or a turn does not fit a model's context.
    """
    check_integer("bench: rounds", rounds, ROUNDS_MIN)
    lengths = check_lengths(lengths)
    longest = max(lengths) + 1 + DECODE_TOKENS if lengths else 0
    threads = physical_cores() if threads is None else threads
    settings = Workload(prompt_tokens, decode_tokens, threads, longest=longest)
    date, machine = datetime.now(UTC).isoformat(timespec="seconds"), this_machine()
    tick = ProgressCounter(
        progress, 2 + count_iterations(2, 1, rounds) + count_iterations(2, len(lengths), ROUNDS_AT)
    )
    for path in (base, adapted, *([adapter] if adapter else [])):
        read_header(path)  # a bad file is known before the first measurement
    sides = []
    for files in ((base, None), (adapted, adapter)):
        sides.append(describe_subject(*files, replace(settings, longest=0)))
        tick()
    loads = (partial(load_engine, base, None, settings), partial(load_engine, adapted, adapter, settings))
    speeds = compare_speeds(*loads, settings, rounds, tick)
    at = measure_lengths(*loads, lengths, tick)
    return LatencyReport(
        date=date,
        machine=machine,
        build=this_build(),
        commit=this_commit(),
        settings=settings,
        rounds=rounds,
        base=sides[0],
        adapted=sides[1],
        question_tokens=speeds.question_tokens,
        prefill=speeds.prefill,
        first_token=speeds.first_token,
        decode=speeds.decode,
        lengths=at,
        noisy=too_noisy(speeds.decode.ratio),
        more_rounds=more_rounds(speeds.decode.ratio, rounds),
        verdict=tuple(_verdict(speeds, rounds)),
    )


def _verdict(speeds: ABSpeeds, rounds: int) -> Iterator[str]:
    for name, measure_ in speeds.named:
        yield describe_difference(name, measure_.ratio, more_is_better=measure_.more_is_better)
    if too_noisy(speeds.decode.ratio):
        yield describe_noise("decode", speeds.decode.ratio, rounds)


def latency_table(report: LatencyReport) -> Table:
    """Base and adapted side by side, the verdict and the circumstances below."""
    out = Table(
        "",
        title=_title(report),
        caption=Text(_caption(report)),
        caption_justify="left",
        min_width=_TABLE_WIDTH,
    )
    out.add_column("base", justify="right")
    out.add_column("adapted", justify="right")
    out.add_column(f"adapted / base ({RATIO_LEVEL})", justify="right")
    for row in _rows(report):
        out.add_row(*row)
    return out


def _title(report: LatencyReport) -> Text:
    return Text(f"{_files(report.base)} beside {_files(report.adapted)}")


def _files(side: Subject) -> str:
    paths = [side.path, side.adapter.path] if side.adapter else [side.path]
    return " + ".join(Path(path).name for path in paths)


def _rows(report: LatencyReport) -> list[tuple[str, ...]]:
    settings, base, adapted = report.settings, report.base, report.adapted
    asked = "/".join(str(tokens) for tokens in dict.fromkeys(report.question_tokens))
    return [
        _measured(f"prefill {settings.prompt_tokens}, tokens/s", report.prefill, 1),
        _measured(f"first token of {asked}, ms", report.first_token, 1000),
        _measured(f"decode {settings.decode_tokens}, tokens/s", report.decode, 1),
        *(row for length in report.lengths for row in _at_length(length)),
        ("load, once, s", f"{base.memory.load_s:.2f}", f"{adapted.memory.load_s:.2f}", ""),
        _counted("start to first token, s", base.memory.warm_start_s, adapted.memory.warm_start_s, 1, 2),
        _counted("  file not in the cache", base.memory.cold_start_s, adapted.memory.cold_start_s, 1, 2),
        _counted("peak memory, MB", base.memory.peak_rss_bytes, adapted.memory.peak_rss_bytes, 1e-6),
        _counted("file, MB", base.total_bytes, adapted.total_bytes, 1e-6, 1),
        _counted("bits a weight", base.bits_per_weight, adapted.bits_per_weight, 1, 2),
    ]


def _at_length(length: LengthSpeeds) -> Iterator[tuple[str, ...]]:
    yield _measured(f"prefill {length.tokens}, tokens/s", length.prefill, 1)
    yield _measured(f"decode after {length.tokens}, tokens/s", length.decode, 1)


def _measured(what: str, measure: PairedMeasurement, scale: float) -> tuple[str, ...]:
    ratio = measure.ratio
    medians = (f"{scale * median:.1f}" for median in (measure.base_median, measure.adapted_median))
    return what, *medians, f"{ratio.estimate:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def _counted(
    what: str, base: float | None, adapted: float | None, scale: float, digits: int = 0
) -> tuple[str, ...]:
    if base is None or adapted is None:
        return what, NOT_AVAILABLE, NOT_AVAILABLE, ""
    return what, f"{scale * base:.{digits}f}", f"{scale * adapted:.{digits}f}", f"{adapted / base:.3f}"


def _caption(report: LatencyReport) -> str:
    machine, settings = report.machine, report.settings
    return "\n".join(
        (
            *report.verdict,
            f"medians of {report.rounds} rounds of {2 * ITERATIONS} turns, threads: {settings.threads}, "
            f"cores: {machine.cores}, load: {machine.load_average}",
            f"{machine.cpu} ({' '.join(machine.features)}), llama-cpp-python {report.build.llama_cpp_python}",
        )
    )
