"""The smallest memory limit under which a model answers, and the error of the memory estimate.

python lab/memory_limit.py MODEL.gguf [--cap 1GB] [--profile phone] [--context 2048] [--threads N] [--json]

The limit is on address space (RLIMIT_AS), so it needs Linux. It needs no privileges, it counts every page
of the mapped file whether touched or not, and an allocation beyond it fails at once. Under a cgroup limit
the kernel would drop pages of the weights and read them again for each token, so any limit would seem to
work.
"""

import argparse
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text
from thirteen.bench.harness.format import megabytes
from thirteen.bench.harness.from_json import from_json
from thirteen.bench.harness.isolated import print_outcome, run_in_subprocess
from thirteen.bench.harness.iteration import random_prompt
from thirteen.cli.console import progress_bar, show_report
from thirteen.convert.quantize.file_size import parse_file_size
from thirteen.errors import InsufficientMemoryError, ModelFileError, RequestError
from thirteen.files.gguf.header import read_header
from thirteen.files.progress import Progress, no_progress
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.prefix_cache import PREFIX_TOKENS_MIN
from thirteen.runtime.llama.gguf_checks import check_model
from thirteen.runtime.llama.memory_estimate import MemoryEstimate, estimate_memory, kv_bytes
from thirteen.runtime.profile import PROFILES
from thirteen.runtime.request import Request
from thirteen.runtime.threads import default_threads

QUESTIONS = (
    "Tom has 3 boxes of 12 eggs and breaks 5. How many are left?",
    "A pen costs $1.20. What do 3 pens cost?",
    "Ann reads 12 pages a day. How many pages does she read in 7 days?",
    "Sara had 20 dollars and spent 6. How much has she left?",
)
_ANSWER_TOKENS = 32
_PREFIX_FRACTION = 0.97  # of the prefix cache's capacity: a saved KV cache has a few extra bytes


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Settings of the engine.

    Attributes:
        profile: name of a profile.
        context: tokens of prompt and answer.
        threads: compute threads.
    """

    profile: str = "phone"
    context: int = 2048
    threads: int = 1


@dataclass(frozen=True, slots=True)
class LimitOutcome:
    """Outcome of an engine under a limit.

    Attributes:
        context: context length of the engine, in tokens.
        answers: number of answered questions.
        filled: whether it also filled its context and its prefix cache.
        peak_rss_bytes: peak resident set size.
        peak_address_bytes: peak address space.
    """

    context: int
    answers: int
    filled: bool
    peak_rss_bytes: int
    peak_address_bytes: int


def _run(model: Path, settings: LimitSettings, *, limit: int, fill: bool) -> LimitOutcome:
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with Engine(model, **asdict(settings)) as engine:
        questions = QUESTIONS if fill else QUESTIONS[:1]
        for question in questions:
            engine.answer(question, max_tokens=_ANSWER_TOKENS)
        if fill:
            _fill(engine)
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak_rss, peak_address = (int(status[name].split()[0]) << 10 for name in ("VmHWM", "VmPeak"))
        return LimitOutcome(engine.context, len(questions), fill, peak_rss, peak_address)


def _fill(engine: Engine) -> None:
    """Fill the context with one prompt, then overfill the prefix cache by one prompt."""
    profile = engine.profile
    bytes_per_token = kv_bytes(engine.model.header, profile, engine.context) / profile.slots / engine.context
    capacity = int(profile.prefix_bytes / bytes_per_token * _PREFIX_FRACTION)  # tokens
    lengths = [engine.context - 1]
    if capacity > PREFIX_TOKENS_MIN:
        length = min(capacity, engine.context - 1)
        lengths += [length] * (capacity // length + 1)
    for number, length in enumerate(lengths):
        prompt = random_prompt(engine.model, number, length)
        engine.submit(Request(prompt, 1), wait=True).answer()


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
        raise RequestError("needs Linux, whose address space limits it uses")
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
    """Run an engine in another process under a limit of `limit` bytes.

    Raises:
        InsufficientMemoryError: the engine refused to load.
        ModelFileError: the file is not a model, or the process died.
    """
    arguments = [f"--{name}={value}" for name, value in asdict(settings).items()]
    arguments += ["--worker", f"--cap={limit}", *(["--fill"] if fill else []), "--", str(model)]
    where = f"{model}: under a limit of {limit / 1e6:,.0f} MB"
    outcome = run_in_subprocess(
        __file__,
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


def main() -> None:
    """Print the smallest limit of a model; with --worker, run one engine under a limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--cap", default="1GB", help="with --worker: bytes")
    parser.add_argument("--profile", default="phone")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", action="store_true", help="used by this script itself")
    parser.add_argument("--fill", action="store_true", help="with --worker: fill context and prefix cache")
    given = parser.parse_args()
    settings = LimitSettings(given.profile, given.context, given.threads)
    if given.worker:
        work = partial(_run, given.model, settings, limit=int(given.cap), fill=given.fill)
        sys.exit(print_outcome(lambda: asdict(work())))
    cap_bytes = parse_file_size(given.cap).file_bytes(0)
    with progress_bar("memory") as progress:
        report = run_memory_limit(given.model, cap_bytes, settings, progress)
    show_report(given.json, report, lambda report: memory_limit_table(report, given.model))


if __name__ == "__main__":
    main()
