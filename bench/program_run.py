"""One run of an inference program in a fresh process: load time, memory, and the times of one answer.

`python -m thirteen.bench.program_run PROGRAM RUN` prints the figures as JSON. In a shared process a second
model would reuse the memory of the first, and two teams of threads would halve the speed of both.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import llama_cpp
import numpy as np
import psutil

from ..errors import FileError
from ..files.from_json import from_json
from .environment import ModelSource
from .workload import Workload, load_engine, random_prompt, time_answers


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """A program that loaded a model and answered.

    Attributes:
        version: its version.
        load_s: seconds to load the model, which is in the page cache.
        first_token_s: seconds from there to the first token of an answer.
        answer_s: seconds from there to the last token.
        peak_bytes: peak resident memory of the process; None where the system does not report it.
        mapped_bytes: of these, pages of the model file, which the system can drop and read again; None
            where the system does not report it.
        kv_bytes: of these, the KV cache; None if the program does not say.
    """

    version: str
    load_s: float
    first_token_s: float
    answer_s: float
    peak_bytes: int | None
    mapped_bytes: int | None
    kv_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Order:
    """What the process is asked to do: load the files and answer a prompt, whose seed is `number`."""

    model: Path
    adapter: Path | None
    work: Workload
    number: int


def run_program(program: str, source: ModelSource, work: Workload, number: int = 0) -> ProgramRun:
    """Load a model with a program and answer a random prompt, in a fresh process.

    Args:
        program: one of PROGRAMS.
        source: the files; only this engine takes an adapter.
        work: the prompt and the answer.
        number: seed of the prompt.

    Raises:
        FileError: the program failed, or its process died.
    """
    order = {"model": str(source.model), "adapter": source.adapter and str(source.adapter)}
    words = [program, json.dumps({**order, "work": asdict(work), "number": number})]
    done = subprocess.run(  # noqa: S603 - this package
        # -P: a folder in the caller's working directory must not shadow a package.
        [sys.executable, "-P", "-m", __name__, *words],
        capture_output=True,
        text=True,
        check=False,
        # Else ggml's abort() waits for a debugger, and a trial load would be part of what is measured.
        env={**os.environ, "GGML_NO_BACKTRACE": "1", "THIRTEEN_UNTRUSTED": "never"},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise FileError(f"{source.model}: {program} ended with status {done.returncode}: {last}")
    return from_json(ProgramRun, json.loads(done.stdout.splitlines()[-1]), f"{source.model}: {program}")


def _run_thirteen(order: _Order) -> ProgramRun:
    """This engine, with its own defaults but for context, threads and the prefix cache."""
    start = perf_counter()
    with load_engine(order.model, order.adapter, order.work) as engine:
        load_s = perf_counter() - start
        prompt = random_prompt(engine.model, order.number, order.work.prompt_tokens)
        first_token_s, answer_s = time_answers(engine, prompt, (1, 1 + order.work.decode_tokens))
        memory = _peak_bytes(), _mapped_bytes(order.model)
        kv_bytes = engine.plan.memory.kv_bytes
        return ProgramRun(version("thirteen"), load_s, first_token_s, answer_s, *memory, kv_bytes)


def _run_llama_cpp_python(order: _Order, *, flash_attn: bool = False) -> ProgramRun:
    """The generate loop of llama-cpp-python, with its own defaults but for context, threads and attention."""
    threads = order.work.threads
    start = perf_counter()
    llama = llama_cpp.Llama(
        str(order.model),
        n_ctx=order.work.context,
        n_threads=threads,
        n_threads_batch=threads,
        flash_attn=flash_attn,
        verbose=False,
    )
    load_s = perf_counter() - start
    random = np.random.default_rng(order.number)
    # The lower half of a vocabulary has few control tokens.
    prompt = random.integers(1, llama.n_vocab() // 2, order.work.prompt_tokens).tolist()
    generated = llama.generate(prompt, temp=0.0)
    start = perf_counter()
    next(generated)
    first_token_s = perf_counter() - start
    for _ in range(order.work.decode_tokens):
        next(generated)
    answer_s = perf_counter() - start
    memory = _peak_bytes(), _mapped_bytes(order.model)
    return ProgramRun(version("llama-cpp-python"), load_s, first_token_s, answer_s, *memory)


PROGRAMS: Mapping[str, Callable[[_Order], ProgramRun]] = {
    "thirteen": _run_thirteen,
    "llama-cpp-python": _run_llama_cpp_python,
    "llama-cpp-python flash_attn=True": lambda order: _run_llama_cpp_python(order, flash_attn=True),
}


def _peak_bytes() -> int | None:
    """Peak resident memory of this process.

    Linux counts it from the start of the program (VmHWM). Its getrusage can report the peak of the parent
    process, so getrusage is for other systems only.
    """
    if psutil.WINDOWS:
        return int(psutil.Process().memory_info().peak_wset)
    if psutil.LINUX and (found := re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text("utf-8"))):
        return int(found[1]) << 10
    import resource  # noqa: PLC0415 - not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if psutil.MACOS else peak << 10  # bytes on macOS, else KiB


def _mapped_bytes(path: Path) -> int | None:
    """Resident bytes of a file in the mappings of this process."""
    if not psutil.LINUX:
        return None
    maps = psutil.Process().memory_maps(grouped=False)
    return int(sum(one.rss for one in maps if one.path == str(path.resolve())))


def main(program: str, order: str) -> None:
    """Print a run."""
    print(json.dumps(asdict(PROGRAMS[program](from_json(_Order, json.loads(order), "order")))))


if __name__ == "__main__":
    main(*sys.argv[1:])
