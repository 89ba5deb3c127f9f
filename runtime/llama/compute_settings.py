"""Settings that change the speed of a computation: attention, KV type, threads."""

from dataclasses import dataclass, replace
from itertools import product

from gguf.constants import GGML_QUANT_SIZES

from ...files.gguf.header import Header
from ...files.gguf.model_shape import read_model_shape
from ...files.processors import multiplies_bf16
from ..profile import DEFAULT_KV, KV_TYPES, QUANTIZED_KV, Profile
from ..threads import default_threads
from .memory_estimate import fits_in_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeSettings:
    """Settings that change the speed, and otherwise only the last bits of the logits.

    Attributes:
        threads: threads for batches of one token (decode).
        prefill_threads: threads for larger batches; 0 is as many.
        flash_attention: whether attention is computed without storing its scores; None leaves it to
            llama.cpp, which looks at the devices. Standard attention cannot read a quantized KV cache.
        kv: type of the KV cache, one of KV_TYPES.
    """

    threads: int
    prefill_threads: int = 0
    flash_attention: bool | None = True
    kv: str = DEFAULT_KV

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefill_threads", self.prefill_threads or self.threads)


def limit_settings(profile: Profile, header: Header, threads: int) -> Profile:
    """Decide what is open for memory's sake: flash attention, and then a KV cache in q8_0.

    This is for before the model is loaded: afterwards, the memory of its weights is no longer available.
    """
    if profile.gpu_layers:
        return profile
    options = [
        replace(profile, flash_attention=flash, kv=kv)
        for flash, kv in ((False, profile.kv), (True, profile.kv), (True, "q8_0"))
        if profile.flash_attention in {None, flash} and profile.kv in {None, kv} and holds_heads(header, kv)
    ]
    fitting = [one for one in options if fits_in_memory(header, one, threads)]
    if not fitting or all(one in fitting for one in options if one.kv == profile.kv):
        return profile  # nothing helps, or nothing is short
    return fitting[0]


def fit_context(profile: Profile, header: Header, threads: int) -> Profile:
    """Halve the context, up to twice, until the model fits in memory; see limit_settings() for the rest."""
    for halvings in range(3):
        limited = limit_settings(replace(profile, context=profile.context >> halvings), header, threads)
        if limited.context and fits_in_memory(header, limited, threads):
            return limited
    return limit_settings(profile, header, threads)


def open_settings(profile: Profile, threads: int | None, header: Header) -> list[ComputeSettings]:
    """The combinations of attention and KV type that are open, the default first."""
    count = threads or default_threads()
    kinds = [profile.kv] if profile.kv else [DEFAULT_KV, *(["bf16"] if multiplies_bf16() else [])]
    ways = [
        (flash, kv)
        for kv, flash in product(kinds, (True, False))
        if profile.flash_attention in {None, flash} and (flash or kv not in QUANTIZED_KV)
    ]
    return [ComputeSettings(threads=count, flash_attention=flash, kv=kv) for flash, kv in ways]


def holds_heads(header: Header, kv: str | None) -> bool:
    """Whether the model's heads are whole blocks of a type of the KV cache."""
    block = GGML_QUANT_SIZES[KV_TYPES[kv or DEFAULT_KV]][0]
    return not read_model_shape(header).head_dim % block
