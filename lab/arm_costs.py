"""The cost table for Arm, from instructions counted under qemu-user: python lab/arm_costs.py TABLE.json.

The kernels compute a product of a weight matrix and activations as llama.cpp does, with the weights repacked
where it repacks them. The difference between two numbers of rows is what the weights take. The rest of the
count does not depend on the rows: the activations are quantized, and the graph is started.

The reasoning is the roofline model's: a weight costs the longer of the time to read it, which the columns of
a product share, and the time to compute with it. The counts do not tell how long an instruction takes, so one
number is assumed: the bytes that memory delivers while the processor does one instruction.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from thirteen.convert.quantize.costs import REFERENCE
from thirteen.files.output import atomic_write
from thirteen.lab.type_costs import TYPES
from thirteen.tests.arm.cross_build import build_program, missing_tools

BYTES_PER_INSTRUCTION = 1.0  # all cores together
COUNTED_TYPES = tuple(name for name in TYPES if name not in {"F16", "BF16"})  # theirs want +fp16 and +bf16
# A decoded token, one of each of 8 sequences, and a prompt: 64 columns take as many per column as 16.
COLUMNS = (1, 8, 16)
PROMPT = COLUMNS[-1]
_WIDTH = 2048  # of Llama 3.2 1B's layers
_ROWS = 16  # and twice as many; a multiple of the 8 rows that are interleaved
_COST_MAX = 2.0  # of the reference's in decode; a plan for Arm has no slower type

_NO_SVE = "max,sve=off,sme=off"
VARIANTS = {  # what the kernels are compiled for, and the emulated processor
    "dotprod": ("armv8.2-a+dotprod", _NO_SVE),
    "i8mm": ("armv8.2-a+dotprod+i8mm", _NO_SVE),
    "sve128": ("armv8.2-a+dotprod+i8mm+sve", "max,sve128=on,sme=off"),
    "sve256": ("armv8.2-a+dotprod+i8mm+sve", "max,sve128=on,sve256=on,sme=off"),
}

Counts = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by variant, then type, then number of columns


def roofline_costs(counts: Counts, bytes_per_instruction: float) -> dict[str, dict[str, float]]:
    """The costs of a weight by part of the table and type, in nanoseconds where memory delivers 1 GB/s.

    The kernels of the variants differ. Each type has its cost on the variant where it costs most.
    """

    def cost(name: str, columns: int) -> float:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
        instructions = max(by_type[name][str(columns)] for by_type in counts.values())
        return float(f"{max(block_bytes / block / columns, instructions * bytes_per_instruction):.4g}")

    slowest = _COST_MAX * cost(REFERENCE, 1)
    names = [name for name in COUNTED_TYPES if cost(name, 1) <= slowest]
    parts = {"layer": 1, "output": 1, "layer_prefill": PROMPT}
    return {part: {name: cost(name, columns) for name in names} for part, columns in parts.items()}


def count_variant(variant: str) -> dict[str, dict[str, Any]]:
    """The instructions per weight of each type, by number of columns.

    `input` is the number per value of a prompt's activations, which are quantized first.

    Raises:
        subprocess.CalledProcessError: the program does not compile or run.
    """
    print(f"counting {variant}", file=sys.stderr)
    architecture, processor = VARIANTS[variant]
    cases = [
        (GGMLQuantizationType[name], rows, columns)
        for name in COUNTED_TYPES
        for columns in COLUMNS
        for rows in (_ROWS, 2 * _ROWS)
    ]
    results = iter(_run(build_program("mul_mat", architecture), processor, cases))
    counts: dict[str, dict[str, Any]] = {}
    for name in COUNTED_TYPES:
        counts[name] = {}
        for columns in COLUMNS:
            (once, repacked), (twice, _) = next(results), next(results)
            counts[name]["repacked"] = repacked
            counts[name][str(columns)] = round((twice - once) / (_ROWS * _WIDTH * columns), 4)
            counts[name]["input"] = round((2 * once - twice) / (_WIDTH * columns), 2)
    return counts


def _run(
    program: Path, processor: str, cases: Sequence[tuple[GGMLQuantizationType, int, int]]
) -> list[tuple[int, bool]]:
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
    return list(zip(totals, repacked, strict=True))


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


def tool_version(tool: str) -> str:
    """The name and version of a program."""
    text = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+\.\d+", text)
    assert found, text
    return f"{tool} {found[0]}"


def main() -> None:
    """Count, and write the table together with the counts."""
    parser = argparse.ArgumentParser(description="Count instructions and write the cost table for Arm.")
    parser.add_argument("table", type=Path, help="a JSON file")
    parser.add_argument("--bytes-per-instruction", type=float, default=BYTES_PER_INSTRUCTION)
    options = parser.parse_args()
    if missing := missing_tools():
        parser.error(f"not installed: {', '.join(missing)}")
    counts = {variant: count_variant(variant) for variant in VARIANTS}
    table = {
        "library": "llama.cpp",
        "target": "arm",
        "cpu": "derived",
        **roofline_costs(counts, options.bytes_per_instruction),
        "bytes_per_instruction": options.bytes_per_instruction,
        "date": datetime.now(UTC).date().isoformat(),
        "build": version("llama-cpp-python"),
        "tools": [tool_version("qemu-aarch64"), tool_version("aarch64-linux-gnu-g++")],
        "variants": VARIANTS,
        "instructions_per_weight": counts,
    }
    with atomic_write(options.table) as file:
        file.write((json.dumps(table, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
