"""RoPE scaling: the divisors of the frequencies, by transformers' `modeling_rope_utils.py`."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...stats.arrays import Floats

FACTORS, LONG_FACTORS, SHORT_FACTORS = (
    f"rope_{name}.weight" for name in ("freqs", "factors_long", "factors_short")
)


@dataclass(frozen=True)
class Llama3Scaling:
    """RoPE scaling of Llama 3: long wavelengths are stretched by `factor`, short ones are unchanged."""

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
    """RoPE scaling of Phi-3 (arXiv 2402.13753): two lists of divisors, for contexts beyond the original."""

    kind: ClassVar = "longrope"
    names: ClassVar = (LONG_FACTORS, SHORT_FACTORS)
    long: tuple[float, ...]
    short: tuple[float, ...]

    def tensors(self, theta: float, width: int) -> dict[str, Floats]:
        """Divisors of the frequencies, (width / 2,)."""
        return {LONG_FACTORS: np.array(self.long, "f"), SHORT_FACTORS: np.array(self.short, "f")}
