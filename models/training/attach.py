"""Adapters as PEFT trains them, put into a model so that they change nothing yet."""
# ruff: noqa: PLC0415 - torch and peft take seconds to import and come with an extra

from __future__ import annotations

from typing import Any

from ...convert.adapter.basis import TARGET_MODULES, Basis
from .recipe import Recipe


def attach_adapter(model: Any, recipe: Recipe, basis: Basis | None = None) -> Any:
    """Wrap `model` in a new adapter; nothing else of it trains.

    Args:
        model: as base_model.load() gives it; from here on it runs through the adapter.
        recipe: which adapter.
        basis: for TinyLoRA, whose factors and projections are to be the frozen ones, so that the numbers can
            be passed on as a code; else they are PEFT's own.

    Returns:
        The PEFT model.
    """
    from peft import LoraConfig, TinyLoraConfig, get_peft_model

    shared = {"task_type": "CAUSAL_LM", "target_modules": list(TARGET_MODULES), "r": recipe.rank}
    if recipe.kind == "lora":
        return get_peft_model(model, LoraConfig(lora_alpha=recipe.alpha, bias="none", **shared))
    config = TinyLoraConfig(
        u=recipe.numbers,
        weight_tying=1.0,
        projection_seed=recipe.projection_seed,
        save_projection=True,
        **shared,
    )
    adapted = get_peft_model(model, config)
    if basis:
        _set_frozen(adapted, basis)
    return adapted


def _set_frozen(adapted: Any, basis: Basis) -> None:
    import torch

    modules = dict(adapted.base_model.model.named_modules())
    for name, of in basis.factors.items():
        parts = {"tinylora_A": of.a, "tinylora_B": of.b, "tinylora_P": of.p}
        for part, rows in parts.items():
            held = getattr(modules[name], part)["default"]
            with torch.no_grad():
                held.copy_(torch.from_numpy(rows))


def trained_numbers(model: Any) -> int:
    """How many numbers of a model train."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
