"""Writes the cost table for Arm from counted instructions: `make arm-costs`.

The reasoning is the roofline model's: a weight costs the longer of the time to read it, which the columns of
a product share, and the time to compute with it. The counts do not tell how long an instruction takes, so one
number is assumed: the bytes that memory delivers while the processor does one instruction. To try another,
without counting again: `--counts convert/quantize/cost_tables/arm.json --bytes-per-instruction 0.5 --output
FILE`, then `thirteen plan --costs FILE`.
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
from thirteen.convert.quantize.costs import REFERENCE
from thirteen.errors import OutputError
from thirteen.files.atomic_write import atomic_write
from thirteen.files.json_file import read_json
from thirteen.tests.arm.cross_build import missing_tools
from thirteen.tests.arm.instruction_count import COLUMNS, VARIANTS, count_instructions

BYTES_PER_INSTRUCTION = 1.0  # all cores together
PROMPT = COLUMNS[-1]
COUNTED_TYPES = tuple(name for name in TYPES if name not in {"F16", "BF16"})  # theirs want +fp16 and +bf16
_COUNT_KEYS = ("date", "build", "tools", "variants", "instructions_per_weight")
_COST_MAX = 2.0  # of the reference's in decode; a plan for Arm has no slower type

Counts = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by variant, then type, then number of columns


def roofline_costs(
    counts: Counts, bytes_per_instruction: float = BYTES_PER_INSTRUCTION
) -> dict[str, dict[str, float]]:
    """The costs of a weight by part of the table and type, in nanoseconds where memory delivers 1 GB/s.

    The kernels of the variants differ. Each type has its cost on the variant where it costs most.

    Args:
        counts: instructions per weight, as in count_all().
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
        "layer_prefill": costs(PROMPT),
    }


def count_all(names: Sequence[str] = COUNTED_TYPES) -> dict[str, Any]:
    """Count the instructions per weight of each variant and type, by number of columns.

    `input` is the number per value of a prompt's activations, which are quantized first.
    """
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "build": version("llama-cpp-python"),
        "tools": [_tool_version("qemu-aarch64"), _tool_version("aarch64-linux-gnu-g++")],
        "variants": VARIANTS,
        "instructions_per_weight": {variant: _count_variant(variant, names) for variant in VARIANTS},
    }


def _count_variant(variant: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    print(f"counting {variant}", file=sys.stderr)
    types = [GGMLQuantizationType[name] for name in names]
    counted = count_instructions(variant, types)
    return {
        type_.name: {
            "repacked": counted[type_, 1].repacked,
            **{str(columns): round(counted[type_, columns].per_weight, 4) for columns in COLUMNS},
            "input": round(counted[type_, PROMPT].per_input, 2),
        }
        for type_ in types
    }


def read_counts(path: Path) -> dict[str, Any]:
    """The counts of a table that was written before, as count_all() returns them.

    Raises:
        OutputError: the file is missing or has no counts.
    """
    content = read_json(path, OutputError)
    if missing := [key for key in _COUNT_KEYS if key not in content]:
        raise OutputError(f"{path}: {missing[0]} is missing: not a table of arm_costs.py")
    return {key: content[key] for key in _COUNT_KEYS}


def write_table(counted: Mapping[str, Any], bytes_per_instruction: float, path: Path) -> None:
    """Write the cost table together with the counts that count_all() returned.

    Raises:
        OutputError: the file cannot be written.
    """
    table = {
        "target": "arm",
        "cpu": "derived",
        **roofline_costs(counted["instructions_per_weight"], bytes_per_instruction),
        "bytes_per_instruction": bytes_per_instruction,
        **counted,
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
    parser.add_argument("--counts", type=Path, help="a table whose counts are used instead of new ones")
    parser.add_argument("--bytes-per-instruction", type=float, default=BYTES_PER_INSTRUCTION)
    options = parser.parse_args()
    if not 0 < options.bytes_per_instruction < 1e3:
        parser.error("--bytes-per-instruction must be above 0 and below 1000")
    if not options.counts and (missing := missing_tools()):
        parser.error(f"not installed: {', '.join(missing)}")
    try:
        counted = read_counts(options.counts) if options.counts else count_all()
        write_table(counted, options.bytes_per_instruction, options.output)
    except OutputError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
