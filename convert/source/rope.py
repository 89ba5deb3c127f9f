"""RoPE scaling: how a checkpoint's config and a GGUF store it, and the divisors of the frequencies.

The rules are those of transformers' `modeling_rope_utils.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...errors import FileError, shorten
from ...stats.arrays import Floats
from .config_values import count, number, numbers

FACTORS, LONG_FACTORS, SHORT_FACTORS = (
    f"rope_{name}.weight" for name in ("freqs", "factors_long", "factors_short")
)


@dataclass(frozen=True)
class Llama3Scaling:
    """RoPE scaling of Llama 3: long wavelengths are stretched by `factor`, short ones are unchanged.

    Attributes:
        kind: its name in a config.
        names: names of its tensors in a GGUF.
    """

    kind: ClassVar = "llama3"
    names: ClassVar = (FACTORS,)
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int

    def tensors(self, theta: float, width: int) -> dict[str, Floats]:
        """Divisors of the frequencies, (width / 2,), by the rule of `_compute_llama3_parameters`."""
        exponents = np.arange(0, width, 2, dtype=np.float32) / width
        wavelengths = 2 * math.pi * np.float32(theta) ** exponents
        rotations = self.original_context / wavelengths  # within the original context
        low, high = self.low_freq_factor, self.high_freq_factor
        smooth = np.clip((rotations - low) / (high - low), 0, 1)
        return {FACTORS: np.asarray(1 / ((1 - smooth) / self.factor + smooth), dtype=np.float32)}


@dataclass(frozen=True)
class LongRope:
    """RoPE scaling of Phi-3 (arXiv 2402.13753): two lists of divisors, for contexts beyond the original.

    Attributes:
        kind: its name in a config.
        names: names of its tensors in a GGUF.
    """

    kind: ClassVar = "longrope"
    names: ClassVar = (LONG_FACTORS, SHORT_FACTORS)
    long: tuple[float, ...]
    short: tuple[float, ...]

    def tensors(self, theta: float, width: int) -> dict[str, Floats]:
        """Divisors of the frequencies, (width / 2,)."""
        return {LONG_FACTORS: np.array(self.long, "f"), SHORT_FACTORS: np.array(self.short, "f")}


def find_rope(config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Find the RoPE settings, which transformers 5 calls `rope_parameters`."""
    for key in ("rope_scaling", "rope_parameters"):  # the first takes precedence there too
        value = config.get(key) or {}
        if not isinstance(value, Mapping):
            raise FileError(f"{where}: {key} is {shorten(value)}, not an object")
        if value:
            return value
    return {}


def read_scaling(rope: Mapping[str, Any], context: int, width: int, where: str) -> dict[str, Any]:
    """The scaling as attributes of Architecture.

    Args:
        rope: the settings.
        context: the longest context, in tokens.
        width: dimensions of a head that are rotated.
        where: names the config in errors.

    Raises:
        FileError: the kind is not supported, or a value is missing or out of range.
    """
    match kind := rope.get("rope_type", rope.get("type", "default")):
        case "default":
            return {}
        case "linear":
            return {"rope_linear": number(rope, "factor", where)}
        case "llama3":
            return {"scaling": _llama3(rope, where)}
        case "longrope":
            return _long(rope, context, width, where)
    raise FileError(
        f"{where}: rope scaling {shorten(kind)} is not supported; "
        "supported: default, linear, llama3, longrope"
    )


def _llama3(rope: Mapping[str, Any], where: str) -> Llama3Scaling:
    scaling = Llama3Scaling(
        factor=number(rope, "factor", where),
        low_freq_factor=number(rope, "low_freq_factor", where),
        high_freq_factor=number(rope, "high_freq_factor", where),
        original_context=count(rope, "original_max_position_embeddings", where),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise FileError(
            f"{where}: high_freq_factor {scaling.high_freq_factor} "
            f"is not above low_freq_factor {scaling.low_freq_factor}"
        )
    return scaling


def _long(rope: Mapping[str, Any], context: int, width: int, where: str) -> dict[str, Any]:
    original = count(rope, "original_max_position_embeddings", where)
    factor = number(rope, "factor", where, context / original)
    default = math.sqrt(1 + math.log(factor) / math.log(max(original, 2))) if factor > 1 else 1.0
    long, short = (numbers(rope, f"{name}_factor", width // 2, where) for name in ("long", "short"))
    return {
        "scaling": LongRope(long, short),
        "rope_original": original,
        "rope_attention_factor": number(rope, "attention_factor", where, default),
    }
