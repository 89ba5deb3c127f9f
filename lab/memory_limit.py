"""The smallest memory limit under which a model answers, and the error of the memory estimate."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from thirteen.errors import InsufficientMemoryError, ModelFileError, RequestError
from thirteen.files.gguf.header import read_header
from thirteen.files.progress import Progress, no_progress
from thirteen.runtime.llama.gguf_checks import check_model
from thirteen.runtime.llama.memory_estimate import MemoryEstimate, estimate_memory
from thirteen.runtime.profile import PROFILES
from thirteen.bench.harness.format import megabytes
from thirteen.bench.harness.from_json import from_json
from thirteen.bench.harness.isolated import run_in_subprocess
from thirteen.bench.memory.memory_limit_worker import LimitOutcome, LimitSettings

_RESOLUTION = 1_000_000  # bytes between the smallest limit that works and one that fails
# One malloc arena and no BLAS threads: both reserve address space that is never used.
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
# Row titles by field of MemoryEstimate.
ESTIMATE_LABELS = {
    "program_bytes": "  Python and libraries, MB",
    "weights_bytes": "  weights, MB",
    "copied_bytes": "  repacked weights, MB",
    "vocabulary_bytes": "  vocabulary, MB",
    "kv_bytes": "  KV cache, MB",
    "buffer_bytes": "  buffers, MB",
    "prefix_bytes": "  prefix cache, at most, MB",
}


@dataclass(frozen=True, slots=True)
class MemoryLimitReport:
    """Result of a search for the smallest memory limit.

    Attributes:
        cap_bytes: the largest limit on address space.
        profile: name of the engine's profile.
        need: memory estimate from the file's header.
        answered: outcome under the smallest limit; None if the model was refused under `cap_bytes`.
        refusal: the error message then; None if it answered.
        smallest_bytes: smallest limit under which the model answers, to a megabyte; None if it was refused.
        error: relative error of the estimate against peak RSS: 0.03 is an estimate 3 % too high. None if it
            was refused.
    """

    cap_bytes: int
    profile: str
    need: MemoryEstimate
    answered: LimitOutcome | None
    refusal: str | None
    smallest_bytes: int | None
    error: float | None


def run_memory_limit(
    model: Path, cap_bytes: int, settings: LimitSettings, progress: Progress = no_progress
) -> MemoryLimitReport:
    """Find the smallest memory limit up to `cap_bytes`, then answer all questions and fill the context in it.

    Raises:
        ModelFileError: the file is not a model, or the process died under a limit instead of refusing.
        RequestError: the profile does not exist, or the system is not Linux.
    """
    if sys.platform != "linux":
        raise RequestError("bench memory --cap: needs Linux, whose address space limits it uses")
    if settings.profile not in PROFILES:
        raise RequestError(f"profile: {settings.profile!r} is not one of {', '.join(PROFILES)}")
    header = read_header(model)
    check_model(header)
    estimate = estimate_memory(header, replace(PROFILES[settings.profile], context=settings.context))
    answer = partial(run_under_limit, model, settings=settings, fill=False)
    try:
        answer(cap_bytes)
    except InsufficientMemoryError as refusal:
        return MemoryLimitReport(cap_bytes, settings.profile, estimate, None, str(refusal), None, None)
    smallest = _smallest_limit(answer, header.file_bytes, cap_bytes, progress)
    while True:
        try:
            outcome = run_under_limit(model, smallest, settings, fill=True)
            break
        except InsufficientMemoryError:  # address space varies by a few pages from run to run
            smallest += _RESOLUTION
    error = estimate.total_bytes / outcome.peak_rss_bytes - 1
    return MemoryLimitReport(cap_bytes, settings.profile, estimate, outcome, None, smallest, error)


def run_under_limit(model: Path, limit: int, settings: LimitSettings, *, fill: bool) -> LimitOutcome:
    """Run memory_limit_worker under a limit of `limit` bytes.

    Raises:
        InsufficientMemoryError: the engine refused to load.
        ModelFileError: the file is not a model, or the process died.
    """
    arguments = [f"--{name}={value}" for name, value in asdict(settings).items()]
    arguments += [f"--cap={limit}", *(["--fill"] if fill else []), "--", str(model)]
    where = f"{model}: under a limit of {limit / 1e6:,.0f} MB"
    outcome = run_in_subprocess(
        "thirteen.bench.memory.memory_limit_worker",
        arguments,
        lambda status, last: ModelFileError(f"{where} the process died with exit status {status}: {last}"),
        _ENVIRONMENT,
    )
    return from_json(LimitOutcome, outcome, where)


def _smallest_limit(answer: Callable[[int], object], too_small: int, enough: int, progress: Progress) -> int:
    """Bisect between a limit that is too small and one that is enough."""
    steps = ((enough - too_small) // _RESOLUTION).bit_length()
    for step in range(steps):
        middle = (too_small + enough) // 2
        progress(step, steps)
        try:
            answer(middle)
            enough = middle
        except InsufficientMemoryError:
            too_small = middle
    return enough


def memory_limit_table(report: MemoryLimitReport, model: Path) -> Table:
    """Table of limits, peaks and the memory estimate."""
    table = Table("", title=Text(f"{model.name}, {report.profile}"), title_justify="left", min_width=60)
    table.add_column("", justify="right")
    table.add_row("address space limit, MB", megabytes(report.cap_bytes))
    if report.smallest_bytes is not None:
        table.add_row("smallest limit that works, MB", megabytes(report.smallest_bytes))
    if outcome := report.answered:
        filled = f"{outcome.answers} questions, context of {outcome.context} filled"
        table.add_row("answered under that limit", filled)
        table.add_row("peak resident, MB", megabytes(outcome.peak_rss_bytes))
        table.add_row("peak address space, MB", megabytes(outcome.peak_address_bytes))
    else:
        table.add_row("refused before loading", Text(report.refusal or ""))
    error = "" if report.error is None else f" ({report.error:+.1%})"
    table.add_row("estimate, MB", megabytes(report.need.total_bytes) + error)
    for field in fields(report.need):
        table.add_row(ESTIMATE_LABELS[field.name], megabytes(getattr(report.need, field.name)))
    return table
