"""Cost tables: time of a weight in each type, so that a plan can trade size for speed.

Costs are per decoded token, for the matrices of the layers and for the output matrix that is tied to the
token embedding, which is far longer. llama.cpp may repack either for the processor. Where measured, a table
also has the cost of a prompt's token in the layers; the output matrix is computed for the last of them only.

`costs.json` has a table for each library and kind of processor, with its source. Those for x86 were measured
by `lab/type_costs.py`. That for pages was measured in a browser by `lab/wasm_types.py`; there, Q4_0, Q5_0,
IQ4_NL and MXFP4 cost what Q8_0 does, because the page rewrites them. It is no part of "any": its kernels are
others. That for Arm was derived by `lab/arm_costs.py` from counted instructions.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from pathlib import Path

from gguf import GGMLQuantizationType

from ...errors import FileError, OptionError
from ...files.json_file import from_json, read_json
from ..source.architecture import EMBEDDING

_PROCESSORS = ("x86", "x86-avx512", "arm")  # of "any"
TARGETS = (*_PROCESSORS, "x86-amx", "wasm", "any")
# What follows `x86-` in a target, and how llama.cpp's build names it.
_FEATURES = {"amx": b"AMX_INT8 = 1", "avx512": b"AVX512 = 1"}
PARTS = ("layer", "output", "layer_prefill")
_PROMPT_SHARE = 2.0  # tokens of the prompt per token of the answer of an ordinary question: 200 and 100
_LIBRARY = "llama.cpp"  # of a table that names none
REFERENCE = "Q4_K"  # in every table; the type that costs are compared with

_COST_MAX = 1e6  # nanoseconds: a thousand times the slowest type on a slow machine
_TABLES = Path(__file__).with_name("costs.json")
_MACHINES = {"x86_64": "x86", "amd64": "x86", "i686": "x86", "aarch64": "arm", "arm64": "arm"}


@dataclass(frozen=True, slots=True)
class CostTable:
    """Costs by type name. A type that is absent must not be used for the target.

    Only ratios within a table are meaningful, and between those of two libraries on one target. The unit is
    nanoseconds per weight and decoded token where measured, the same at 1 GB/s where derived, and Q4_K in a
    layer for "any".
    """

    target: str  # one of TARGETS
    layer: Mapping[str, float]  # cost of a weight in a layer's matrix
    output: Mapping[str, float]  # cost of a weight in a tied output matrix
    # cost of a weight in a layer's matrix per token of a prompt; empty where unknown
    layer_prefill: Mapping[str, float] = field(default_factory=dict)
    library: str = _LIBRARY  # the library that computes

    def weight_costs(self, name: str, *, tied: bool) -> Mapping[str, float]:
        """Cost of a weight in the matrix `name` by type, in a model with or without tied embeddings."""
        if name != EMBEDDING:
            return self.layer
        return self.output if tied else dict.fromkeys(self.layer, 0.0)  # a token reads only one row


def read_costs(path: Path) -> CostTable:
    """Read a cost table that `lab/type_costs.py` wrote.

    Raises:
        FileError: the file is missing or not JSON, or a field is missing or out of range.
    """
    where = f"{path}: no table of costs"
    table = from_json(CostTable, read_json(path), where)
    if problem := _problem(table):
        raise FileError(f"{where}: {problem}")
    return table


def _problem(table: CostTable) -> str | None:
    """Why a table cannot be used, if so."""
    if table.target not in TARGETS:
        return f"target must be one of {', '.join(TARGETS)}"
    if not (REFERENCE in table.layer and REFERENCE in table.output):
        return f"layer and output must have {REFERENCE}"
    for part in PARTS:
        for name, cost in getattr(table, part).items():
            if name not in GGMLQuantizationType.__members__ or not 0 < cost < _COST_MAX:
                types = f"ggml types with numbers above 0 and below {_COST_MAX:g}"
                return f"{part} has {name:.100}: {cost:g}; it must have {types}"
    return None


@cache
def costs_for(target: str) -> CostTable:
    """The table of llama.cpp for a target.

    Raises:
        OptionError: there is no such target.
    """
    if target not in TARGETS:
        raise OptionError(
            "target", f"not a target; choose from {', '.join(TARGETS)}, or a file", repr(target)
        )
    if target == "any":
        return reduce(_worse_of, map(costs_for, _PROCESSORS))
    return _shipped()[_LIBRARY, target]


def find_costs(target: str) -> CostTable:
    """The table of llama.cpp for a target, or that of a file."""
    return read_costs(Path(target)) if Path(target).is_file() else costs_for(target)


def host_costs(*libraries: str) -> list[CostTable]:
    """The tables of these libraries for this machine; llama.cpp's if none of them has one."""
    target = host_target()
    tables = (_shipped().get((library, target)) for library in libraries)
    return [*filter(None, tables)] or [costs_for(target)]


@cache
def _shipped() -> dict[tuple[str, str], CostTable]:
    tables = (
        CostTable(one["target"], **{part: one.get(part, {}) for part in PARTS}, library=one["library"])
        for one in json.loads(_TABLES.read_text())
    )
    return {(table.library, table.target): table for table in tables}


def host_target() -> str:
    """The target of this machine and this build of llama.cpp; "any" if no table is for its processor."""
    import llama_cpp  # noqa: PLC0415 - takes a second

    target, features = _MACHINES.get(platform.machine().lower(), "any"), llama_cpp.llama_print_system_info()
    if target != "x86":
        return target
    return next((f"x86-{name}" for name, word in _FEATURES.items() if word in features), target)


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
