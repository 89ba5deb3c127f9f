"""The smallest memory limit under which a model answers, and the error of the memory estimate.

python lab/memory_limit.py MODEL.gguf [--cap 1GB] [--profile phone] [--context 2048] [--threads N]

Under the smallest limit the engine then answers all questions, and fills its context and its prefix cache.

The limit is on address space (RLIMIT_AS), so it needs Linux. It needs no privileges, it counts every page
of the mapped file whether touched or not, and an allocation beyond it fails at once. Under a cgroup limit
the kernel would drop pages of the weights and read them again for each token, so any limit would seem to
work.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from thirteen.bench.workload import random_prompt
from thirteen.cli.console import facts_table, out, progress_bar
from thirteen.convert.fit_size import parse_file_size
from thirteen.errors import FileError
from thirteen.files.gguf.header import read_header
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.prefix_cache import PREFIX_TOKENS_MIN
from thirteen.runtime.engine_options import PROFILES, EngineOptions
from thirteen.runtime.machine import default_threads
from thirteen.runtime.memory import estimate_memory
from thirteen.runtime.options import Options, Request

QUESTIONS = (
    "Tom has 3 boxes of 12 eggs and breaks 5. How many are left?",
    "A pen costs $1.20. What do 3 pens cost?",
    "Ann reads 12 pages a day. How many pages does she read in 7 days?",
    "Sara had 20 dollars and spent 6. How much has she left?",
)
_ANSWER_TOKENS = 32
_PREFIX_FRACTION = 0.97  # of the prefix cache's capacity: a saved KV cache has a few extra bytes
_RESOLUTION = 1_000_000  # bytes between the smallest limit that works and one that fails
# One malloc arena and no BLAS threads: both reserve address space that is never used. ggml's abort() must not
# wait for a debugger, and a trial load would be part of what is measured.
_ENVIRONMENT = {
    **{"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"},
    **{"GGML_NO_BACKTRACE": "1", "THIRTEEN_UNTRUSTED": "never"},
}


def work(given: argparse.Namespace) -> dict[str, int]:
    """Run an engine under a limit; the peaks of its resident memory and its address space in bytes."""
    limit = int(given.cap)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    settings = {name: getattr(given, name) for name in ("profile", "context", "threads")}
    with Engine(given.model, **settings) as engine:
        for question in QUESTIONS if given.fill else QUESTIONS[:1]:
            engine.answer(question, max_tokens=_ANSWER_TOKENS)
        if given.fill:
            fill(engine)
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return {name: int(status[name].split()[0]) << 10 for name in ("VmHWM", "VmPeak")}


def fill(engine: Engine) -> None:
    """Fill the context with one prompt, then overfill the prefix cache by one prompt."""
    settings, kv_bytes = engine.plan.settings, engine.plan.memory.kv_bytes
    bytes_per_token = kv_bytes / settings.slots / settings.context
    capacity = int(settings.prefix_bytes / bytes_per_token * _PREFIX_FRACTION)  # tokens
    lengths = [engine.context - 1]
    if capacity > PREFIX_TOKENS_MIN:
        length = min(capacity, engine.context - 1)
        lengths += [length] * (capacity // length + 1)
    for number, length in enumerate(lengths):
        prompt = random_prompt(engine.model, number, length)
        engine.submit(Request(prompt, Options(max_tokens=1)), wait=True).answer()


def run(given: argparse.Namespace, limit: int, *options: str) -> dict[str, int] | None:
    """The outcome of work() in another process; None if it did not fit."""
    settings = [f"--{name}={getattr(given, name)}" for name in ("profile", "context", "threads")]
    words = ["--worker", f"--cap={limit}", *settings, *options, "--", str(given.model)]
    done = subprocess.run(
        [sys.executable, "-P", __file__, *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | _ENVIRONMENT,
    )
    peaks: dict[str, int] | None = None if done.returncode else json.loads(done.stdout)
    return peaks


def smallest_limit(given: argparse.Namespace, too_small: int, enough: int) -> int:
    """Bisect between a limit that is too small and one that is enough."""
    steps = ((enough - too_small) // _RESOLUTION).bit_length()
    with progress_bar("memory") as progress:
        for step in range(steps):
            middle = (too_small + enough) // 2
            progress(step, steps)
            if run(given, middle):
                enough = middle
            else:
                too_small = middle
    return enough


def main() -> None:
    """Print the smallest limit of a model; with --worker, run one engine under a limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--cap", default="1GB", help="with --worker: bytes")
    parser.add_argument("--profile", default="phone", choices=PROFILES)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--worker", action="store_true", help="used by this script itself")
    parser.add_argument("--fill", action="store_true", help="with --worker: fill context and prefix cache")
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(work(given)))
        return
    options = EngineOptions(profile=given.profile, context=given.context)
    cap, header = parse_file_size(given.cap).file_bytes(0), read_header(given.model)
    need = estimate_memory(header, options.settings())
    if not run(given, cap):
        raise FileError(f"{given.model}: does not run under {given.cap}")
    limit = smallest_limit(given, header.file_bytes, cap)
    while not (peaks := run(given, limit, "--fill")):
        limit += _RESOLUTION  # address space varies by a few pages from run to run
    rows = {
        "smallest limit that works": limit,
        "peak resident": peaks["VmHWM"],
        "peak address space": peaks["VmPeak"],
        f"estimate ({need.total_bytes / peaks['VmHWM'] - 1:+.1%})": need.total_bytes,
        **{f"  {name.removesuffix('_bytes')}": nbytes for name, nbytes in asdict(need).items()},
    }
    out.print(facts_table({name: f"{nbytes / 1e6:,.1f} MB" for name, nbytes in rows.items()}))


if __name__ == "__main__":
    main()
