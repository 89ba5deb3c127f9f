"""Cost of a weight of each ggml type on this machine, in decode and in prefill, measured end to end.

A smaller type is not always faster: that depends on the kernels that the build has for the processor. The
engine decodes two random models of each type, loaded like real ones: one is all layers, the other all output
matrix. The time of a token, less that in a model with next to no weights, divided by the weights, is the cost
of a weight.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from ...convert.quantize.costs import PARTS, REFERENCE, host_target
from ...convert.tensors import parse_type
from ...files.atomic_write import write_file
from ...files.progress import Progress, no_progress
from ...files.temporary_folder import temporary_folder
from ...runtime.engine.engine import Engine
from ...runtime.llama.gguf_checks import read_model_header
from ...runtime.machine.threads import default_threads
from ...runtime.native.settings import LIBRARIES, PACKAGES, library_version
from ...runtime.plan.memory import estimate_memory
from ...runtime.plan.options import EngineOptions, default_settings
from ...runtime.plan.plan import EnginePlan
from ...runtime.validation import check_integer
from ...stats.arrays import Doubles
from ...stats.interval import Interval
from ...stats.paired_ratio import ROUNDS_MIN, paired_ratio, too_noisy
from ..environment import BenchReport, report_head
from ..schedule import ProgressCounter, alternating_order
from ..workload import Workload, load_engine, random_prompt, time_prefill_and_decode
from .random_model import ProbeShape, count_matrix_weights, write_probe_models

TYPES = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "F16", "BF16"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S"),
)
ROUNDS = 30
DECODE_TOKENS = 4  # many short iterations: disturbances on a shared machine last for seconds
PROMPT_TOKENS = 64  # enough for the kernels that multiply matrices

_PREFILL, _DECODE = range(2)  # indices of the last axis of the times
_LAYER, _OUTPUT = range(2)  # indices of the two models of a type
_NET_MIN = 0.01  # least share of a time that counts as the weights', so that ratios exist despite noise


@dataclass(frozen=True, slots=True)
class WeightCost:
    """Cost of a weight of one type in one of the models.

    Attributes:
        ns_per_weight: nanoseconds per token, median over the rounds.
        gb_per_s: bytes of weights over that time.
        ratio: time over that of Q4_K in the same place, paired by round; less is faster.
    """

    ns_per_weight: float
    gb_per_s: float
    ratio: Interval


@dataclass(frozen=True, slots=True)
class TypeCost:
    """Costs of one type.

    Attributes:
        type: name of the type.
        bits_per_weight: bits of a weight, including its share of the scales.
        layer: cost in the matrices of the layers, repacked where the build has kernels for that.
        output: cost in the output matrix, tied to the token embedding.
        layer_prefill: cost in the layers, per token of a prompt.
    """

    type: str
    bits_per_weight: float
    layer: WeightCost
    output: WeightCost
    layer_prefill: WeightCost


@dataclass(frozen=True, slots=True)
class TypesReport(BenchReport):
    """Costs of the types on this machine.

    Attributes:
        settings: work of an iteration.
        sizes: shape of the models.
        rounds: number of rounds; each measures every model once.
        costs: costs of each type.
        noisy: see noisy_types().
        target: the target of `convert` that the costs are for.
        engine: what ran the models, with its version.
        library: its name.
    """

    settings: Workload
    sizes: ProbeShape
    rounds: int
    costs: tuple[TypeCost, ...]
    noisy: tuple[str, ...]
    target: str
    engine: str
    library: str = LIBRARIES[0]


def run_type_costs(
    *,
    types: Sequence[str] = TYPES,
    rounds: int = ROUNDS,
    engine: EngineOptions | None = None,
    shape: ProbeShape | None = None,
    progress: Progress = no_progress,
) -> TypesReport:
    """Measure the cost of a weight of each type.

    The models are written to a temporary folder in the cache (4.3 GB for all types) and stay loaded together.

    Args:
        types: names of types; the reference Q4_K is always measured.
        rounds: number of rounds, at least 8; every other one has the reverse order.
        engine: threads that compute, by default one per physical core, and the library. Only llama.cpp, the
            default, is safe in this process: nothing is proven.
        shape: shape of the models; by default as wide as Llama 3.2 1B.
        progress: called with steps done and in all: models written, and iterations.

    Raises:
        OutputError: the disk has no room for the models.
        RequestError: a type is unknown, or a number is out of range.
        FileError: this build cannot run one of the types.
    """
    check_integer("bench: rounds", rounds, ROUNDS_MIN)
    given = engine or EngineOptions()
    threads, library = given.get("threads"), given.get("library") or LIBRARIES[0]
    threads = default_threads() if threads is None else threads
    workload = Workload(PROMPT_TOKENS, DECODE_TOKENS, threads, PROMPT_TOKENS)
    ggml_types, shape = measured_types(types), shape or ProbeShape()
    head = report_head()
    make = partial(Engine if library == LIBRARIES[0] else _unproven_engine, library=library)
    advance = ProgressCounter(progress, (1 + 2 * len(ggml_types)) * (2 + rounds))
    with temporary_folder("types") as folder, ExitStack() as loaded:
        engines = []
        for path in write_probe_models(folder, shape, ggml_types):
            engines.append(loaded.enter_context(load_engine(path, None, workload, make=make)))
            advance()
        _run_round(engines, rounds, workload, advance)  # warm-up, with a number of its own
        seconds = np.array([_run_round(engines, number, workload, advance) for number in range(rounds)])
    per_token = seconds / (workload.prompt_tokens, workload.decode_tokens)  # (rounds, models, 2)
    package = f"{PACKAGES[library]} {library_version(library)}"
    costs = weight_costs(shape, ggml_types, per_token)
    noisy, target = noisy_types(costs), host_target()
    return TypesReport(*head, workload, shape, rounds, costs, noisy, target, package, library)


def _unproven_engine(model: Path, **options: Unpack[EngineOptions]) -> Engine:
    """An engine for times alone, whose library is not compared with llama.cpp on the file."""
    header, settings = read_model_header(model), default_settings(options)
    return Engine(EnginePlan(header, settings, estimate_memory(header, settings), settings.context))


def measured_types(names: Sequence[str]) -> tuple[GGMLQuantizationType, ...]:
    """The types of these names, without duplicates, after the reference.

    Raises:
        RequestError: a type is unknown.
    """
    return tuple(dict.fromkeys(map(parse_type, (REFERENCE, *names))))


def _run_round(
    engines: Sequence[Engine], number: int, workload: Workload, advance: ProgressCounter
) -> Doubles:
    """Seconds of each engine for prefill and decode, (models, 2)."""
    seconds = np.empty((len(engines), 2))
    for model in alternating_order(len(engines), number):
        engine = engines[model]
        prompt = random_prompt(engine.model, number, workload.prompt_tokens)
        seconds[model] = time_prefill_and_decode(engine, prompt, workload.decode_tokens)
        advance()
    return seconds


def weight_costs(
    shape: ProbeShape, types: Sequence[GGMLQuantizationType], seconds_per_token: Doubles
) -> tuple[TypeCost, ...]:
    """Costs from measured times.

    Args:
        shape: shape of the models.
        types: the types, of which the first is the reference.
        seconds_per_token: seconds per token of the models of write_probe_models() in prefill and in decode,
            (rounds, 1 + 2 * types, 2).
    """
    rounds = len(seconds_per_token)
    overhead = np.median(seconds_per_token[:, 0], axis=0)  # (2,)
    net = np.maximum(seconds_per_token[:, 1:] - overhead, _NET_MIN * seconds_per_token[:, 1:])
    minimal = count_matrix_weights(shape.minimal)
    weights = [count_matrix_weights(model) - minimal for model in (shape.all_layers, shape.all_output)]
    ns = 1e9 * net.reshape(rounds, len(types), 2, 2) / np.array(weights)[:, None]

    def cost(index: int, place: int, phase: int = _DECODE) -> WeightCost:
        each = ns[:, :, place, phase]  # (rounds, types)
        median = float(np.median(each[:, index]))
        return WeightCost(median, _bits(types[index]) / 8 / median, paired_ratio(each[:, 0], each[:, index]))

    return tuple(
        TypeCost(
            type=type_.name,
            bits_per_weight=_bits(type_),
            layer=cost(index, _LAYER),
            output=cost(index, _OUTPUT),
            layer_prefill=cost(index, _LAYER, _PREFILL),
        )
        for index, type_ in enumerate(types)
    )


def noisy_types(costs: Sequence[TypeCost]) -> tuple[str, ...]:
    """The types for which the run was too noisy for a conclusion on the decode costs."""
    return tuple(cost.type for cost in costs if too_noisy(cost.layer.ratio) or too_noisy(cost.output.ratio))


def _bits(type_: GGMLQuantizationType) -> float:
    block, block_bytes = GGML_QUANT_SIZES[type_]
    return float(8 * block_bytes / block)


def write_costs(report: TypesReport, path: Path) -> None:
    """Write the costs as a table for convert.quantize.costs.read_costs(), together with the report.

    Raises:
        OutputError: the file cannot be written.
    """

    def costs(part: str) -> dict[str, float]:
        found = {cost.type: getattr(cost, part) for cost in report.costs}
        return {name: float(f"{cost.ns_per_weight:.4g}") for name, cost in found.items()}

    table = {
        "target": report.target,
        "cpu": report.machine.cpu,
        "date": report.date,
        "library": report.library,
        "build": report.engine.removeprefix("llama-cpp-python "),
        **{part: costs(part) for part in PARTS},
        "measured": asdict(report),
    }
    write_file(path, (json.dumps(table, indent=1, allow_nan=False) + "\n").encode())
