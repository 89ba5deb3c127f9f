"""Costs of the types on this processor, measured once for all plans."""

import json
import logging
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from ...convert.quantize.costs import CostTable, costs_for, host_target, read_costs
from ...errors import FileError, OutputError
from ...files.cache_folder import cache_dir
from ...files.progress import Progress, no_progress
from ...runtime.machine.threads import default_threads
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
_log = logging.getLogger(__name__)


def machine_costs(progress: Progress = no_progress) -> CostTable:
    """The cost table of this processor; measured on first use, in one to two minutes.

    Where it cannot be measured, because the disk has no room for its models or other programs disturb it, it
    is the shipped table for the processor's kind.

    Args:
        progress: called with steps done and in all.

    Raises:
        FileError: this build cannot run one of the types.
    """
    try:
        path = costs_file()
        with suppress(FileError):  # nothing was measured, or the file is damaged
            return read_costs(path)
        _measure_costs(path, progress)
        return read_costs(path)
    except OutputError as error:
        target = host_target()
        _log.warning("costs of types are not measured: %s; those for %s are used", error, target)
        return costs_for(target)


def _measure_costs(path: Path, progress: Progress) -> None:
    """Measure the costs and save them, unless other programs make them too uncertain."""
    report = run_type_costs(types=_TYPES, rounds=_ROUNDS, shape=_SHAPE, progress=progress)
    noisy = [cost.type for cost in report.costs if cost.layer.ratio.half_width > _HALF_WIDTH_MAX]
    if len(noisy) > _NOISY_MAX * len(report.costs):
        raise OutputError(f"{', '.join(noisy)}: too noisy; close other programs")
    write_costs(report, path)


def costs_file() -> Path:
    """Where the measured costs of this processor are kept."""
    key = speed_environment() | {"threads": default_threads()}
    return cache_dir() / f"costs-{sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
