"""Attachment of a new PEFT adapter to a frozen model."""
# ruff: noqa: PLC0415 - torch and peft take seconds to import and come with an extra

from __future__ import annotations

from typing import Any

from ..convert.adapter.basis import TARGET_MODULES, Basis
from ..errors import AdapterError, CheckpointError, as_line
from .recipe import Recipe


def attach_adapter(model: Any, recipe: Recipe, basis: Basis | None = None) -> Any:
    """Wrap `model` in a new adapter, the only part that trains. The output is unchanged before training.

    Args:
        model: transformers model; it is modified in place.
        recipe: kind and shape of the adapter.
        basis: the frozen factors and projections of a TinyLoRA, which allow the trained numbers to be encoded
            as a short code; by default PEFT computes its own.

    Returns:
        The PEFT model.

    Raises:
        AdapterError: the basis is of another base.
        CheckpointError: PEFT cannot adapt the model, as where no module has one of the adapted names.
    """
    from peft import LoraConfig, TinyLoraConfig, get_peft_model

    shared = {"task_type": "CAUSAL_LM", "target_modules": list(TARGET_MODULES), "r": recipe.rank}
    if recipe.kind == "lora":
        config = LoraConfig(lora_alpha=recipe.alpha, bias="none", **shared)
    else:
        config = TinyLoraConfig(
            u=recipe.numbers,
            weight_tying=1.0,
            projection_seed=recipe.projection_seed,
            save_projection=True,
            **shared,
        )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise CheckpointError(f"PEFT cannot adapt the base: {as_line(str(error)):.200}") from error
    if basis:
        _copy_basis(adapted, basis)
    return adapted


def _copy_basis(adapted: Any, basis: Basis) -> None:
    import torch

    modules = dict(adapted.named_modules())
    with torch.no_grad():
        for name, array in basis.tensors().items():
            module, _, part = name.rpartition(".")
            found = getattr(modules.get(module), part, {})
            shape = tuple(found["default"].shape) if "default" in found else None
            if shape != array.shape:
                raise AdapterError(
                    f"the basis is of {basis.origin.name}: its {name!r} is {array.shape}, the model's {shape}"
                )
            found["default"].copy_(torch.from_numpy(array))


def trained_numbers(model: Any) -> int:
    """The number of parameters that require a gradient."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
