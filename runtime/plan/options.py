"""Keywords of Engine(), and their defaults by profile."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from ...errors import RequestError
from ..machine.threads import default_threads
from ..native.gpu import check_gpu_layers
from ..native.ik_llama_library import check_package
from ..native.settings import DEFAULT_KV, LIBRARIES, GpuLayers, Settings
from ..request import BASE, DEFAULT_ADAPTER
from ..validation import check_integer

QUEUE = 64
_LIBRARY_VARIABLE = "THIRTEEN_LIBRARY"


class EngineOptions(TypedDict, total=False):
    """Keywords of Engine(), each optional.

    The profile has the defaults of what an engine allocates. What it leaves open is measured by the first
    engine for a processor and a model's shape, in about three seconds.

    Attributes:
        profile: a class of machine: "laptop" (the default), "server" or "phone".
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
        repack: whether to repack weights for this processor: faster, but a second copy of them in memory.
        prefix_bytes: memory of the prefix cache; 0 turns it off.
        flash_attention: whether to compute attention without storing its scores; by default the way
            that is faster on this processor.
        gpu_layers: layers that a GPU computes, or "all": first the output matrix, which counts as
            one, then from the last layer on. 0 uses the processor alone.
        library: what computes: "llama.cpp", "ik" (ik_llama.cpp, an optional package), or "auto", the faster
            of those that are installed and proven on the file. By default the environment variable
            THIRTEEN_LIBRARY, or "auto".
        queue: maximum number of waiting requests (64 by default); more are refused.
        untrusted: whether to load the files in another process first, with limits, so that a file
            which crashes llama.cpp is a FileError. By default this is done with files that
            Thirteen did not write, once; True does it with all files, False with none.
    """

    profile: str
    context: int | None
    slots: int | None
    batch: int | None
    kv: str | None
    repack: bool | None
    prefix_bytes: int | None
    flash_attention: bool | None
    gpu_layers: GpuLayers | None
    library: str | None
    adapter: str | Path | None
    adapters: Mapping[str, str | Path] | None
    threads: int | None
    adaptive_threads: bool | None
    reproducible: bool
    queue: int
    untrusted: bool | None


# Tokens of a context, where the model and the memory allow as many.
CONTEXT = 4096
PROFILES = {
    "laptop": EngineOptions(context=CONTEXT, slots=4, batch=512, prefix_bytes=256 << 20),
    "server": EngineOptions(context=CONTEXT, slots=8, batch=512, prefix_bytes=1 << 30),
    "phone": EngineOptions(context=2048, slots=1, batch=64, prefix_bytes=16 << 20, kv="q8_0", repack=False),
}


def with_profile(options: EngineOptions) -> EngineOptions:
    """The options, with the profile's values of those that are not given.

    Raises:
        RequestError: there is no such profile.
        TypeError: there is no such keyword.
    """
    if unknown := options.keys() - EngineOptions.__annotations__.keys():
        raise TypeError(f"Engine() has no keyword {min(unknown)!r}")
    if (profile := options.get("profile", "laptop")) not in PROFILES:
        raise RequestError(f"profile: {profile!r} is not one of {', '.join(PROFILES)}")
    given = {name: value for name, value in options.items() if value is not None}
    return cast(EngineOptions, {**PROFILES[profile], **given})


def default_settings(options: EngineOptions) -> Settings:
    """Check the options, and take the default of what they leave open.

    Returns:
        Settings, whose context is not yet clamped to the one that the model was trained for.

    Raises:
        RequestError: a number is out of range, a name is unknown, or there is no GPU for GPU layers.
        FileError: the library is not installed.
        TypeError: with_profile() raises it.
    """
    full = with_profile(options)
    check_gpu_layers(layers := full.get("gpu_layers", 0))
    check_integer("queue", full.get("queue", QUEUE), 0, 1 << 20)
    names = Settings.__dataclass_fields__.keys() & full.keys()
    library = requested_library(options) or LIBRARIES[0]
    if library != LIBRARIES[0]:
        check_package()
        names -= set() if options.get("kv") else {"kv"}  # of a profile: the library has one type alone
    defaults = {
        "threads": default_threads(),
        "adaptive_threads": "threads" not in full,
        "flash_attention": None if layers else library == LIBRARIES[0],
        "kv": DEFAULT_KV,
    }
    given = {name: full[name] for name in names}  # type: ignore[literal-required]
    return Settings(**{**defaults, **given, "library": library})


def requested_library(options: EngineOptions) -> str | None:
    """The library that the options or the environment name; None if it is open.

    Raises:
        RequestError: there is no such library.
    """
    name = options.get("library") or os.environ.get(_LIBRARY_VARIABLE) or "auto"
    if name not in {*LIBRARIES, "auto"}:
        raise RequestError(f"library must be one of {', '.join(LIBRARIES)} or auto, not {name!r}")
    return None if name == "auto" else name


def named_adapters(options: EngineOptions) -> dict[str, str | Path]:
    """The adapters by the names that requests give.

    Raises:
        RequestError: a name is reserved.
    """
    adapter, adapters = options.get("adapter"), options.get("adapters") or {}
    if reserved := {BASE, DEFAULT_ADAPTER} & adapters.keys():
        raise RequestError(f"adapters: the name {min(reserved)!r} is reserved")
    return {**adapters, DEFAULT_ADAPTER: adapter} if adapter is not None else {**adapters}
