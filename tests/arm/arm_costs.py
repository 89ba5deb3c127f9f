"""Writes the cost table for Arm from counted instructions: `make arm-costs`.

The reasoning is the roofline's: a weight costs the longer of the time to read it, which the columns of a
product share, and the time to compute with it. The counts say nothing of how long an instruction takes, so
one number is assumed: the bytes of weights that the memory delivers while a processor does one instruction,
all cores together.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from thirteen.bench.speed.type_costs import TYPES
from thirteen.convert.quantize.costs import SEQUENCES
from thirteen.files.atomic_write import atomic_write
from thirteen.tests.arm.cross_build import missing_tools
from thirteen.tests.arm.instruction_count import COLUMNS, VARIANTS, count_instructions

BYTES_PER_INSTRUCTION = 1.0
PROMPT = COLUMNS[-1]
COUNTED_TYPES = tuple(
    name for name in TYPES if name not in ("F16", "BF16")
)  # their kernels want +fp16, +bf16

Counts = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by variant, type, then number of columns


def roofline_costs(
    counts: Counts, names: Sequence[str], bytes_per_instruction: float = BYTES_PER_INSTRUCTION
) -> dict[str, dict[str, float]]:
    """The costs of a weight in nanoseconds where memory delivers 1 GB/s, by part of the table and type.

    The kernels of the variants differ; a type costs what it costs on the variant where it costs most.

    Args:
        counts: what count_all() returned.
        names: types of the table.
        bytes_per_instruction: bytes that the memory delivers during an instruction.
    """

    def costs(columns: int) -> dict[str, float]:
        return {name: float(f"{cost(name, columns):.4g}") for name in names}

    def cost(name: str, columns: int) -> float:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
        instructions = max(by_type[name][str(columns)] for by_type in counts.values())
        return max(block_bytes / block / columns, instructions * bytes_per_instruction)

    return {
        **{part: costs(1) for part in ("layer", "output")},
        **{f"{part}_together": costs(SEQUENCES) for part in ("layer", "output")},
        "layer_prefill": costs(PROMPT),
    }


def count_all(names: Sequence[str] = COUNTED_TYPES) -> dict[str, dict[str, dict[str, Any]]]:
    """Count the instructions of all variants."""
    types = [GGMLQuantizationType[name] for name in names]
    counts: dict[str, dict[str, dict[str, Any]]] = {}
    for variant in VARIANTS:
        print(f"counting {variant}", file=sys.stderr)
        counted = count_instructions(variant, types)
        counts[variant] = {
            type_.name: {
                "repacked": counted[type_, 1].repacked,
                **{str(number): round(counted[type_, number].per_weight, 4) for number in COLUMNS},
                "input": round(counted[type_, PROMPT].per_input, 2),
            }
            for type_ in types
        }
    return counts


def main() -> int:
    """Count, and write the table; returns the exit status."""
    parser = argparse.ArgumentParser(description="Count instructions and write the cost table for Arm.")
    parser.add_argument("--output", type=Path, required=True, help="the table, a JSON file")
    path = parser.parse_args().output
    if missing := missing_tools():
        print(f"error: not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    counts = count_all()
    table = {
        "target": "arm",
        "cpu": "derived",
        "date": datetime.now(UTC).date().isoformat(),
        "build": version("llama-cpp-python"),
        **roofline_costs(counts, COUNTED_TYPES),
        "bytes_per_instruction": BYTES_PER_INSTRUCTION,
        "tools": [_version("qemu-aarch64"), _version("aarch64-linux-gnu-g++")],
        "variants": VARIANTS,
        "instructions_per_weight": counts,
    }
    with atomic_write(path) as file:
        file.write((json.dumps(table, indent=1) + "\n").encode())
    return 0


def _version(tool: str) -> str:
    text = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+\.\d+", text)
    return f"{tool} {found[0] if found else '?'}"


if __name__ == "__main__":
    sys.exit(main())
