"""Writes the cost table for Arm from counted instructions: `make arm-costs`.

The reasoning is the roofline model's: a weight costs the longer of the time to read it, which the columns of
a product share, and the time to compute with it. The counts do not tell how long an instruction takes, so one
number is assumed: the bytes that memory delivers while the processor does one instruction.
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
from thirteen.convert.quantize.costs import REFERENCE, SEQUENCES
from thirteen.files.atomic_write import atomic_write
from thirteen.tests.arm.cross_build import missing_tools
from thirteen.tests.arm.instruction_count import COLUMNS, VARIANTS, count_instructions

BYTES_PER_INSTRUCTION = 1.0  # all cores together
PROMPT = COLUMNS[-1]
COUNTED_TYPES = tuple(name for name in TYPES if name not in {"F16", "BF16"})  # theirs want +fp16 and +bf16
_COST_MAX = 2.0  # of the reference's in decode; a plan for Arm has no slower type

Counts = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by variant, then type, then number of columns


def roofline_costs(
    counts: Counts, bytes_per_instruction: float = BYTES_PER_INSTRUCTION
) -> dict[str, dict[str, float]]:
    """The costs of a weight by part of the table and type, in nanoseconds where memory delivers 1 GB/s.

    The kernels of the variants differ. Each type has its cost on the variant where it costs most.

    Args:
        counts: what count_variants() returned.
        bytes_per_instruction: bytes that memory delivers during an instruction.
    """

    def cost(name: str, columns: int) -> float:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
        instructions = max(by_type[name][str(columns)] for by_type in counts.values())
        return float(f"{max(block_bytes / block / columns, instructions * bytes_per_instruction):.4g}")

    def costs(columns: int) -> dict[str, float]:
        return {name: cost(name, columns) for name in names}

    slowest = _COST_MAX * cost(REFERENCE, 1)
    names = [name for name in next(iter(counts.values())) if cost(name, 1) <= slowest]
    return {
        **{part: costs(1) for part in ("layer", "output")},
        **{f"{part}_together": costs(SEQUENCES) for part in ("layer", "output")},
        "layer_prefill": costs(PROMPT),
    }


def count_variants(names: Sequence[str] = COUNTED_TYPES) -> dict[str, dict[str, dict[str, Any]]]:
    """The instructions per weight of each variant and type, by number of columns.

    `input` is the number per value of a prompt's activations, which are quantized first.
    """
    types = [GGMLQuantizationType[name] for name in names]
    counts: dict[str, dict[str, dict[str, Any]]] = {}
    for variant in VARIANTS:
        print(f"counting {variant}", file=sys.stderr)
        counted = count_instructions(variant, types)
        counts[variant] = {
            type_.name: {
                "repacked": counted[type_, 1].repacked,
                **{str(columns): round(counted[type_, columns].per_weight, 4) for columns in COLUMNS},
                "input": round(counted[type_, PROMPT].per_input, 2),
            }
            for type_ in types
        }
    return counts


def write_table(counts: Counts, path: Path) -> None:
    """Write the cost table together with the counts.

    Raises:
        OutputError: the file cannot be written.
    """
    table = {
        "target": "arm",
        "cpu": "derived",
        "date": datetime.now(UTC).date().isoformat(),
        "build": version("llama-cpp-python"),
        **roofline_costs(counts),
        "bytes_per_instruction": BYTES_PER_INSTRUCTION,
        "tools": [_tool_version("qemu-aarch64"), _tool_version("aarch64-linux-gnu-g++")],
        "variants": VARIANTS,
        "instructions_per_weight": counts,
    }
    with atomic_write(path) as file:
        file.write((json.dumps(table, indent=1) + "\n").encode())


def _tool_version(tool: str) -> str:
    text = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+\.\d+", text)
    assert found, text
    return f"{tool} {found[0]}"


def main() -> int:
    """Count, and write the table; returns the exit status."""
    parser = argparse.ArgumentParser(description="Count instructions and write the cost table for Arm.")
    parser.add_argument("--output", type=Path, required=True, help="the table, a JSON file")
    path = parser.parse_args().output
    if missing := missing_tools():
        print(f"error: not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    write_table(count_variants(), path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
