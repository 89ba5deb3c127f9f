"""Options of an engine: what its user gives, and the defaults of each profile."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RequestError, build_hint
from .defaults import FLASH, IK_STANDARD, Way
from .llama.llama_cpp_library import SLOTS_MAX, gpu_found
from .llama.settings import BATCH_MAX, IK, KV_TYPES, LIBRARIES, QUANTIZED_KV, GpuLayers, Settings
from .machine import default_threads
from .options import BASE, DEFAULT_ADAPTER, check_integer

QUEUE = 64
_LIBRARY_VARIABLE = "THIRTEEN_LIBRARY"

# Classes of machines: what an engine allocates where nothing else is given.
PROFILES: dict[str, dict[str, Any]] = {
    "laptop": {"context": 4096, "slots": 4, "batch": 512, "prefix_bytes": 256 << 20},
    "server": {"context": 4096, "slots": 8, "batch": 512, "prefix_bytes": 1 << 30},
    "phone": {
        **{"context": 2048, "slots": 1, "batch": 64, "prefix_bytes": 16 << 20, "repack": False},
        "kv": "q8_0",
    },
}
# The library's own limits, or far beyond use where it has none.
_RANGES = {
    "context": (1, 1 << 22),
    "slots": (1, SLOTS_MAX),
    "batch": (1, BATCH_MAX),
    "threads": (1, 512),  # GGML_MAX_N_THREADS
    "prefix_bytes": (0, None),
    "queue": (0, 1 << 20),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """Keywords of Engine(). None is the default of the profile or of runtime/defaults.py.

    Raises:
        RequestError: a number is out of range, a name is unknown or reserved, options contradict each other,
            or there is no GPU for GPU layers.
    """

    profile: str = "laptop"  # a class of machine: laptop, server or phone
    adapter: str | Path | None = None  # a LoRA for requests that name no other
    adapters: Mapping[str, str | Path] | None = None  # further adapters, by the names that requests give
    context: int | None = None  # maximum tokens per request, at most what the model was trained for
    slots: int | None = None  # number of requests that run at once. Each has memory for `context` tokens
    batch: int | None = None
    threads: int | None = None  # compute threads; by default one per physical core
    adaptive_threads: bool | None = None  # fewer beside other programs; default without `threads`
    reproducible: bool = False  # no bit depends on threads, and no prompt on the date
    kv: str | None = None  # type of the KV cache, f16, bf16 or q8_0; q8_0 by default where memory is short
    repack: bool | None = None  # weights for this processor, into a second copy
    prefix_bytes: int | None = None  # memory of the prefix cache; 0 turns it off
    flash_attention: bool | None = None  # whether to compute attention without storing its scores
    gpu_layers: GpuLayers = 0  # layers that a GPU computes, or "all": first the output matrix
    library: str | None = None  # llama.cpp, ik or auto; by default THIRTEEN_LIBRARY, or auto
    queue: int = QUEUE  # maximum number of waiting requests; more are refused
    untrusted: bool | None = None  # whether to load the files in another process first

    def __post_init__(self) -> None:
        _check_name("profile", self.profile, PROFILES)
        _check_name("kv", self.kv or "f16", KV_TYPES)
        for name, (least, most) in _RANGES.items():
            if (value := self.value(name)) is not None:
                check_integer(name, value, least, most)
        if self.gpu_layers != "all":
            check_integer("gpu_layers", self.gpu_layers, 0, 1 << 16)
        slots, batch, kv = self.value("slots"), self.value("batch"), self.value("kv")
        beyond_ik = self.gpu_layers or self.flash_attention or self.kv not in {None, IK_STANDARD.kv}
        reserved = {BASE, DEFAULT_ADAPTER} & (self.adapters or {}).keys()
        problems = {
            f"slots must be at most the {batch} tokens of a batch, not {slots}": slots > batch,
            f"kv {kv} needs flash attention": kv in QUANTIZED_KV and self.flash_attention is False,
            f"library {IK} has standard attention with a KV cache in f16, on the processor: leave "
            "flash_attention, kv and gpu_layers out": self.named_library == IK and beyond_ik,
            f"adapters: the name {min(reserved, default='')!r} is reserved": reserved,
            f"gpu_layers {self.gpu_layers}: llama.cpp finds no GPU, which needs a driver and a build: "
            f"{build_hint('GGML_VULKAN')} (or GGML_CUDA, or GGML_METAL)": self.gpu_layers and not gpu_found(),
        }
        for problem, found in problems.items():
            if found:
                raise RequestError(problem)

    @property
    def named_library(self) -> str | None:
        """The library that `library` or the environment names; None if the table decides."""
        name = self.library or os.environ.get(_LIBRARY_VARIABLE) or "auto"
        _check_name("library", name, (*LIBRARIES, "auto"))
        return None if name == "auto" else name

    @property
    def named_adapters(self) -> dict[str, str | Path]:
        """The adapters by the names that requests give."""
        default = {} if self.adapter is None else {DEFAULT_ADAPTER: self.adapter}
        return {**(self.adapters or {}), **default}

    def value(self, name: str) -> Any:
        """An option, or what the profile has for it."""
        given = getattr(self, name)
        return PROFILES[self.profile].get(name) if given is None else given

    def settings(self, way: Way | None = None) -> Settings:
        """What an engine allocates and how it computes, in a `way` for what is not given."""
        way = way or (IK_STANDARD if self.named_library == IK else FLASH)
        kv = (self.kv if way.library == IK else self.value("kv")) or way.kv
        flash = self.flash_attention
        if flash is None and not self.gpu_layers:
            flash = way.flash_attention or kv in QUANTIZED_KV
        adaptive = self.threads is None if self.adaptive_threads is None else self.adaptive_threads
        repack = self.value("repack")
        sizes = {name: self.value(name) for name in ("context", "slots", "batch", "prefix_bytes")}
        return Settings(
            **sizes,
            threads=self.threads or way.threads or default_threads(),
            adaptive_threads=adaptive,
            reproducible=self.reproducible,
            kv=kv,
            flash_attention=flash,
            gpu_layers=self.gpu_layers,
            repack=way.repack if repack is None else repack,
            library=way.library,
        )


def _check_name(what: str, name: str, known: Collection[str]) -> None:
    if name not in list(known):  # which takes what is no string, too
        raise RequestError(f"{what} must be one of {', '.join(known)}, not {name!r}")
