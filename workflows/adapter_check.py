"""Whether an adapter has an effect: on the weights, on the predictions, and after quantization."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.table import Table

from ..convert.convert import convert
from ..convert.merged_model import MergedModel
from ..convert.quantization import DEFAULT_TYPE
from ..convert.source.checkpoint import Checkpoint, open_checkpoint
from ..errors import ZeroAdapterError
from ..files.progress import QUIET, Run
from ..files.temporary_folder import temporary_folder
from ..quality.fidelity.adapter_effect import EFFECT_MIN, AdapterEffect
from ..quality.fidelity.fidelity import FidelityReport, run_fidelity
from ..quality.fidelity.kl_divergence import Divergence
from ..quality.fidelity.model_roles import ModelSource, Role
from ..stats.arrays import Floats
from .conversion_request import ConversionRequest
from .fidelity_check import comparison_models
from .importance_cache import PRECISION

POSITIONS = 384
KL_MIN = 1e-6  # nats; less is rounding
SURVIVING_MIN = 0.5  # slope and cosine of the effect in a quantized file, below which it counts as lost

_ROWS = 1024  # of a tensor, read at once
_LAYER_TENSOR = re.compile(r"model\.layers\.(\d+)\.(?:\w+\.)?(\w+)\.weight")


@dataclass(frozen=True, slots=True)
class MeasuredEffect:
    """Effect of an adapter on the predictions.

    Attributes:
        positions: number of predictions compared.
        moved: the adapted model against the base, both in high precision.
        agreement: effect of the adapter at run time against that of the merged one, in high precision; None
            if it has no form for run time, or the merged one has no effect.
        merged: what remains in the quantized file; None if there is no effect to begin with.
        run_time: what remains if the adapter is applied to the quantized base at run time; None as above.
    """

    positions: int
    moved: Divergence
    agreement: AdapterEffect | None
    merged: AdapterEffect | None
    run_time: AdapterEffect | None


@dataclass(frozen=True, slots=True)
class AdapterCheck:
    """Check of an adapter.

    Attributes:
        adapter: the adapter as the user named it.
        base: the base as the user named it.
        quantization: type or size of the quantized file.
        changes: size of each tensor's change, relative to the tensor; empty if the adapter changes nothing.
        effect: effect on the predictions; None if the adapter changes nothing.
        effective: whether the adapter has an effect, of which the quantized file keeps the most, and which is
            the same merged and at run time.
        verdict: the conclusion, in a line.
        warnings: messages for the user.
    """

    adapter: str
    base: str
    quantization: str
    changes: dict[str, float]
    effect: MeasuredEffect | None
    effective: bool
    verdict: str
    warnings: list[str]


def check_adapter(
    request: ConversionRequest, *, positions: int = POSITIONS, run: Run = QUIET
) -> AdapterCheck:
    """Measure the effect of an adapter on its base and, over the held-out texts, on the predictions.

    Args:
        request: base and adapter, and the type or size of the quantized file.
        positions: maximum number of compared predictions.
        run: how it runs.

    Raises:
        FileError: the adapter is damaged, or for another base.
        ThirteenError: another input is invalid, or the temporary files do not fit on the disk.
    """
    conversion, name = request.resolve(run), request.size or request.type or DEFAULT_TYPE
    base, adapter, ids = conversion.recipe.base, conversion.recipe.adapter, conversion.recipe.ids
    assert adapter is not None, "the request has one"
    try:
        changes = weight_changes(base, adapter, ids.adapter)
    except ZeroAdapterError as error:
        return AdapterCheck(ids.adapter, ids.base, name, {}, None, False, str(error), [])
    recipe, _ = conversion.measured(run)
    with temporary_folder("check") as folder:
        recipe = replace(recipe, output=folder / "quantized.gguf")
        report = convert(recipe, run, "quantized")
        with comparison_models(recipe, run) as (models, missing):
            effect = _measure_effect(models, positions, run)
    problem = find_problem(effect, name)
    verdict = problem or _summary(effect.merged, name)
    warnings = [*report.warnings, *missing]
    return AdapterCheck(ids.adapter, ids.base, name, changes, effect, problem is None, verdict, warnings)


def _measure_effect(models: dict[Role, ModelSource], positions: int, run: Run) -> MeasuredEffect:
    """Measure the effect before quantization and what is left of it; see comparison_models()."""

    def compare(models: dict[Role, ModelSource], title: str) -> FidelityReport:
        return run_fidelity(models, tokens=positions, threads=run.threads, progress=run.stage(title))

    base, reference = models["base"], models["reference"]  # made where there is an adapter
    lora = models["run_time"].adapter if "run_time" in models else None
    adapted = ModelSource(base.model, lora) if lora else reference
    moved = compare({"reference": base, "shipped": adapted}, "effect")
    agreement = None
    if lora:
        both: dict[Role, ModelSource] = {
            "reference": reference,
            "shipped": adapted,
            "base": base,
            "shipped_base": base,
        }
        agreement = compare(both, "merged and at run time").merged.effect
    kept = compare(models, "fidelity")
    run_time = kept.run_time.effect if kept.run_time else None
    return MeasuredEffect(moved.positions, moved.merged.divergence, agreement, kept.merged.effect, run_time)


def find_problem(effect: MeasuredEffect, quantization: str) -> str | None:
    """Problem of an adapter's effect, in a line; None if there is none."""
    if (moved := effect.moved.kl_mean.estimate) < KL_MIN:
        return f"no effect: the adapter moves the predictions by {moved:.1g} nats of KL"
    if effect.merged is None:
        return f"no effect once it is merged: in {PRECISION} its changes are rounded away"
    if _weakest(effect.merged) < SURVIVING_MIN:
        better = "a type with more bits"
        if effect.run_time and _weakest(effect.run_time) >= SURVIVING_MIN:
            better += f", or the adapter at run time ({_text(effect.run_time)})"
        return f"effect lost: merged in {quantization} it has {_text(effect.merged)}; take {better}"
    if effect.agreement and _weakest(effect.agreement) < EFFECT_MIN:
        return (
            f"in {PRECISION} the effect at run time is not that of the merged model: "
            f"{_text(effect.agreement)}"
        )
    return None


