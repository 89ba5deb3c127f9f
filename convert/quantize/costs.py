"""Cost tables: time of a weight in each type, so that a plan can trade size for speed.

Costs are per decoded token, for the matrices of the layers and for the output matrix that is tied to the
token embedding, which is far longer. llama.cpp may repack either for the processor. Where measured, a table
also has the cost of a prompt's token in the layers; the output matrix is computed for the last of them only.

`x86.json`, for processors with AVX2, and `x86-avx512.json` were measured by `thirteen bench types`.
`wasm.json` was measured by `lab/wasm_types.py`, in a browser; there, Q4_0, Q5_0, IQ4_NL and
MXFP4 cost what Q8_0 does, because the page rewrites them. It is no part of "any": its kernels are others, and
would make types costly in plans for processors that are quick there.
`arm.json` was derived: no Arm processor was at hand, and an emulator's times say nothing. It rests on the
instructions that the kernels of llama-cpp-python 0.3.36 take for a weight, counted under an emulator for four
kinds of processor (`make arm-costs`; the counts are in the file). A weight costs the longer of two times, as
in the roofline model: that to read its bytes, which the tokens of a prompt share, and that of its
instructions on the kind of processor where they are most. This assumes that memory delivers one byte while
the processor, all cores together, does one instruction, and that all instructions take as long. Types that
cost more than twice as much as Q4_K in decode are not in the table.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType

from ...errors import FileError, OptionError, shorten
from ...files.json_file import read_json
from ..source.architecture import EMBEDDING

_PROCESSORS = ("x86", "x86-avx512", "arm")
TARGETS = (*_PROCESSORS, "wasm", "any")
PARTS = ("layer", "output", "layer_prefill")
_PROMPT_SHARE = 2.0  # tokens of the prompt per token of the answer of an ordinary question: 200 and 100
_LIBRARY = "llama.cpp"  # of a table that names none
REFERENCE = "Q4_K"  # in every table; the type that costs are compared with

_COST_MAX = 1e6  # nanoseconds: a thousand times the slowest type on a slow machine
_TABLES = Path(__file__).parent / "cost_tables"
_MACHINES = {"x86_64": "x86", "amd64": "x86", "i686": "x86", "aarch64": "arm", "arm64": "arm"}


@dataclass(frozen=True, slots=True)
class CostTable:
    """Costs by type name. A type that is absent must not be used for the target.

    Only ratios within a table are meaningful. The unit is nanoseconds per weight and decoded token where
    measured, the same at 1 GB/s where derived, and Q4_K in a layer for "any".

    Attributes:
        target: one of TARGETS.
        layer: cost of a weight in a layer's matrix.
        output: cost of a weight in a tied output matrix.
        layer_prefill: cost of a weight in a layer's matrix per token of a prompt; empty where unknown.
        library: the library that computes.
    """

    target: str
    layer: Mapping[str, float]
    output: Mapping[str, float]
    layer_prefill: Mapping[str, float] = field(default_factory=dict)
    library: str = _LIBRARY

    def weight_costs(self, name: str, *, tied: bool) -> Mapping[str, float]:
        """Cost of a weight in the matrix `name` by type, in a model with or without tied embeddings."""
        if name != EMBEDDING:
            return self.layer
        return self.output if tied else dict.fromkeys(self.layer, 0.0)  # a token reads only one row


def read_costs(path: Path) -> CostTable:
    """Read a cost table that `thirteen bench types --output` wrote.

    Raises:
        FileError: the file is missing or not JSON, or a field is missing or out of range.
    """
    content = read_json(path)
    layer, output = (_parse_costs(content.get(part), f"{path}: {part}") for part in PARTS[:2])
    prefill = content.get("layer_prefill")
    layer_prefill = {} if prefill is None else _parse_costs(prefill, f"{path}: layer_prefill")
    if (target := content.get("target")) not in TARGETS:
        raise FileError(
            f"{path}: target: {shorten(target)} is not a target; choose from {', '.join(TARGETS)}"
        )
    return CostTable(target, layer, output, layer_prefill, str(content.get("library", _LIBRARY)))


@cache
def costs_for(target: str) -> CostTable:
    """The table for a target that ships with the package.

    Raises:
        OptionError: there is no such target.
    """
    if target not in TARGETS:
        raise OptionError("target", f"not a target; choose from {', '.join(TARGETS)}", repr(target))
    if target == "any":
        return reduce(_worse_of, map(costs_for, _PROCESSORS))
    return read_costs(_TABLES / f"{target}.json")


def host_target() -> str:
    """The target of this machine and this build of llama.cpp; "any" if no table is for its processor."""
    import llama_cpp  # noqa: PLC0415 - takes a second

    target = _MACHINES.get(platform.machine().lower(), "any")
    has_avx512 = b"AVX512 = 1" in llama_cpp.llama_print_system_info()
    return f"{target}-avx512" if target == "x86" and has_avx512 else target


def _worse_of(one: CostTable, other: CostTable) -> CostTable:
    """The types that both tables have, each at the higher of its costs relative to Q4_K in a layer."""

    def higher(part: str) -> dict[str, float]:
        costs = [
            {name: cost / table.layer[REFERENCE] for name, cost in getattr(table, part).items()}
            for table in (one, other)
        ]
        return {name: max(cost, costs[1][name]) for name, cost in costs[0].items() if name in costs[1]}

    return CostTable("any", higher("layer"), higher("output"))


def ordinary_costs(table: CostTable) -> CostTable:
    """The table for ordinary questions: costs per written token, its share of the prompt included.

    A table without costs of prefill stays as it is, for decode alone.
    """
    if not table.layer_prefill:
        return table
    prefill = table.layer_prefill
    layer = {n: cost + _PROMPT_SHARE * prefill[n] for n, cost in table.layer.items() if n in prefill}
    return replace(table, layer=layer)


def _parse_costs(value: Any, where: str) -> dict[str, float]:
    if not isinstance(value, dict):
        raise FileError(f"{where}: {shorten(value)} is not an object of costs by type")
    for name, cost in value.items():
        if name not in GGMLQuantizationType.__members__:
            raise FileError(f"{where}: {shorten(name)} is not a ggml type")
        if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 < cost < _COST_MAX:
            raise FileError(
                f"{where}: the cost of {name} is {shorten(cost)}, not a number above 0 and below "
                f"{_COST_MAX:g}"
            )
    if REFERENCE not in value:
        raise FileError(f"{where}: {REFERENCE} is missing, the type that costs are compared with")
    return {name: float(cost) for name, cost in value.items()}
