"""llama.cpp for Arm under qemu-user, with every type that a plan for Arm may choose (`make arm`).

The source comes from the archive of the installed llama-cpp-python, so the version is the same. An emulator
says nothing about speed. It shows that the files load, which kernels they get, and that the results agree.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from thirteen.convert.quantize.costs import costs_for
from thirteen.files.gguf.header import read_header
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.settings import Settings
from thirteen.runtime.memory import REPACKED_TYPES, repacked_bytes
from thirteen.stats import Floats

from .cross_build import build_program, missing_tools

pytestmark = pytest.mark.arm

QUESTION = "What is the capital of France?"
COUNT = 8  # tokens
# The last digits of a logit depend on the order of summation and decide near ties: on x86 too, with and
# without repacked weights. So each token must be about as likely here as the one that the other layout would
# choose. A kernel that computes something else is off by whole units.
TOLERANCE = 0.3  # of a logit, where both layouts on x86 agree


@pytest.fixture(scope="session")
def greedy():
    """The program greedy.cpp for Arm.

    Without +fp16, by which Arm adds up attention in half precision, as x86 never does: answers could not be
    alike.
    """
    if missing := missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)}")
    return build_program("greedy", "armv8.2-a+dotprod+i8mm")


@pytest.fixture(scope="session")
def typed(tmp_path_factory):
    """typed(name): the embedded model in a type, where its rows allow it."""
    folder = tmp_path_factory.mktemp("types")

    def write(name: str) -> Path:
        path = folder / f"{name}.gguf"
        convert = ["convert", "embedded", "--type", name, "--output", str(path)]
        subprocess.run([sys.executable, "-m", "thirteen", *convert], check=True, capture_output=True)
        return path

    return write


@pytest.mark.parametrize("name", sorted(costs_for("arm").layer))
def test_every_type_for_arm_loads_is_repacked_and_answers_as_here(name, greedy, typed):
    model = typed(name)
    with Engine(model, threads=2, slots=1) as engine:
        prompt = engine.request(QUESTION).tokens
    command = ["qemu-aarch64", "-cpu", "max,sve=off,sme=off", str(greedy), str(model), str(COUNT), "2"]
    done = subprocess.run(
        command, input=" ".join(map(str, prompt)), capture_output=True, text=True, check=True, timeout=1200
    )
    there = list(map(int, done.stdout.split()))
    found = re.search(r"CPU_REPACK model buffer size = +([0-9.]+) MiB", done.stderr)
    repacked = float(found[1]) * (1 << 20) if found else 0
    repacked_logits, plain_logits = (_logits(model, prompt, there, repack=repack) for repack in (True, False))
    short = min(
        float((logits.max(axis=1) - logits[range(len(there)), there]).max())
        for logits in (repacked_logits, plain_logits)
    )
    noise = float(np.abs(repacked_logits - plain_logits).max())
    print(f"{name}: {repacked / 1e6:.1f} MB repacked, {short:.2f} below; layouts differ by {noise:.2f}")
    assert short <= max(noise, TOLERANCE)
    assert repacked == pytest.approx(
        repacked_bytes(read_header(model), REPACKED_TYPES["DOTPROD"]), rel=0.01, abs=1e4
    )
    model.unlink()


def _logits(model: Path, prompt: Sequence[int], tokens: Sequence[int], *, repack: bool) -> Floats:
    """The logits on this machine from which each token is chosen after the prompt, (tokens, vocabulary)."""
    text = (*prompt, *tokens[:-1])
    params = Settings(context=256, slots=1, batch=256, threads=2, outputs=len(tokens))
    with Model(model, repack=repack) as loaded, Context(loaded, params) as context:
        rows = context.decode([Span(0, 0, text, rows=len(tokens))])
        return np.stack([context.logits_row(row).copy() for row in rows])