def _summary(merged: AdapterEffect | None, quantization: str) -> str:
    assert merged is not None, "find_problem() has found it"
    loss = (
        "" if _weakest(merged) >= EFFECT_MIN else "; a part of it is lost, a type with more bits keeps more"
    )
    return f"the adapter has an effect: merged in {quantization} it has {_text(merged)}{loss}"


def _weakest(effect: AdapterEffect) -> float:
    return min(effect.slope.estimate, effect.cosine.estimate)


def _text(effect: AdapterEffect) -> str:
    return f"slope {effect.slope.estimate:.2f}, cosine {effect.cosine.estimate:.2f}"


def effect_rows(check: AdapterCheck) -> dict[str, str]:
    """The effect on the predictions in a few named lines."""
    rows = {"adapter": check.adapter, "base": check.base}
    if check.effect is None:
        return rows
    moved, quantization = check.effect.moved, check.quantization
    changed = 100 * (1 - moved.same_top.estimate)
    effects = {
        f"at run time / merged, in {PRECISION}": check.effect.agreement,
        f"merged, in {quantization}": check.effect.merged,
        f"at run time, on {quantization}": check.effect.run_time,
    }
    return {
        **rows,
        "KL from the base": f"{moved.kl_mean.text(4)} nats",
        "changed top tokens": f"{changed:.1f} % of {check.effect.positions} positions",
        **{f"effect {name}": _text(effect) for name, effect in effects.items() if effect},
    }


def changes_table(changes: dict[str, float]) -> Table:
    """Tabulate the changes of the weights by layer and module."""
    by_place = dict[str, dict[str, float]]()
    for name, change in changes.items():
        layer = _LAYER_TENSOR.fullmatch(name)
        place, module = (f"layer {layer[1]}", layer[2]) if layer else ("others", name.removesuffix(".weight"))
        by_place.setdefault(place, {})[module] = change
    modules = list(dict.fromkeys(module for row in by_place.values() for module in row))
    table = Table("change in % of the weights' norm", box=None, pad_edge=False)
    for module in modules:
        table.add_column(module, justify="right")
    for place, row in by_place.items():
        table.add_row(place, *(f"{100 * row[module]:.3g}" if module in row else "" for module in modules))
    return table


def weight_changes(base: Path, adapter: Path, adapter_id: str = "") -> dict[str, float]:
    """Frobenius norm of each tensor's change over that of the tensor; only tensors that change are in it.

    Args:
        base: a folder of safetensors, or a GGUF.
        adapter: a PEFT folder.
        adapter_id: the adapter as the user named it; the folder's name by default.

    Raises:
        FileError: the base cannot be read; the adapter is damaged, cannot be merged, or is for another base.
        ZeroAdapterError: it changes nothing.
    """
    checkpoint = open_checkpoint(base)
    merged = MergedModel(checkpoint, adapter, adapter_id, tie=False)
    changes = {name: _change(checkpoint, merged, name) for name in merged.deltas or checkpoint.specs}
    return {name: change for name, change in changes.items() if change}


def _change(base: Checkpoint, merged: MergedModel, name: str) -> float:
    """The relative change of a tensor: from the factors, or where they do not tell all, from its rows."""
    delta, spec = merged.deltas.get(name), base.specs[name]
    step = spec.shape[0] if spec.heads else _ROWS  # of a permuted tensor, only whole heads can be read
    from_factors = delta is not None and delta.magnitude is None
    own, changed = 0.0, delta.norm**2 if delta is not None and from_factors else 0.0
    for start in range(0, spec.shape[0], step):
        rows = base.rows(name, start, min(start + step, spec.shape[0]))
        own += _squares(rows)
        if not from_factors:
            changed += _squares(merged.rows(name, start, start + len(rows)) - rows)
    return math.sqrt(changed / own) if own else math.inf if changed else 0.0


def _squares(rows: Floats) -> float:
    return float(np.sum(np.square(rows, dtype=np.float64)))
