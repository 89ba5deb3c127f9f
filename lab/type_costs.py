"""Cost of a weight of each ggml type on this processor, measured end to end.

python lab/type_costs.py costs.json [--library ik] [--rounds 20]

A smaller type is not always faster: that depends on the kernels that the build has for the processor. The
engine decodes two random models of each type, loaded like real ones: one is all layers, the other all output
matrix. The time of a token, less that in a model with next to no weights, divided by the weights, is the cost
of a weight. The table is for `thirteen convert --target`, or for convert/quantize/costs.json.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import typer
from gguf import GGMLQuantizationType
from thirteen.bench.environment import ModelSource
from thirteen.bench.rounds import ProgressCounter, alternating_order
from thirteen.bench.workload import Workload, load_engine, random_prompt, time_answers
from thirteen.cli.console import progress_bar
from thirteen.convert.quantize.costs import PARTS, REFERENCE, host_target
from thirteen.convert.tensors import parse_type
from thirteen.files.cache_folder import temporary_folder
from thirteen.files.output import write_file
from thirteen.files.processors import processor_name
from thirteen.files.progress import Progress
from thirteen.lab.random_model import ProbeShape, count_matrix_weights, write_probe_models
from thirteen.runtime.defaults import IK_TYPES
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine_options import EngineOptions
from thirteen.runtime.llama.model import read_model_header
from thirteen.runtime.llama.settings import LLAMA, PACKAGES
from thirteen.runtime.plan import EnginePlan
from thirteen.stats import Doubles

TYPES = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "F16", "BF16"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S"),
)
DECODE_TOKENS = 4  # many short iterations: disturbances on a shared machine last for seconds
PROMPT_TOKENS = 64  # enough for the kernels that multiply matrices
_TOGETHER = 7  # types loaded at once; ik_llama.cpp keeps no more than 21 models, two of each type
_NET_MIN = 0.01  # least share of a time that counts as the weights', so that ratios exist despite noise

Costs = dict[str, dict[str, float]]  # by part of a table, then by type


def measured_types(names: Sequence[str]) -> tuple[GGMLQuantizationType, ...]:
    """The types of these names, without duplicates, after the reference."""
    return tuple(dict.fromkeys(map(parse_type, (REFERENCE, *names))))


def weight_costs(
    shape: ProbeShape, types: Sequence[GGMLQuantizationType], seconds_per_token: Doubles
) -> Costs:
    """Costs in nanoseconds, medians over the rounds.

    Args:
        shape: shape of the models.
        types: the types.
        seconds_per_token: seconds per token of the models of write_probe_models() in prefill and in decode,
            (rounds, 1 + 2 * types, 2).
    """
    overhead = np.median(seconds_per_token[:, 0], axis=0)  # (2,)
    net = np.maximum(seconds_per_token[:, 1:] - overhead, _NET_MIN * seconds_per_token[:, 1:])
    minimal = count_matrix_weights(shape.minimal)
    weights = [count_matrix_weights(model) - minimal for model in (shape.all_layers, shape.all_output)]
    ns = 1e9 * np.median(net, axis=0).reshape(len(types), 2, 2) / np.array(weights)[:, None]
    values = (ns[:, 0, 1], ns[:, 1, 1], ns[:, 0, 0])  # decode in layers and output, prefill in layers
    names = [type_.name for type_ in types]
    return {
        part: dict(zip(names, (float(f"{one:.4g}") for one in costs), strict=True))
        for part, costs in zip(PARTS, values, strict=True)
    }


def write_table(path: Path, costs: Costs, target: str, library: str, build: str) -> None:
    """Write a table for convert.quantize.costs.read_costs(), and print its ratios to Q4_K."""
    facts = {"library": library, "target": target, "cpu": processor_name(), "build": build}
    table: dict[str, Any] = facts | {"date": datetime.now(UTC).date().isoformat(), **costs}
    write_file(path, (json.dumps(table, indent=1) + "\n").encode())
    print("cost of a weight / Q4_K:", *PARTS)
    for name in costs[PARTS[0]]:
        print(f"{name:8}", *(f"{costs[part][name] / costs[part][REFERENCE]:.2f}" for part in PARTS))


def measure(
    types: Sequence[GGMLQuantizationType], library: str, rounds: int, shape: ProbeShape, progress: Progress
) -> Costs:
    """Measure some types in this process; the first is the reference."""
    workload = Workload(PROMPT_TOKENS, DECODE_TOKENS)
    advance = ProgressCounter(progress, (1 + 2 * len(types)) * (2 + rounds))

    def unproven_engine(model: Path, **options: Any) -> Engine:
        """An engine for times alone, whose library need not compute the file as llama.cpp does."""
        settings = EngineOptions(library=library, **options).settings()
        return Engine(EnginePlan(read_model_header(model), settings, settings.context))

    def run_round(number: int) -> Doubles:
        seconds = np.empty((len(engines), 2))
        for index in alternating_order(len(engines), number):
            prompt = random_prompt(engines[index].model, number, PROMPT_TOKENS)
            first_s, last_s = time_answers(engines[index], prompt, (1, 1 + DECODE_TOKENS))
            seconds[index] = first_s, last_s - first_s
            advance()
        return seconds / (PROMPT_TOKENS, DECODE_TOKENS)

    with temporary_folder("types") as folder, ExitStack() as loaded:
        engines = []
        for path in write_probe_models(folder, shape, types):
            engines.append(loaded.enter_context(load_engine(ModelSource(path), workload, unproven_engine)))
            advance()
        run_round(rounds)  # warm-up, with a number of its own
        return weight_costs(shape, types, np.array([run_round(number) for number in range(rounds)]))


def main(output: Path, library: str = LLAMA, rounds: int = 20) -> None:
    """Measure the costs, and write them as a table."""
    names = [name for name in TYPES if library == LLAMA or parse_type(name) in IK_TYPES]
    costs: Costs = {part: {} for part in PARTS}
    with progress_bar("types") as progress:
        for at in range(0, len(names), _TOGETHER):
            types = measured_types(names[at : at + _TOGETHER])
            for part, found in measure(types, library, rounds, ProbeShape(), progress).items():
                costs[part] = found | costs[part]
    build = f"{PACKAGES[library]} {version(PACKAGES[library])}"
    write_table(output, costs, host_target(), library, build)


if __name__ == "__main__":
    typer.run(main)
