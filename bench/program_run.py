"""One run of an inference program in a fresh process: load time, memory, and the times of one answer.

`python -m thirteen.bench.program_run ORDER` prints the figures as JSON. In a shared process a second model
would reuse the memory of the first, and two teams of threads would halve the speed of both.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import llama_cpp
import numpy as np
import psutil

from ..errors import FileError
from .environment import ModelSource
from .workload import Workload, load_engine, random_prompt, time_answers


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """A program that loaded a model, which is in the page cache, and answered.

    Seconds of an answer begin where loading ends. The peak of memory includes pages of the model file.
    """

    version: str
    load_s: float
    first_token_s: float
    answer_s: float
    peak_bytes: int


def run_program(program: str, source: ModelSource, work: Workload, number: int = 0) -> ProgramRun:
    """Load a model with one of PROGRAMS and answer a random prompt, in a fresh process.

    Raises:
        FileError: the program failed, or its process died.
    """
    order = json.dumps([program, asdict(source), asdict(work), number], default=str)
    done = subprocess.run(  # noqa: S603 - this package
        # -P: a folder in the caller's working directory must not shadow a package.
        [sys.executable, "-P", "-m", __name__, order],
        capture_output=True,
        text=True,
        check=False,
        # Else ggml's abort() waits for a debugger, and a trial load would be part of what is measured.
        env={**os.environ, "GGML_NO_BACKTRACE": "1", "THIRTEEN_UNTRUSTED": "never"},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise FileError(f"{source.model}: {program} ended with status {done.returncode}: {last}")
    return ProgramRun(**json.loads(done.stdout.splitlines()[-1]))


def _run_thirteen(source: ModelSource, work: Workload, number: int) -> ProgramRun:
    """This engine, with its own defaults but for context, threads and the prefix cache."""
    start = perf_counter()
    with load_engine(source, work) as engine:
        load_s = perf_counter() - start
        prompt = random_prompt(engine.model, number, work.prompt_tokens)
        first_token_s, answer_s = time_answers(engine, prompt, (1, 1 + work.decode_tokens))
        return ProgramRun(version("thirteen"), load_s, first_token_s, answer_s, _peak_bytes())


def _run_llama_cpp_python(
    source: ModelSource, work: Workload, number: int, *, flash_attn: bool = False
) -> ProgramRun:
    """The generate loop of llama-cpp-python, with its own defaults but for context, threads and attention."""
    start = perf_counter()
    llama = llama_cpp.Llama(
        str(source.model),
        n_ctx=work.context,
        n_threads=work.threads,
        n_threads_batch=work.threads,
        flash_attn=flash_attn,
        verbose=False,
    )
    load_s = perf_counter() - start
    random = np.random.default_rng(number)
    # The lower half of a vocabulary has few control tokens.
    prompt = random.integers(1, llama.n_vocab() // 2, work.prompt_tokens).tolist()
    generated = llama.generate(prompt, temp=0.0)
    start = perf_counter()
    next(generated)
    first_token_s = perf_counter() - start
    for _ in range(work.decode_tokens):
        next(generated)
    answer_s = perf_counter() - start
    return ProgramRun(version("llama-cpp-python"), load_s, first_token_s, answer_s, _peak_bytes())


PROGRAMS: Mapping[str, Callable[[ModelSource, Workload, int], ProgramRun]] = {
    "thirteen": _run_thirteen,
    "llama-cpp-python": _run_llama_cpp_python,
    "llama-cpp-python flash_attn=True": partial(_run_llama_cpp_python, flash_attn=True),
}


def _peak_bytes() -> int:
    """Peak resident memory of this process."""
    # Linux counts it from the start of the program (VmHWM); its getrusage can report the parent process's.
    if psutil.WINDOWS:
        return int(psutil.Process().memory_info().peak_wset)
    if psutil.LINUX and (found := re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text("utf-8"))):
        return int(found[1]) << 10
    import resource  # noqa: PLC0415 - not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if psutil.MACOS else peak << 10  # bytes on macOS, else KiB


def _main(program: str, source: dict[str, Any], work: dict[str, Any], number: int) -> None:
    run = PROGRAMS[program](ModelSource(**source), Workload(**work), number)
    print(json.dumps(asdict(run)))


if __name__ == "__main__":
    _main(*json.loads(sys.argv[1]))
