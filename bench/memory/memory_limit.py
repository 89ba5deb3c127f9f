"""Whether a model answers within a cap of memory, what the smallest cap is, and how good the estimate was."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ...errors import ModelFileError, NoRoomError, RequestError
from ...files.gguf_header import read_header
from ...files.progress import Progress, no_progress
from ...runtime.engine.memory_estimate import MemoryEstimate, estimate_memory
from ...runtime.llama.gguf_checks import check_model
from ...runtime.profile import PROFILES
from ..harness import isolated
from ..harness.from_json import from_json
from .memory_limit_worker import LimitOutcome, LimitSettings

_GRAIN = 1_000_000  # bytes between the smallest cap that works and one that does not
# One heap for all threads, and no threads of the linear algebra that the engine does not use: else they
# reserve address space that is never filled.
_LEAN = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
NEED = {
    "program_bytes": "  Python and libraries, MB",
    "weights_bytes": "  weights, MB",
    "copied_bytes": "  weights laid out anew, MB",
    "vocabulary_bytes": "  vocabulary, MB",
    "kv_bytes": "  keys and values, MB",
    "buffer_bytes": "  buffers, MB",
    "prefix_bytes": "  kept beginnings of prompts, at most, MB",
}


@dataclass(frozen=True, slots=True)
class MemoryLimitReport:
    """What a model did under a cap.

    Attributes:
        cap_bytes: of address space.
        profile: the room that it was given.
        need: the estimate, from the file's header.
        answered: what it did under the smallest cap; None where it refused this one.
        refusal: what it said then.
        smallest_bytes: the smallest cap under which it answered, to a megabyte; None where it refused.
        error: the estimate against the peak that was resident: 0.03 is 3 % too much. None likewise.
    """

    cap_bytes: int
    profile: str
    need: MemoryEstimate
    answered: LimitOutcome | None
    refusal: str | None
    smallest_bytes: int | None
    error: float | None


def run_memory_limit(
    model: Path, cap_bytes: int, trial: LimitSettings, progress: Progress = no_progress
) -> MemoryLimitReport:
    """Look for the smallest cap that will do, up to one; under that, answer questions and fill the context.

    Raises:
        ModelFileError: the file is no model, or the process died under a cap instead of refusing it.
        RequestError: no such profile, or the system has no limits of address space.
    """
    if sys.platform != "linux":
        raise RequestError("bench memory --cap: needs Linux, whose limits of address space it uses")
    if trial.profile not in PROFILES:
        raise RequestError(f"profile: {trial.profile!r} is not one of {', '.join(PROFILES)}")
    header = read_header(model)
    check_model(header)
    told = estimate_memory(header, replace(PROFILES[trial.profile], context=trial.context))
    probe = partial(answer_under_limit, model, trial=trial, fill=False)
    try:
        probe(cap_bytes)
    except NoRoomError as refusal:
        return MemoryLimitReport(cap_bytes, trial.profile, told, None, str(refusal), None, None)
    smallest = _smallest(probe, (header.file_bytes, cap_bytes), progress)
    while True:
        try:
            answered = answer_under_limit(model, smallest, trial, fill=True)
            break
        except NoRoomError:  # a process' own address space is not the same to the page from run to run
            smallest += _GRAIN
    error = told.total_bytes / answered.peak_rss_bytes - 1
    return MemoryLimitReport(cap_bytes, trial.profile, told, answered, None, smallest, error)


def answer_under_limit(model: Path, cap: int, trial: LimitSettings, *, fill: bool) -> LimitOutcome:
    """Have a model answer under a cap, in a process of its own; see capped.py.

    Raises:
        NoRoomError: it refused.
        ModelFileError: the file is no model, or the process died.
    """
    arguments = [f"--{name}={value}" for name, value in asdict(trial).items()]
    arguments += [f"--cap={cap}", *(["--fill"] if fill else [])]

    def died(status: int, last: str) -> ModelFileError:
        return ModelFileError(f"{model}: under a cap of {cap / 1e6:,.0f} MB it died ({status}): {last}")

    said = isolated.run_isolated(
        "thirteen.bench.memory.memory_limit_worker", [*arguments, "--", str(model)], died, _LEAN
    )
    return from_json(LimitOutcome, said, f"{model}: under a cap")


def _smallest(answers: Callable[[int], object], between: tuple[int, int], progress: Progress) -> int:
    """Halve what lies between a cap that is refused and one that works, until they are neighbours."""
    refused, works = between
    steps = ((works - refused) // _GRAIN).bit_length()
    for step in range(steps):
        middle = (refused + works) // 2
        progress(step, steps)
        try:
            answers(middle)
            works = middle
        except NoRoomError:
            refused = middle
    return works


def memory_limit_table(report: MemoryLimitReport, model: Path) -> Table:
    """The figures, a row each."""
    out = Table("", title=Text(f"{model.name}, {report.profile}"), title_justify="left", min_width=60)
    out.add_column("", justify="right")
    out.add_row("cap of address space, MB", _mb(report.cap_bytes))
    if report.smallest_bytes is not None:
        out.add_row("smallest cap that works, MB", _mb(report.smallest_bytes))
    if report.answered:
        done = report.answered
        out.add_row("answered under that", f"{done.answers} questions, context of {done.context} filled")
        out.add_row("peak resident, MB", _mb(done.peak_rss_bytes))
        out.add_row("peak address space, MB", _mb(done.peak_address_bytes))
    else:
        out.add_row("refused before loading", Text(report.refusal or ""))
    told = "" if report.error is None else f" ({report.error:+.1%})"
    out.add_row("estimate, MB", _mb(report.need.total_bytes) + told)
    for field in fields(report.need):
        out.add_row(NEED[field.name], _mb(getattr(report.need, field.name)))
    return out


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f}"
