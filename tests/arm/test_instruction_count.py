"""The shipped counts of instructions hold (`make arm`), and the emulator's log is added up rightly."""

import json
from typing import Any

import pytest
from gguf import GGMLQuantizationType
from thirteen.convert.quantize import costs

from .arm_costs import BYTES_PER_INSTRUCTION, roofline_costs
from .cross_build import missing_tools
from .instruction_count import VARIANTS, count_instructions, count_sections

TYPES = [GGMLQuantizationType[name] for name in ("Q4_0", "Q4_K", "IQ4_XS")]
COLUMNS = (1, 8)
BLOCK = b"Trace 0: 0x7f00 [81009331/%016x/00000001/00000200] %s\n"


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    """The table for Arm as shipped."""
    return json.loads((costs._TABLES / "arm.json").read_text("utf-8"))


def test_only_blocks_between_the_marks_count_and_each_by_its_own_length():
    def translated(instructions: int) -> list[bytes]:
        return [b"----------------\n", b"IN: x\n", *[b"0x00400640:  d503245f  bti\n"] * instructions, b"\n"]

    log = [
        *translated(3),
        BLOCK % (0x10, b"before"),
        *translated(2),
        BLOCK % (0x20, b"count_start"),
        *translated(5),  # never executed
        *translated(7),
        BLOCK % (0x30, b"kernel"),
        b"repack: repack tensor with q4_0_4x4\n",
        BLOCK % (0x30, b"kernel"),
        BLOCK % (0x10, b"before"),
        *translated(1),
        BLOCK % (0x40, b"count_stop"),
        BLOCK % (0x30, b"kernel"),
        BLOCK % (0x20, b"count_start"),
        BLOCK % (0x40, b"count_stop"),
    ]
    assert list(count_sections(log)) == [7 + 7 + 3 + 1, 1]


def test_the_shipped_costs_follow_from_the_shipped_counts(table):
    assert set(table["instructions_per_weight"]) == set(VARIANTS)
    assert table["bytes_per_instruction"] == BYTES_PER_INSTRUCTION
    derived = roofline_costs(table["instructions_per_weight"])
    assert derived == {part: table[part] for part in costs.PARTS}


def test_a_cost_is_the_longer_of_reading_and_computing_and_slow_types_are_left_out():
    def count(*instructions: float) -> dict[str, float]:
        return dict(zip(("1", "8", "16"), instructions, strict=True))

    counts = {
        "one": {"Q8_0": count(0.25, 0.125, 0.1), "Q4_K": count(0.4, 0.2, 0.2), "IQ3_S": count(1.1, 1, 1)},
        "other": {"Q8_0": count(2, 0.0625, 0.05), "Q4_K": count(0.5, 0.2, 0.2), "IQ3_S": count(2.5, 1, 1)},
    }
    table = roofline_costs(counts, bytes_per_instruction=0.5)
    assert table["layer"] == table["output"] == {"Q8_0": 1.062, "Q4_K": 0.5625}  # 34 bytes for 32 weights
    assert table["layer_prefill"] == {"Q8_0": 0.06641, "Q4_K": 0.1}
    assert roofline_costs(counts, bytes_per_instruction=0.4)["layer"]["IQ3_S"] == 1.0


@pytest.mark.arm
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_shipped_counts_are_counted_again(variant, table):
    if missing := missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)}")
    shipped = table["instructions_per_weight"][variant]
    for (type_, columns), count in count_instructions(variant, TYPES, COLUMNS).items():
        assert count.per_weight == pytest.approx(shipped[type_.name][str(columns)], rel=0.03)
        assert count.repacked == shipped[type_.name]["repacked"]
