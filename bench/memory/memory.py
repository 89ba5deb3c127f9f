"""Load time, memory and energy of a model, each measured in a process of its own.

`python -m thirteen.bench.memory.memory FILE.gguf` prints the figures as JSON. In a shared process a second
model would reuse the memory that the first one freed.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.table import Table
from rich.text import Text

from ...errors import ModelFileError
from ...runtime.engine.engine import Engine
from ...runtime.engine.memory_estimate import kv_bytes
from ...runtime.llama.model import Model
from ...runtime.threads import physical_cores
from ..harness import isolated
from ..harness.format import NOT_AVAILABLE, megabytes, seconds
from ..harness.from_json import from_json
from ..harness.iteration import random_prompt, run_iteration, time_prefill_and_decode
from ..harness.workload import Workload, load_engine
from . import energy
from .energy import Energy
from .os_page_cache import drop_from_page_cache
from .resident_memory import Footprint, Resident, footprint, mapped_bytes, resident

# The fields of a Footprint, in words: the last five come to the first.
PARTS = {
    "rss_bytes": "resident after a turn, MB",
    "pss_bytes": "proportional set size, MB",
    "program_bytes": "  program, MB",
    "mapped_bytes": "  weights, mapped from the file, MB",
    "copied_bytes": "  weights, laid out anew, and vocabulary, MB",
    "kv_bytes": "  keys and values, MB",
    "other_bytes": "  buffers and the rest, MB",
}


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What one model took.

    Attributes:
        load_s: wall time from nothing to an engine that takes requests. Libraries are imported before, and
            the file is in the system's cache.
        warm_start_s: from nothing to the first token of the turn's prompt, the file in the cache.
        cold_start_s: likewise with a file that was not; None where the system would not let go of it.
        start_rss_bytes: the most that was resident before the load: Python, NumPy, llama.cpp. None where the
            system does not tell.
        peak_rss_bytes: the most that was resident up to the end of a turn: the above, the pages of the file
            that were touched, weights laid out anew, keys and values, buffers. None likewise.
        steady: what is resident after a turn, by what it is for; None likewise.
        energy: for a decoded token; None where the machine does not meter it.
    """

    load_s: float
    warm_start_s: float
    cold_start_s: float | None
    start_rss_bytes: int | None
    peak_rss_bytes: int | None
    steady: Footprint | None
    energy: Energy | None


def measure_memory(model: Path, adapter: Path | None, settings: Workload) -> MemoryUse:
    """Load a model, with an adapter or without, in a fresh process, and have it take a turn.

    Raises:
        ThirteenError: what loading the same files here would raise.
        ModelFileError: the process died, for example for want of memory.
    """
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(settings).items()]
    arguments += [] if adapter is None else [f"--adapter={adapter}"]
    arguments += ["--", str(model)]
    said = isolated.run_isolated(
        __name__,
        arguments,
        lambda status, last: ModelFileError(
            f"{model}: measuring its memory ended with status {status}: {last}"
        ),
    )
    return from_json(MemoryUse, said, f"{model}: its memory")


def _measure_here(model: Path, adapter: Path | None, settings: Workload) -> MemoryUse:
    start_rss_bytes, before = _peak_rss_bytes(), resident()
    copied = _copied_bytes(model)
    cold_start_s = _start_s(model, adapter, settings) if drop_from_page_cache(model) else None
    began = perf_counter()
    with load_engine(model, adapter, settings) as engine:
        load_s = perf_counter() - began
        warm_start_s = load_s + _first_token_s(engine, settings)
        run_iteration(engine, 0, settings)
        peak_rss_bytes, after = _peak_rss_bytes(), resident()
        steady = _split(engine, before, after, copied) if before and after else None
        return MemoryUse(
            load_s=load_s,
            warm_start_s=warm_start_s,
            cold_start_s=cold_start_s,
            start_rss_bytes=start_rss_bytes,
            peak_rss_bytes=peak_rss_bytes,
            steady=steady,
            energy=_energy(engine, settings),
        )


def _start_s(model: Path, adapter: Path | None, settings: Workload) -> float:
    """Seconds from nothing to a first token."""
    began = perf_counter()
    with load_engine(model, adapter, settings) as engine:
        loaded = perf_counter() - began
        return loaded + _first_token_s(engine, settings)


def _first_token_s(engine: Engine, settings: Workload) -> float:
    took, _ = time_prefill_and_decode(engine, random_prompt(engine.model, 0, settings.prompt_tokens), 1)
    return took


def _copied_bytes(model: Path) -> int:
    """By how much this process' own pages grow when the model is loaded, and nothing else."""
    before = resident()
    with Model(model):
        after = resident()
    return after.anonymous_bytes - before.anonymous_bytes if before and after else 0


def _split(engine: Engine, before: Resident, after: Resident, copied: int) -> Footprint:
    header = engine.model.header
    kv = kv_bytes(header, engine.profile, engine.context)
    return footprint(before, after, mapped_bytes(header.path), copied, kv)


def _energy(engine: Engine, settings: Workload) -> Energy | None:
    meter = energy.find_meter()
    if meter is None:
        return None
    prompt = random_prompt(engine.model, 0, 1)

    def decode() -> int:
        time_prefill_and_decode(engine, prompt, settings.decode_tokens)
        return 1 + settings.decode_tokens

    return energy.measure_energy(meter, decode)


def _peak_rss_bytes() -> int | None:
    """The most that was resident in this process so far.

    Linux says so since the program began (VmHWM). What getrusage says there can be the parent's peak, so it
    is asked on other systems only.
    """
    try:
        status = Path("/proc/self/status").read_text("utf-8")
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10  # bytes there, KiB elsewhere


def memory_table(memory: MemoryUse, model: Path) -> Table:
    """The figures, a row each."""
    out = Table("", title=Text(f"{model.name} in a process of its own"), title_justify="left", min_width=60)
    out.add_column("", justify="right")
    for row in memory_rows(memory):
        out.add_row(*row)
    return out


def memory_rows(memory: MemoryUse) -> Iterator[tuple[str, str]]:
    """What each figure is, and the figure."""
    yield "load, file in the cache, s", seconds(memory.load_s)
    yield "start to first token, file in the cache, s", seconds(memory.warm_start_s)
    yield "start to first token, file not in the cache, s", seconds(memory.cold_start_s)
    yield "peak resident, MB", megabytes(memory.peak_rss_bytes)
    for name, what in PARTS.items():
        yield what, megabytes(getattr(memory.steady, name, None))
    metered = memory.energy
    yield (
        "energy for a token, J",
        f"{metered.joules_per_token:.3f} ({metered.source})" if metered else NOT_AVAILABLE,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, metavar="FILE.gguf")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--longest", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    """Measure the model that the command line names; an error is JSON as well, with exit status 2."""
    given = _arguments()

    def measured() -> dict[str, Any]:
        settings = Workload(
            given.prompt_tokens, given.decode_tokens, given.threads, given.batch, given.longest
        )
        return asdict(_measure_here(given.model, given.adapter, settings))

    return isolated.print_outcome(measured)


if __name__ == "__main__":
    sys.exit(main())
