"""Load time and resident memory of a model, measured in a fresh process.

`python -m thirteen.bench.memory.memory WORKLOAD FILE.gguf` prints the figures as JSON. In a shared process a
second model would reuse the memory that the first one freed.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import perf_counter

from ...errors import FileError
from ...files.from_json import from_json
from ...quality.environment import ModelFile, describe_model
from ...quality.workload import Workload, load_engine, random_prompt, time_prefill_and_decode
from ...runtime.engine.engine import Engine
from ...runtime.llama.model import Model
from ..harness.format import Table, megabytes, seconds
from ..harness.isolated import print_outcome, run_in_subprocess
from ..harness.system_memory import (
    ResidentMemory,
    drop_from_page_cache,
    peak_rss_bytes,
    read_resident_memory,
    resident_file_bytes,
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
class Footprint:
    """Resident memory of a loaded model after an iteration; the last five fields sum to `rss_bytes`.

    Attributes:
        rss_bytes: resident set size.
        pss_bytes: proportional set size.
        program_bytes: resident before the load: Python, NumPy, llama.cpp.
        mapped_bytes: touched pages of the model file. The system can drop them and read them again.
        copied_bytes: growth of anonymous memory when only the model is loaded: weights repacked for this
            processor, and the vocabulary.
        kv_bytes: the KV cache, computed from the model's shapes and the profile.
        other_bytes: the rest: compute buffers, adapters, Python objects. Negative where the system reclaimed
            pages of the program.
    """

    rss_bytes: int
    pss_bytes: int
    program_bytes: int
    mapped_bytes: int
    copied_bytes: int
    kv_bytes: int
    other_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Load time and memory of one model.

    Attributes:
        load_s: wall time to load an engine that accepts requests. The libraries are imported before, and the
            file is in the page cache.
        warm_start_s: wall time from the start of the load to the first token, the file in the page cache.
        cold_start_s: the same time with the file dropped from the page cache; None where the system keeps it.
        peak_rss_bytes: peak RSS up to the end of an iteration: Python, NumPy, llama.cpp, touched pages of the
            file, repacked weights, KV cache, buffers. None where the system does not report it.
        steady: resident memory after an iteration by use; None where the system does not report it.
    """

    load_s: float
    warm_start_s: float
    cold_start_s: float | None
    peak_rss_bytes: int | None
    steady: Footprint | None


@dataclass(frozen=True, slots=True)
class MeasuredModel(ModelFile):
    """A model with its load time and memory, measured in a fresh process."""

    memory: MemoryUse


def measure_model(model: Path, adapter: Path | None, workload: Workload) -> MeasuredModel:
    """Describe the files, then measure load time and memory; the load finds the files in the page cache.

    Raises:
        ThirteenError: measure_memory() raises it, or a file cannot be read.
    """
    file = describe_model(model, adapter)
    values = {field.name: getattr(file, field.name) for field in fields(file)}
    return MeasuredModel(**values, memory=measure_memory(model, adapter, workload))


def measure_memory(model: Path, adapter: Path | None, workload: Workload) -> MemoryUse:
    """Load a model, optionally with an adapter, in a fresh process and run one iteration.

    It is loaded here first: the first engine for a model's shape measures what is fastest, and saves it.

    Raises:
        ThirteenError: load_engine() raises it for the same files.
        FileError: the process died, for example because memory ran out.
    """
    load_engine(model, adapter, workload).close()
    outcome = run_in_subprocess(
        __name__,
        [json.dumps(asdict(workload)), str(model), *([str(adapter)] if adapter else [])],
        lambda status, last: FileError(
            f"{model}: the memory measurement ended with exit status {status}: {last}"
        ),
    )
    return from_json(MemoryUse, outcome, f"{model}: memory measurement")


def _measure_in_worker(model: Path, adapter: Path | None, workload: Workload) -> MemoryUse:
    before = read_resident_memory()
    copied = _copied_bytes(model)
    cold_start_s = _start_s(model, adapter, workload) if drop_from_page_cache(model) else None
    start = perf_counter()
    with load_engine(model, adapter, workload) as engine:
        load_s = perf_counter() - start
        warm_start_s = load_s + _first_token_s(engine, workload)
        prompt = random_prompt(engine.model, 0, workload.prompt_tokens)
        time_prefill_and_decode(engine, prompt, workload.decode_tokens)
        engine.answer("What is 100 times 13?", max_tokens=1)
        peak, after = peak_rss_bytes(), read_resident_memory()
        return MemoryUse(
            load_s=load_s,
            warm_start_s=warm_start_s,
            cold_start_s=cold_start_s,
            peak_rss_bytes=peak,
            steady=_footprint(engine, before, after, copied) if before and after else None,
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
    mapped, kv = resident_file_bytes(header.path), engine.plan.memory.kv_bytes
    return Footprint(
        rss_bytes=after.rss_bytes,
        pss_bytes=after.pss_bytes,
        program_bytes=before.rss_bytes,
        mapped_bytes=mapped,
        copied_bytes=copied,
        kv_bytes=kv,
        other_bytes=after.rss_bytes - (before.rss_bytes + mapped + copied + kv),
    )


def memory_table(memory: MemoryUse, model: Path) -> Table:
    """Table of memory_rows()."""
    return Table(f"{model.name} in a fresh process", ("", ""), tuple(memory_rows(memory)))


def memory_rows(memory: MemoryUse) -> Iterator[tuple[str, str]]:
    """Pairs of a row title and its formatted figure."""
    yield "load (file cached), s", seconds(memory.load_s)
    yield "warm start to first token (file cached), s", seconds(memory.warm_start_s)
    yield "cold start to first token (file not cached), s", seconds(memory.cold_start_s)
    yield "peak resident, MB", megabytes(memory.peak_rss_bytes)
    for name, label in FOOTPRINT_LABELS.items():
        yield label, megabytes(getattr(memory.steady, name, None))


def main(workload: str, model: str, adapter: str | None = None) -> int:
    """Measure a model with a workload in JSON; errors are JSON too, with exit status 2."""
    work = Workload(**json.loads(workload))
    return print_outcome(
        lambda: asdict(_measure_in_worker(Path(model), Path(adapter) if adapter else None, work))
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
