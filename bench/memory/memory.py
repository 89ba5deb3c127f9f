"""Load time, resident memory and energy of a model, measured in a fresh process.

`python -m thirteen.bench.memory.memory FILE.gguf` prints the figures as JSON. In a shared process a second
model would reuse the memory that the first one freed.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import perf_counter

from rich.table import Table
from rich.text import Text

from ...errors import ModelFileError
from ...runtime.engine.engine import Engine
from ...runtime.llama.memory_estimate import kv_bytes
from ...runtime.llama.model import Model
from ..harness.energy import Energy, find_energy_meter, measure_energy
from ..harness.format import NOT_AVAILABLE, megabytes, seconds
from ..harness.from_json import from_json
from ..harness.isolated import print_outcome, run_in_subprocess
from ..harness.iteration import random_prompt, run_iteration, time_prefill_and_decode
from ..harness.peak_memory import peak_rss_bytes
from ..harness.workload import Workload, load_engine
from .os_page_cache import drop_from_page_cache
from .resident_memory import (
    Footprint,
    ResidentMemory,
    read_resident_memory,
    resident_file_bytes,
    split_footprint,
)

# Row titles by field of Footprint; the indented ones sum to rss_bytes.
FOOTPRINT_LABELS = {
    "rss_bytes": "resident after an iteration, MB",
    "pss_bytes": "proportional set size, MB",
    "program_bytes": "  program, MB",
    "mapped_bytes": "  weights, mapped from the file, MB",
    "copied_bytes": "  repacked weights and vocabulary, MB",
    "kv_bytes": "  KV cache, MB",
    "other_bytes": "  buffers and the rest, MB",
}


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Load time, memory and energy of one model.

    Attributes:
        load_s: wall time to load an engine that accepts requests. The libraries are imported before, and the
            file is in the page cache.
        warm_start_s: wall time from the start of the load to the first token, the file in the page cache.
        cold_start_s: the same time with the file dropped from the page cache; None where the system keeps it.
        start_rss_bytes: peak RSS before the load: Python, NumPy, llama.cpp. None where the system does not
            report it.
        peak_rss_bytes: peak RSS up to the end of an iteration: the above, touched pages of the file, repacked
            weights, KV cache, buffers. None where the system does not report it.
        steady: resident memory after an iteration by use; None where the system does not report it.
        energy: energy per decoded token; None without a meter, or if a battery did not discharge throughout.
    """

    load_s: float
    warm_start_s: float
    cold_start_s: float | None
    start_rss_bytes: int | None
    peak_rss_bytes: int | None
    steady: Footprint | None
    energy: Energy | None


def measure_memory(model: Path, adapter: Path | None, workload: Workload) -> MemoryUse:
    """Load a model, optionally with an adapter, in a fresh process and run one iteration.

    Raises:
        ThirteenError: load_engine() raises it for the same files.
        ModelFileError: the process died, for example because memory ran out.
    """
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(workload).items()]
    arguments += [] if adapter is None else [f"--adapter={adapter}"]
    outcome = run_in_subprocess(
        __name__,
        [*arguments, "--", str(model)],
        lambda status, last: ModelFileError(
            f"{model}: the memory measurement ended with exit status {status}: {last}"
        ),
    )
    return from_json(MemoryUse, outcome, f"{model}: memory measurement")


def _measure_in_worker(model: Path, adapter: Path | None, workload: Workload) -> MemoryUse:
    start_rss_bytes, before = peak_rss_bytes(), read_resident_memory()
    copied = _copied_bytes(model)
    cold_start_s = _start_s(model, adapter, workload) if drop_from_page_cache(model) else None
    start = perf_counter()
    with load_engine(model, adapter, workload) as engine:
        load_s = perf_counter() - start
        warm_start_s = load_s + _first_token_s(engine, workload)
        run_iteration(engine, 0, workload)
        peak, after = peak_rss_bytes(), read_resident_memory()
        return MemoryUse(
            load_s=load_s,
            warm_start_s=warm_start_s,
            cold_start_s=cold_start_s,
            start_rss_bytes=start_rss_bytes,
            peak_rss_bytes=peak,
            steady=_footprint(engine, before, after, copied) if before and after else None,
            energy=_energy(engine, workload),
        )


def _start_s(model: Path, adapter: Path | None, workload: Workload) -> float:
    """Seconds from the start of the load to the first token."""
    start = perf_counter()
    with load_engine(model, adapter, workload) as engine:
        load_s = perf_counter() - start
        return load_s + _first_token_s(engine, workload)


def _first_token_s(engine: Engine, workload: Workload) -> float:
    prompt = random_prompt(engine.model, 0, workload.prompt_tokens)
    return time_prefill_and_decode(engine, prompt, 1)[0]


def _copied_bytes(model: Path) -> int:
    """Growth of anonymous memory when only the model is loaded."""
    before = read_resident_memory()
    with Model(model):
        after = read_resident_memory()
    return after.anonymous_bytes - before.anonymous_bytes if before and after else 0


def _footprint(engine: Engine, before: ResidentMemory, after: ResidentMemory, copied: int) -> Footprint:
    header = engine.model.header
    kv = kv_bytes(header, engine.profile, engine.context)
    return split_footprint(before, after, resident_file_bytes(header.path), copied, kv)


def _energy(engine: Engine, workload: Workload) -> Energy | None:
    meter = find_energy_meter()
    if meter is None:
        return None
    prompt = random_prompt(engine.model, 0, 1)

    def decode() -> int:
        time_prefill_and_decode(engine, prompt, workload.decode_tokens)
        return 1 + workload.decode_tokens

    return measure_energy(meter, decode)


def memory_table(memory: MemoryUse, model: Path) -> Table:
    """Table of memory_rows()."""
    table = Table("", title=Text(f"{model.name} in a fresh process"), title_justify="left", min_width=60)
    table.add_column("", justify="right")
    for row in memory_rows(memory):
        table.add_row(*row)
    return table


def memory_rows(memory: MemoryUse) -> Iterator[tuple[str, str]]:
    """Pairs of a row title and its formatted figure."""
    yield "load (file cached), s", seconds(memory.load_s)
    yield "warm start to first token (file cached), s", seconds(memory.warm_start_s)
    yield "cold start to first token (file not cached), s", seconds(memory.cold_start_s)
    yield "peak resident, MB", megabytes(memory.peak_rss_bytes)
    for name, label in FOOTPRINT_LABELS.items():
        yield label, megabytes(getattr(memory.steady, name, None))
    energy = memory.energy
    yield (
        "energy per token, J",
        f"{energy.joules_per_token:.3f} ({energy.source})" if energy else NOT_AVAILABLE,
    )


def _parse_bool(text: str) -> bool:
    return text == "True"


def main() -> int:
    """Measure the model given on the command line; errors are JSON too, with exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, metavar="FILE.gguf")
    parser.add_argument("--adapter", type=Path)
    for field in fields(Workload):
        option = f"--{field.name.replace('_', '-')}"
        parse = _parse_bool if field.type is bool else int
        parser.add_argument(option, type=parse, default=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    model, adapter = options.pop("model"), options.pop("adapter")
    return print_outcome(lambda: asdict(_measure_in_worker(model, adapter, Workload(**options))))


if __name__ == "__main__":
    sys.exit(main())
