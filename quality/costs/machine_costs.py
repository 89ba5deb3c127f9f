"""Costs of the types on this processor, measured once for all plans in each library that may run the file.

Another library than llama.cpp is timed in a process of its own: an abort there costs no more than the costs.
"""

import json
import logging
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...convert.quantize.costs import CostTable, costs_for, host_target, read_costs
from ...errors import FileError, InsufficientMemoryError, OutputError, ThirteenError
from ...files.cache_folder import record_file
from ...files.progress import Progress, no_progress
from ...runtime.llama.load_probe import WORKER, last_reply, run_worker, signal_name
from ...runtime.machine.threads import default_threads
from ...runtime.native.ik_llama_library import check_package, installed
from ...runtime.native.settings import LIBRARIES, library_version
from ...runtime.plan.options import EngineOptions, requested_library
from ...runtime.plan.tuning import speed_environment
from .random_model import ProbeShape
from .type_costs import run_type_costs, write_costs

# Types that a plan may use: for each number of bits those that are small, and those that are quick somewhere.
_TYPES = (
    *("Q2_K", "IQ3_XXS", "Q3_K", "IQ3_S", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K"),
    *("Q5_0", "Q5_K", "Q6_K", "Q8_0"),
)
_ROUNDS = 20
_SHAPE = ProbeShape(layers=2, vocabulary=1 << 15)  # still larger than most caches
_HALF_WIDTH_MAX, _NOISY_MAX = 0.15, 0.25  # of a cost's ratio to Q4_K; share of types that may exceed it
_TOGETHER = 7  # types; ik_llama.cpp keeps no more than 21 models loaded, two of each type
_WALL_S = 1200  # of a measurement elsewhere
_PROGRAM = WORKER.format("quality.costs.machine_costs")
_log = logging.getLogger(__name__)


def library_costs(library: str | None, progress: Progress = no_progress) -> list[CostTable]:
    """The costs in each library that may run a file here, llama.cpp's first.

    Args:
        library: the one that shall; by default the environment says, or both may, where ik is installed.
        progress: see machine_costs().

    Raises:
        RequestError: there is no such library.
        FileError: it is not installed, or machine_costs() raises it.
    """
    if name := requested_library(EngineOptions(library=library)):
        if name != LIBRARIES[0]:
            check_package()
        return [machine_costs(progress, name)]
    tables = [machine_costs(progress)]
    if installed() and costs_file().exists():  # else these are no nanoseconds of this processor
        tables.append(machine_costs(progress, LIBRARIES[1]))
    return tables


def machine_costs(progress: Progress = no_progress, library: str = LIBRARIES[0]) -> CostTable:
    """The cost table of this processor; measured on first use, in one to two minutes.

    Where it cannot be measured, because disk or memory has no room for its models or other programs disturb
    it, it is the shipped table for the processor's kind, and for another library llama.cpp's.

    Args:
        progress: called with steps done and in all.
        library: what computes.

    Raises:
        FileError: this build cannot run one of the types.
    """
    try:
        path = costs_file(library)
        with suppress(FileError):  # nothing was measured, or the file is damaged
            return read_costs(path)
        if library == LIBRARIES[0]:
            _measure_costs(path, library, progress)
        else:
            _measure_elsewhere(path, library)
        return read_costs(path)
    except (OutputError, InsufficientMemoryError) as error:
        if library != LIBRARIES[0]:
            _log.warning("costs of types in %s are not measured: %s; llama.cpp's are used", library, error)
            return machine_costs(progress)
        target = host_target()
        _log.warning("costs of types are not measured: %s; those for %s are used", error, target)
        return costs_for(target)


def _measure_costs(path: Path, library: str, progress: Progress = no_progress) -> None:
    """Measure the costs and save them, unless other programs make them too uncertain."""
    engine = EngineOptions(library=library)
    count = len(_TYPES) if library == LIBRARIES[0] else _TOGETHER
    report, *others = (
        run_type_costs(types=types, rounds=_ROUNDS, engine=engine, shape=_SHAPE, progress=progress)
        for types in (_TYPES[at : at + count] for at in range(0, len(_TYPES), count))
    )
    for other in others:  # each has the reference first
        report = replace(report, costs=(*report.costs, *other.costs[1:]))
    noisy = [cost.type for cost in report.costs if cost.layer.ratio.half_width > _HALF_WIDTH_MAX]
    if len(noisy) > _NOISY_MAX * len(report.costs):
        raise OutputError(f"{', '.join(noisy)}: too noisy; close other programs")
    write_costs(report, path)


def _measure_elsewhere(path: Path, library: str) -> None:
    """Measure and save the costs in a process of its own.

    Raises:
        OutputError: that is not possible; the message says why.
    """
    try:
        done = run_worker(_PROGRAM, path, library, timeout=_WALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OutputError(str(error)) from None
    if status := done.returncode:
        end = f"exit status {status}" if status > 0 else signal_name(-status)
        raise OutputError(last_reply(done.stdout).get("error", f"the measurement ended with {end}"))


def main() -> None:
    """Measure costs into a file; the arguments are its path and the library. The status of an error is 2."""
    try:
        _measure_costs(Path(sys.argv[1]), sys.argv[2])
    except ThirteenError as error:
        sys.stdout.buffer.write(json.dumps({"error": str(error)}).encode() + b"\n")
        sys.exit(2)


def costs_file(library: str = LIBRARIES[0]) -> Path:
    """Where the measured costs of this processor are kept."""
    key = speed_environment() | {"threads": default_threads()}
    if library != LIBRARIES[0]:
        key["library"] = f"{library} {library_version(library)}"
    return record_file("costs", key)
