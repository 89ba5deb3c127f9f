"""What a weight of each type costs in decode, so that a plan can be quick as well as small.

Costs are for one token: of a sequence that is decoded alone and, where that was measured, of one of several
at once, which share the reading of a weight but not the multiplication. A table has two of each for a type:
in the matrices of the layers, and in the output matrix that is tied to the token embedding, which is far
longer. llama.cpp may lay out both anew for the processor ("repacking").

`x86.json`, for processors with AVX2, and `x86-avx512.json` were measured by `thirteen bench types`.
`arm.json` was not measured but derived: it has the types that llama.cpp repacks on Arm with the dot product
instructions (`ggml_repack_get_optimal_repack_type` in ggml-cpu/repack.cpp of llama-cpp-python 0.3.36), each
at its bytes per weight, since decode waits for memory. The K-quants below 4 bits and IQ4_XS, which it does
not repack, are at half as much again.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from pathlib import Path
from typing import Any

import llama_cpp
from gguf import GGMLQuantizationType

from ...errors import OutputError
from ...files.json_file import read_json
from ..source.architecture import EMBEDDING

TARGETS = ("x86", "x86-avx512", "arm", "any")
SEQUENCES = 8  # that are decoded at once, where several are
PARTS = ("layer", "output", "layer_together", "output_together")
REFERENCE = "Q4_K"  # in every table, and what costs are compared with

_COST_MAX = 1e6  # nanoseconds: a thousand times what the slowest type takes on a slow machine
_TABLES = Path(__file__).parent / "cost_tables"
_MACHINES = {"x86_64": "x86", "amd64": "x86", "i686": "x86", "aarch64": "arm", "arm64": "arm"}


@dataclass(frozen=True, slots=True)
class CostTable:
    """Costs by type name. A type that is absent is not to be used for the target.

    Only ratios within a table mean anything: the unit is a nanosecond per weight and decoded token where it
    was measured, the same at 1 GB/s where it was derived, and Q4_K in a layer for "any".

    Attributes:
        target: one of TARGETS.
        layer: cost of a weight in a layer's matrix.
        output: cost of a weight in a tied output matrix.
        layer_together: the same where SEQUENCES are decoded at once; empty where that is not known.
        output_together: likewise.
        cpu: the processor that it was measured on, or that it was derived.
        date: when, in ISO 8601.
        build: the version of llama-cpp-python.
    """

    target: str
    layer: Mapping[str, float]
    output: Mapping[str, float]
    cpu: str
    date: str
    build: str
    layer_together: Mapping[str, float] = field(default_factory=dict)
    output_together: Mapping[str, float] = field(default_factory=dict)

    def of(self, name: str, *, tied: bool) -> Mapping[str, float]:
        """The costs of a weight in a matrix of that name, in a model whose embeddings are tied or not."""
        if name != EMBEDDING:
            return self.layer
        return self.output if tied else dict.fromkeys(self.layer, 0.0)  # one row of it is read for a token

    def together(self) -> "CostTable":
        """The table for SEQUENCES at once.

        Raises:
            OutputError: that is not known.
        """
        if not self.layer_together or not self.output_together:
            raise OutputError(
                f"the costs for {self.target} are for one sequence at a time, not for {SEQUENCES}"
            )
        return replace(self, layer=self.layer_together, output=self.output_together)


def read_costs(path: Path) -> CostTable:
    """The table in a file that `thirteen bench types --output` wrote.

    Raises:
        OutputError: there is no such file, it is no JSON, or a field is missing or out of range.
    """
    found = read_json(path, OutputError)
    layer, output = (_costs(found.get(part), f"{path}: {part}") for part in PARTS[:2])
    together = [_costs(found[part], f"{path}: {part}") if part in found else {} for part in PARTS[2:]]
    cpu, date, build = (_text(found.get(name), f"{path}: {name}") for name in ("cpu", "date", "build"))
    target = _target(found.get("target"), f"{path}: target")
    return CostTable(target, layer, output, cpu, date, build, *together)


@cache
def costs_for(target: str) -> CostTable:
    """The table that ships for a target.

    Raises:
        OutputError: no such target.
    """
    if _target(target, "--target") == "any":
        return reduce(_any, (costs_for(one) for one in TARGETS if one != "any"))
    return read_costs(_TABLES / f"{target}.json")


def this_target() -> str:
    """The target that this machine, with this build, is; "any" if no table is for its processor."""
    target = _MACHINES.get(platform.machine().lower(), "any")
    wide = b"AVX512 = 1" in llama_cpp.llama_print_system_info()
    return f"{target}-avx512" if target == "x86" and wide else target


def _any(one: CostTable, other: CostTable) -> CostTable:
    """The types that both have, each at the higher of its costs relative to Q4_K in a layer."""

    def higher(part: str) -> dict[str, float]:
        costs = [
            {name: cost / table.layer[REFERENCE] for name, cost in getattr(table, part).items()}
            for table in (one, other)
        ]
        return {name: max(cost, costs[1][name]) for name, cost in costs[0].items() if name in costs[1]}

    return CostTable(
        target="any",
        layer=higher("layer"),
        output=higher("output"),
        cpu=f"{one.cpu}; {other.cpu}",
        date=max(one.date, other.date),
        build=f"{one.build}; {other.build}",
    )


def _target(value: Any, where: str) -> str:
    if value not in TARGETS:
        raise OutputError(f"{where}: {_short(value)} is no target; there are {', '.join(TARGETS)}")
    return str(value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise OutputError(f"{where}: {_short(value)} is no text")
    return value


def _costs(value: Any, where: str) -> dict[str, float]:
    if not isinstance(value, dict):
        raise OutputError(f"{where}: {_short(value)} is no object of costs by type")
    for name, cost in value.items():
        if name not in GGMLQuantizationType.__members__:
            raise OutputError(f"{where}: {_short(name)} is no type of ggml")
        if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 < cost < _COST_MAX:
            raise OutputError(
                f"{where}: {name} costs {_short(cost)}; it must be a number above 0 and below {_COST_MAX:g}"
            )
    if REFERENCE not in value:
        raise OutputError(f"{where}: {REFERENCE} is missing, which the others are compared with")
    return {name: float(cost) for name, cost in value.items()}


def _short(value: Any) -> str:
    return text if len(text := repr(value)) < 100 else f"{text[:80]}…"
