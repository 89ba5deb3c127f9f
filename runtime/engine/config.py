"""Keywords of Engine(), and what they come to: a profile, the parameters of a context, adapter files."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypedDict

from ...errors import RequestError
from ..llama.context import ContextParams
from ..llama.gpu import check_gpu_layers
from ..profile import GpuLayers, Profile, profile_named
from ..request import BASE
from ..threads import default_threads
from ..validation import check_integer

QUEUE = 64
DEFAULT_ADAPTER = "adapter"  # name of the adapter given without one


class EngineOptions(TypedDict, total=False):
    """Keywords of Engine(), each optional.

    The profile has the defaults of context, slots, batch, kv, prefix_bytes, flash_attention and
    gpu_layers. What it leaves open is measured by the first engine for a processor and a model's
    shape, in about three seconds.

    Attributes:
        profile: what to allocate: "laptop" (the default), "server", "phone", or a Profile.
        adapter: a LoRA in a GGUF file, applied at run time to the requests that name no other.
        adapters: further adapters, by the names that requests give.
        context: maximum tokens per request, clamped to the context that the model was trained for; by
            default that of the profile, or a half or a quarter of it where memory is short.
        slots: number of requests that run at once. Each has memory for `context` tokens.
        threads: number of compute threads; by default the number that is fastest on this processor.
        adaptive_threads: whether to use fewer threads while other programs use the processors; by
            default if `threads` is not given.
        reproducible: whether they do so only where no bit of an answer depends on it, and prompts that have a
            date get always the same.
        batch: maximum tokens per step.
        kv: type of the KV cache, f16, bf16 or q8_0; by default the faster of f16 and bf16 on this
            processor, or q8_0 where memory is short.
        prefix_bytes: memory of the prefix cache; 0 turns it off.
        flash_attention: whether to compute attention without storing its scores; by default the way
            that is faster on this processor.
        gpu_layers: layers that a GPU computes, or "all": first the output matrix, which counts as
            one, then from the last layer on. 0 uses the processor alone.
        queue: maximum number of waiting requests (64 by default); more are refused.
        untrusted: whether to load the files in another process first, with limits, so that a file
            which crashes llama.cpp is a FileError. By default this is done with files that
            Thirteen did not write, once; True does it with all files, False with none.
    """

    profile: str | Profile
    context: int | None
    slots: int | None
    batch: int | None
    kv: str | None
    prefix_bytes: int | None
    flash_attention: bool | None
    gpu_layers: GpuLayers | None
    adapter: str | Path | None
    adapters: Mapping[str, str | Path] | None
    threads: int | None
    adaptive_threads: bool | None
    reproducible: bool
    queue: int
    untrusted: bool | None


def resolve_options(options: EngineOptions) -> tuple[Profile, ContextParams]:
    """Check the keywords, and apply them to the profile.

    Returns:
        The profile, and the parameters of the context. Its length is not yet clamped to the one that the
        model was trained for, and what is open is not yet chosen.

    Raises:
        RequestError: a number is out of range, a name is unknown, or there is no GPU for GPU layers.
    """
    if unknown := options.keys() - EngineOptions.__annotations__.keys():
        raise TypeError(f"Engine() has no keyword {min(unknown)!r}")
    given = options.get("profile", "laptop")
    changes: dict[str, Any] = {one.name: options.get(one.name) for one in fields(Profile)}
    changes = {name: value for name, value in changes.items() if value is not None}
    profile = replace(profile_named(given) if isinstance(given, str) else given, **changes)
    check_integer("prefix_bytes", profile.prefix_bytes, 0)
    check_gpu_layers(profile.gpu_layers)
    check_integer("queue", options.get("queue", QUEUE), 0, 1 << 20)
    threads, adaptive = options.get("threads"), options.get("adaptive_threads")
    params = ContextParams(
        context=profile.context,
        slots=profile.slots,
        batch=profile.batch,
        threads=default_threads() if threads is None else threads,
        outputs=profile.slots,
        kv=profile.kv_name,
        flash_attention=profile.flash_attention,
        adaptive_threads=threads is None if adaptive is None else adaptive,
        reproducible=options.get("reproducible", False),
    )
    return profile, params


def adapter_files(options: EngineOptions) -> dict[str, Path]:
    """Adapter files by the names that requests give.

    Raises:
        RequestError: a name is reserved.
    """
    adapter, adapters = options.get("adapter"), options.get("adapters") or {}
    if reserved := {BASE, DEFAULT_ADAPTER} & adapters.keys():
        raise RequestError(f"adapters: the name {min(reserved)!r} is reserved")
    named = {**adapters, DEFAULT_ADAPTER: adapter} if adapter is not None else adapters
    return {name: Path(file) for name, file in named.items()}
