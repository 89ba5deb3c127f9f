"""Instructions that llama.cpp's kernels for Arm take for a weight, counted under qemu-user.

A product of a weight matrix and activations is computed as llama.cpp computes it, with the weights repacked
where it repacks them. The difference between two numbers of rows is what the weights take. The rest of the
count does not depend on the rows: the activations are quantized, and the graph is started.
"""

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType

from .cross_build import build_program

# A decoded token, one of each of 8 sequences, and a prompt: 64 columns take as many per column as 16.
COLUMNS = (1, 8, 16)
_WIDTH = 2048  # of Llama 3.2 1B's layers
_ROWS = 16  # and twice as many; a multiple of the 8 rows that are interleaved

_NO_SVE = "max,sve=off,sme=off"
VARIANTS = {  # what the kernels are compiled for, and the emulated processor
    "dotprod": ("armv8.2-a+dotprod", _NO_SVE),
    "i8mm": ("armv8.2-a+dotprod+i8mm", _NO_SVE),
    "sve128": ("armv8.2-a+dotprod+i8mm+sve", "max,sve128=on,sme=off"),
    "sve256": ("armv8.2-a+dotprod+i8mm+sve", "max,sve128=on,sve256=on,sme=off"),
}


@dataclass(frozen=True, slots=True)
class InstructionCount:
    """Instructions of a product on one thread.

    Attributes:
        per_weight: per weight and column.
        per_input: per value of the activations, which are quantized first; the start of the graph included.
        repacked: whether llama.cpp repacks the weights.
    """

    per_weight: float
    per_input: float
    repacked: bool


def count_instructions(
    variant: str, types: Sequence[GGMLQuantizationType], columns: Sequence[int] = COLUMNS
) -> dict[tuple[GGMLQuantizationType, int], InstructionCount]:
    """The counts of each type with each number of columns.

    Args:
        variant: one of VARIANTS.
        types: types of the weights.
        columns: numbers of columns of the activations.

    Raises:
        subprocess.CalledProcessError: the program does not compile or run.
    """
    architecture, processor = VARIANTS[variant]
    program = build_program("mul_mat", architecture)
    keys = [(type_, number) for type_ in types for number in columns]
    cases = [(type_, rows, number) for type_, number in keys for rows in (_ROWS, 2 * _ROWS)]
    totals, repacked = _run(program, processor, cases)
    counts = {}
    for index, (type_, number) in enumerate(keys):
        once, twice = totals[2 * index : 2 * index + 2]
        counts[type_, number] = InstructionCount(
            per_weight=(twice - once) / (_ROWS * _WIDTH * number),
            per_input=(2 * once - twice) / (_WIDTH * number),
            repacked=repacked[2 * index],
        )
    return counts


def _run(
    program: Path, processor: str, cases: Sequence[tuple[GGMLQuantizationType, int, int]]
) -> tuple[list[int], list[bool]]:
    """The instructions of each case of mul_mat.cpp, and whether it was repacked."""
    command = ["qemu-aarch64", "-cpu", processor, "-d", "in_asm,exec,nochain", str(program), str(_WIDTH)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write("".join(f"{type_} {rows} {n}\n" for type_, rows, n in cases).encode())
        process.stdin.close()
        totals = list(count_sections(process.stderr))
        repacked = [word == b"1" for word in process.stdout.read().split()]
    if process.returncode or not len(totals) == len(repacked) == len(cases):
        raise subprocess.CalledProcessError(process.returncode, command)
    return totals, repacked


def count_sections(log: Iterable[bytes]) -> Iterator[int]:
    """The instructions executed between each call of count_start() and the next of count_stop().

    Args:
        log: lines of qemu's log of `in_asm,exec,nochain`. It lists the instructions of a block when the block
            is translated, and names the block by its address each time that it is executed.
    """
    lengths: dict[bytes, int] = {}
    translated = executed = 0
    for line in log:
        if line.startswith(b"Trace"):
            address = line.split(b"/", 2)[1]
            if translated:
                lengths[address], translated = translated, 0
            executed += lengths[address]
            if line.endswith(b" count_start\n"):
                executed = 0
            elif line.endswith(b" count_stop\n"):
                yield executed
        elif line.startswith(b"0x"):
            translated += 1
        elif line.startswith(b"IN:"):
            translated = 0
