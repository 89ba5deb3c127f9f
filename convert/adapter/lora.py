"""Reads LoRA (arXiv 2106.09685), rsLoRA (2312.03732) and DoRA (2402.09353); B includes the scale."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import AdapterError, shorten
from .delta import CONFIG_FILE, Delta, ModuleTensors, check_factors, check_rank, take_factors


def read_lora(
    folder: Path, config: Mapping[str, Any], tensors: ModuleTensors
) -> tuple[dict[str, Delta], str]:
    """Read the deltas by module, and the kind: lora, rslora or dora.

    Raises:
        AdapterError: tensors are missing or left over, or do not fit each other or the config.
    """
    use_dora = bool(config.get("use_dora"))
    deltas = {}
    for module, parts in tensors.items():
        embedding = "lora_embedding_A" in parts
        names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
        a, b, *magnitude = take_factors(
            folder, module, parts, (*names, *(("lora_magnitude_vector",) if use_dora else ()))
        )
        if embedding:  # saved transposed: (r, vocabulary) and (hidden, r)
            a, b = b.T, a.T
        check_factors(folder, module, a, b)
        scaled = (b * np.float32(_scale(folder, config, module, len(a)))).astype(np.float32)
        if magnitude and magnitude[0].shape != (len(b),):
            raise AdapterError(
                f"{folder}: the magnitude of {module!r} is {magnitude[0].shape}, not ({len(b)},)"
            )
        deltas[module] = Delta(scaled, a, *magnitude)
    return deltas, "dora" if use_dora else "rslora" if config.get("use_rslora") else "lora"


def _scale(folder: Path, config: Mapping[str, Any], module: str, rank: int) -> float:
    """The factor of B·A: alpha / r, or alpha / sqrt(r) for rsLoRA."""
    check_rank(folder, module, rank, _by_pattern(folder, config, "rank_pattern", module, config.get("r")))
    alpha = _by_pattern(folder, config, "alpha_pattern", module, config.get("lora_alpha"))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 1e38:
        raise AdapterError(f"{folder / CONFIG_FILE}: lora_alpha is {shorten(alpha)} for {module!r}")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(folder: Path, config: Mapping[str, Any], key: str, module: str, default: Any) -> Any:
    """A module's value by PEFT's rule: the first pattern that matches the end of its name."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise AdapterError(f"{folder / CONFIG_FILE}: {key} is not an object")
    for pattern, value in patterns.items():
        # An untrusted pattern must not backtrack exponentially: few repeats, one group, no repeated group.
        repeats, groups = len(re.findall(r"[*+{?]", pattern)), pattern.count("(")
        if repeats > 3 or groups > 1 or re.search(r"\)[*+{]", pattern):
            raise AdapterError(f"{folder / CONFIG_FILE}: the {key} {shorten(pattern)} is too complex")
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except (re.error, OverflowError) as failure:
            raise AdapterError(
                f"{folder / CONFIG_FILE}: invalid {key} {shorten(pattern)}: {failure}"
            ) from None
    return default
