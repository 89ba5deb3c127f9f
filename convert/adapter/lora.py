"""Reads LoRA (arXiv 2106.09685), rsLoRA (2312.03732) and DoRA (2402.09353); B includes the scale."""

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FileError, shorten
from .delta import CONFIG_FILE, Delta, ModuleTensors, check_factors, check_rank, take_factors

_Patterns = list[tuple[re.Pattern[str], Any]]
# Expressions that could take long: with repeated groups, with flags, or with more than two repeats.
_SLOW = re.compile(r"\)[*+{?]|\(\?|([*+{].*){3}")
_EXPRESSIONS_MAX, _LENGTH_MAX = 100, 1000  # of one setting, without plain names; characters of one


def read_lora(
    folder: Path, config: Mapping[str, Any], tensors: ModuleTensors
) -> tuple[dict[str, Delta], str]:
    """Read the deltas by module, and the kind: lora, rslora or dora.

    Raises:
        FileError: tensors are missing or left over, or do not fit each other or the config.
    """
    use_dora = bool(config.get("use_dora"))
    ranks, alphas = (_patterns(folder, config, key) for key in ("rank_pattern", "alpha_pattern"))
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
        check_rank(folder, module, len(a), _by_pattern(ranks, module, config.get("r")))
        alpha = _by_pattern(alphas, module, config.get("lora_alpha"))
        scaled = (b * np.float32(_scale(folder, config, module, len(a), alpha))).astype(np.float32)
        if magnitude and magnitude[0].shape != (len(b),):
            raise FileError(f"{folder}: the magnitude of {module!r} is {magnitude[0].shape}, not ({len(b)},)")
        deltas[module] = Delta(scaled, a, *magnitude)
    return deltas, "dora" if use_dora else "rslora" if config.get("use_rslora") else "lora"


def _scale(folder: Path, config: Mapping[str, Any], module: str, rank: int, alpha: Any) -> float:
    """The factor of B·A: alpha / r, or alpha / sqrt(r) for rsLoRA."""
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 1e38:
        raise FileError(f"{folder / CONFIG_FILE}: lora_alpha is {shorten(alpha)} for {module!r}")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: _Patterns, module: str, default: Any) -> Any:
    """A module's value by PEFT's rule: the first pattern that matches the end of its name."""
    return next((value for pattern, value in patterns if pattern.match(module)), default)


def _patterns(folder: Path, config: Mapping[str, Any], key: str) -> _Patterns:
    """The patterns of a setting with their values; FileError for those that could take long to match."""
    values = config.get(key) or {}
    if not isinstance(values, dict):
        raise FileError(f"{folder / CONFIG_FILE}: {key} is not an object")
    expressions = [pattern for pattern in values if not re.fullmatch(r"[\w.]*", pattern)]
    slow = [pattern for pattern in expressions if len(pattern) > _LENGTH_MAX or _SLOW.search(pattern)]
    if found := slow or expressions[_EXPRESSIONS_MAX:]:
        raise FileError(f"{folder / CONFIG_FILE}: the {key} {shorten(found[0])} is too complex")
    return [(_compile(folder, key, pattern), value) for pattern, value in values.items()]


def _compile(folder: Path, key: str, pattern: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of "[[", which means the same to PEFT today
            return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, OverflowError) as failure:
        raise FileError(f"{folder / CONFIG_FILE}: invalid {key} {shorten(pattern)}: {failure}") from None
