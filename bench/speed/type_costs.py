"""What a weight of each ggml type costs on this machine, in decode and in prefill, measured end to end.

A smaller type is not always a quicker one: that depends on the kernels that the build has for this processor.
For every type the engine decodes two random models, loaded as a real one would be: the first is all layers,
the second all output matrix. A token's time in one, less that in a model with next to no weights, divided by
the weights, is the cost of a weight: for one sequence, and for several at once, which share the reading of a
weight but not the multiplication.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from rich.table import Table
from rich.text import Text

from ...convert.quantize.costs import PARTS, REFERENCE, SEQUENCES, host_target
from ...convert.source.architecture import Architecture
from ...convert.tensors import parse_type
from ...files.output import output_errors
from ...files.progress import Progress, no_progress
from ...runtime.engine.engine import Engine
from ...runtime.request import check_integer
from ...runtime.threads import physical_cores
from ...stats.interval import FloatArray, Interval
from ...stats.paired_ratio import RATIO_LEVEL, ROUNDS_MIN, paired_ratio
from ..harness.environment import Build, Machine, this_build, this_machine
from ..harness.iteration import random_prompt, time_batched_decode, time_prefill_and_decode
from ..harness.schedule import ProgressCounter, alternating_order
from ..harness.wording import NOISE_MAX, too_noisy
from ..harness.workload import Workload, load_engine
from ..synthetic.random_model import count_matrix_weights, write_uniform_model

TYPES = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "F16", "BF16"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S"),
)
ROUNDS = 30
TOKENS = 4  # short turns and many: what disturbs a shared machine lasts for seconds
PROMPT_TOKENS = 16

_PREFILL, _DECODE, _TOGETHER = range(3)  # places on the last axis of what was measured
_LAYER, _OUTPUT = 0, 1  # and of a type's two models
_NET_MIN = (
    0.01  # of a turn: what noise can make of the weights' share where they are few, so that ratios exist
)
_HOLLOW = GGMLQuantizationType.Q8_0  # of what is the same in all models


@dataclass(frozen=True, slots=True)
class CostModelShape:
    """The shapes of the models: as wide as Llama 3.2 1B, and as large as no processor's cache.

    Attributes:
        hidden: width of the rows of most matrices, and of the output matrix.
        ffn: width of the rest.
        heads: of `head_dim` numbers each.
        kv_heads: likewise.
        head_dim: of a head.
        layers: of the model that is all layers.
        vocabulary: rows of the output matrix of the other.
    """

    hidden: int = 2048
    ffn: int = 8192
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 64
    layers: int = 3
    vocabulary: int = 1 << 16

    @property
    def hollow(self) -> Architecture:
        """As wide, with next to no weights: its time is what a token costs beside them."""
        return Architecture(
            name="llama",
            layers=1,
            hidden=self.hidden,
            ffn=256,
            heads=1,
            kv_heads=1,
            head_dim=self.head_dim,
            vocab=512,
            context=4096,
            rms_eps=1e-5,
            rope_theta=500000.0,
            scaling=None,
            tied=True,
        )

    @property
    def all_layers(self) -> Architecture:
        """The model whose weights are in its layers."""
        return replace(
            self.hollow, layers=self.layers, ffn=self.ffn, heads=self.heads, kv_heads=self.kv_heads
        )

    @property
    def all_output(self) -> Architecture:
        """The model whose weights are in its output matrix, which is the token embedding."""
        return replace(self.hollow, vocab=self.vocabulary)


@dataclass(frozen=True, slots=True)
class WeightCost:
    """Of a weight of one type in one place.

    Attributes:
        ns_per_weight: nanoseconds for a decoded token, the median over the rounds.
        gb_per_s: bytes of weights over that time.
        ratio: to Q4_K in the same place, paired by round; less is quicker.
    """

    ns_per_weight: float
    gb_per_s: float
    ratio: Interval


@dataclass(frozen=True, slots=True)
class TypeCost:
    """One type.

    Attributes:
        type: its name.
        bits_per_weight: scales included.
        layer: in the matrices of the layers, repacked where the build has kernels for that.
        output: in the output matrix, tied to the token embedding.
        layer_together: in the layers, for a token of one of SEQUENCES that are decoded at once.
        output_together: likewise in the output matrix.
        prefill: time for a prompt in the layers, as a ratio to Q4_K; less is quicker.
    """

    type: str
    bits_per_weight: float
    layer: WeightCost
    output: WeightCost
    layer_together: WeightCost
    output_together: WeightCost
    prefill: Interval


@dataclass(frozen=True, slots=True)
class TypesReport:
    """All that was measured, and with what; dataclasses.asdict makes it JSON.

    Attributes:
        date: when it began, in UTC.
        machine: where.
        build: with which versions.
        settings: the work of a turn.
        sizes: of the models.
        rounds: in each, every model took one turn.
        overhead_ms: of a decoded token in a model with next to no weights; taken off before the costs.
        costs: of each type.
        noisy: the types for which the run was too noisy to settle the decode costs.
    """

    date: str
    machine: Machine
    build: Build
    settings: Workload
    sizes: CostModelShape
    rounds: int
    overhead_ms: float
    costs: tuple[TypeCost, ...]
    noisy: tuple[str, ...]


def run_type_costs(  # noqa: PLR0913 - the knobs of a measurement, each with its default
    *,
    types: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    tokens: int = TOKENS,
    threads: int | None = None,
    sizes: CostModelShape | None = None,
    progress: Progress = no_progress,
) -> TypesReport:
    """Measure what a weight of each type costs.

    The models are written to a temporary folder (4.3 GB for all types; the variable TMPDIR says where) and
    stay loaded side by side. Then they take turns, in reverse order every other round, so that a drift of the
    machine meets all alike.

    Args:
        types: their names, by default those worth choosing from; Q4_K, the reference, is always among them.
        rounds: in each, every model takes a turn; at least 8.
        tokens: decoded in each turn.
        threads: that compute; by default one for each physical core.
        sizes: of the models; by default as wide as Llama 3.2 1B.
        progress: called with what is done and how much there is in all: models written, and turns.

    Raises:
        OutputError: no such type, or no room for the models.
        RequestError: a number is out of bounds.
        ModelFileError: this build cannot run one of the types.
    """
    check_integer("bench: rounds", rounds, ROUNDS_MIN)
    settings = Workload(
        PROMPT_TOKENS, tokens, physical_cores() if threads is None else threads, PROMPT_TOKENS
    )
    chosen = tuple(dict.fromkeys(map(parse_type, (REFERENCE, *(TYPES if types is None else types)))))
    sizes = sizes or CostModelShape()
    date, machine = datetime.now(UTC).isoformat(timespec="seconds"), this_machine()
    tick = ProgressCounter(progress, (1 + 2 * len(chosen)) * (2 + rounds))
    with TemporaryDirectory(prefix="thirteen-types-") as folder, ExitStack() as loaded:
        engines = []
        for path in _write(Path(folder), sizes, chosen):
            engines.append(loaded.enter_context(load_engine(path, None, settings, slots=SEQUENCES)))
            tick()
        _round(engines, rounds, settings, tick)  # a warm-up, with a number that no other round has
        seconds = np.array([_round(engines, number, settings, tick) for number in range(rounds)])
    together = SEQUENCES * (1 + settings.decode_tokens)
    per_token = seconds / (settings.prompt_tokens, settings.decode_tokens, together)  # (rounds, models, 3)
    costs = _costs(sizes, chosen, per_token)
    return TypesReport(
        date=date,
        machine=machine,
        build=this_build(),
        settings=settings,
        sizes=sizes,
        rounds=rounds,
        overhead_ms=1e3 * float(np.median(per_token[:, 0, _DECODE])),
        costs=costs,
        noisy=tuple(
            cost.type for cost in costs if too_noisy(cost.layer.ratio) or too_noisy(cost.output.ratio)
        ),
    )


def _write(folder: Path, sizes: CostModelShape, types: Sequence[GGMLQuantizationType]) -> Iterator[Path]:
    """The hollow model, then two of each type: all layers, all output."""
    models = [("hollow", sizes.hollow, _HOLLOW, _HOLLOW)]
    for type_ in types:
        models.append((f"{type_.name}-layers", sizes.all_layers, type_, _HOLLOW))
        models.append((f"{type_.name}-output", sizes.all_output, _HOLLOW, type_))
    for name, architecture, layer, embedding in models:
        path = folder / f"{name}.gguf"
        write_uniform_model(path, architecture, layer, embedding)
        yield path


def _round(engines: Sequence[Engine], number: int, settings: Workload, tick: ProgressCounter) -> FloatArray:
    """One turn of each: seconds for a prompt, for tokens after the first, and for several sequences at once.

    Returns:
        An array (models, 3).
    """
    seconds = np.empty((len(engines), 3))
    for place in alternating_order(len(engines), number):
        prompt = random_prompt(engines[place].model, number, settings.prompt_tokens)
        seconds[place, :_TOGETHER] = time_prefill_and_decode(engines[place], prompt, settings.decode_tokens)
        seconds[place, _TOGETHER] = time_batched_decode(
            engines[place], prompt[:SEQUENCES], settings.decode_tokens
        )
        tick()
    return seconds


def _costs(
    sizes: CostModelShape, types: Sequence[GGMLQuantizationType], per_token: FloatArray
) -> tuple[TypeCost, ...]:
    """Costs from seconds per token, (rounds, 1 + 2 * types, 3); the first type is the reference."""
    hollow = np.median(per_token[:, 0], axis=0)  # (3,)
    net = np.maximum(per_token[:, 1:] - hollow, _NET_MIN * per_token[:, 1:])
    base = count_matrix_weights(sizes.hollow)
    weights = [count_matrix_weights(whole) - base for whole in (sizes.all_layers, sizes.all_output)]  # by place
    ns = (
        1e9 * net.reshape(len(net), len(types), 2, 3) / np.array(weights)[:, None]
    )  # (rounds, types, place, kind)

    def cost(index: int, place: int, kind: int = _DECODE) -> WeightCost:
        decode = ns[:, :, place, kind]  # (rounds, types)
        median = float(np.median(decode[:, index]))
        return WeightCost(median, _bits(types[index]) / 8 / median, _ratio(decode, index))

    return tuple(
        TypeCost(
            type=type_.name,
            bits_per_weight=_bits(type_),
            layer=cost(index, _LAYER),
            output=cost(index, _OUTPUT),
            layer_together=cost(index, _LAYER, _TOGETHER),
            output_together=cost(index, _OUTPUT, _TOGETHER),
            prefill=_ratio(ns[:, :, _LAYER, _PREFILL], index),
        )
        for index, type_ in enumerate(types)
    )


def _ratio(ns: FloatArray, index: int) -> Interval:
    """Of one type to the reference, from (rounds, types)."""
    return paired_ratio(ns[:, 0], ns[:, index])


def _bits(type_: GGMLQuantizationType) -> float:
    block, block_bytes = GGML_QUANT_SIZES[type_]
    return float(8 * block_bytes / block)


def write_costs(report: TypesReport, path: Path) -> None:
    """Write the costs as a file for convert.costs.read_costs(), with the report that they come from.

    Raises:
        OutputError: the file cannot be written.
    """
    text = json.dumps(_cost_file(report), indent=1, allow_nan=False) + "\n"
    with output_errors(path):
        path.write_text(text, "utf-8")


def _cost_file(report: TypesReport) -> dict[str, Any]:
    def costs(place: str) -> dict[str, float]:
        return {cost.type: float(f"{getattr(cost, place).ns_per_weight:.4g}") for cost in report.costs}

    return {
        "target": host_target(),
        "cpu": report.machine.cpu,
        "date": report.date,
        "build": report.build.llama_cpp_python,
        **{part: costs(part) for part in PARTS},
        "measured": asdict(report),
    }


def type_costs_table(report: TypesReport) -> Table:
    """The types from the quickest in layers to the slowest, the circumstances below."""
    out = Table(
        title="Cost of a weight: ns in decode, its ratio to Q4_K (less is quicker), GB/s of weights",
        caption=Text(_caption(report)),
        caption_justify="left",
    )
    out.add_column("type")
    for name in (
        "bits",
        "layer",
        f"/ Q4_K ({RATIO_LEVEL})",
        "GB/s",
        "output",
        f"/ Q4_K ({RATIO_LEVEL})",
        "GB/s",
        f"layer, {SEQUENCES} at once",
        f"output, {SEQUENCES} at once",
        "prefill / Q4_K",
    ):
        out.add_column(name, justify="right")
    for cost in sorted(report.costs, key=lambda cost: cost.layer.ns_per_weight):
        out.add_row(
            cost.type,
            f"{cost.bits_per_weight:.2f}",
            *_cells(cost.layer),
            *_cells(cost.output),
            cost.layer_together.ratio.text(2),
            cost.output_together.ratio.text(2),
            cost.prefill.text(2),
        )
    return out


def _cells(cost: WeightCost) -> tuple[str, str, str]:
    return f"{cost.ns_per_weight:.4f}", cost.ratio.text(2), f"{cost.gb_per_s:.1f}"


def _caption(report: TypesReport) -> str:
    machine, settings = report.machine, report.settings
    lines = [
        "both repacked where this build can; output: tied to the embedding",
        f"medians of {report.rounds} rounds, tokens in a turn: {settings.prompt_tokens} of prompt, "
        f"{settings.decode_tokens} decoded, threads: {settings.threads}, cores: {machine.cores}, "
        f"load: {machine.load_average}",
        f"{machine.cpu} ({' '.join(machine.features)}), llama-cpp-python {report.build.llama_cpp_python}",
    ]
    if report.noisy:
        lines.insert(
            0,
            f"too noisy to settle (intervals of more than ±{NOISE_MAX:.0%}): {', '.join(report.noisy)}; "
            "take more rounds, or stop what else is running",
        )
    return "\n".join(lines)
