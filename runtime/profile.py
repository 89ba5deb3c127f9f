"""Profiles: default memory and concurrency of an engine for a class of machine."""

from dataclasses import dataclass
from typing import Literal

from gguf.constants import GGMLQuantizationType as Type

from ..errors import RequestError

KV_TYPES = {"f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0}  # types of the KV cache by option name
QUANTIZED_KV = {"q8_0"}  # those that only flash attention reads
DEFAULT_KV = "f16"
CONTEXT = 4096  # tokens of a context, where the model and the memory allow as many
CHOSEN = ("flash_attention", "kv")  # fields of Profile that may be left open
# Tokens that standard attention computes at once. With more, prefill of long prompts is no faster, and the
# scores need more memory.
_STANDARD_ATTENTION_TOKENS = 256

GpuLayers = int | Literal["all"]


def micro_batch_tokens(batch: int, flash_attention: bool | None) -> int:
    """Tokens computed at once, at most, in batches of so many."""
    return min(batch, _STANDARD_ATTENTION_TOKENS) if flash_attention is False else batch


@dataclass(frozen=True, slots=True)
class Profile:
    """Memory and settings of an engine.

    Attributes:
        context: maximum tokens of a request, prompt and answer together.
        slots: requests that run at once.
        batch: maximum tokens of a step.
        kv: type of the KV cache, one of KV_TYPES; q8_0 takes about half the memory of f16. None for the
            faster of f16 and bf16 on this processor, or q8_0 where memory is short.
        repack: whether to repack weights for this processor: faster, but a second copy of them in memory.
        prefix_bytes: memory of the prefix cache; 0 turns it off.
        flash_attention: whether attention is computed without storing its scores; None for the faster way on
            this processor. A KV cache in q8_0 needs it.
        gpu_layers: layers that a GPU computes, or "all": first the output matrix, which counts as one, then
            from the last layer on. 0 is the processor alone.
    """

    context: int
    slots: int
    batch: int
    kv: str | None
    repack: bool
    prefix_bytes: int
    flash_attention: bool | None = None
    gpu_layers: GpuLayers = 0

    @property
    def kv_name(self) -> str:
        """Type of the KV cache; while it is open, one of the same size."""
        return self.kv or DEFAULT_KV


PROFILES = {
    "laptop": Profile(context=CONTEXT, slots=4, batch=512, kv=None, repack=True, prefix_bytes=256 << 20),
    "server": Profile(context=CONTEXT, slots=8, batch=512, kv=None, repack=True, prefix_bytes=1 << 30),
    "phone": Profile(context=2048, slots=1, batch=64, kv="q8_0", repack=False, prefix_bytes=16 << 20),
}


def profile_named(name: str) -> Profile:
    """Look up a profile.

    Raises:
        RequestError: there is no profile of this name.
    """
    if name not in PROFILES:
        raise RequestError(f"profile: {name!r} is not one of {', '.join(PROFILES)}")
    return PROFILES[name]
