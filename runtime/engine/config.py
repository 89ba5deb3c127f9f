"""Configuration of an engine, made from the keyword arguments of Engine()."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

from ...errors import RequestError
from ..llama.context import CONTEXT_MAX, ContextParams
from ..llama.gpu import check_gpu_layers
from ..profile import GpuLayers, Profile, profile_named
from ..request import BASE
from ..threads import default_threads
from ..validation import check_integer

QUEUE = 64
DEFAULT_ADAPTER = "adapter"  # name of the adapter given without one


class ProfileOptions(TypedDict, total=False):
    """Keywords that replace a value of the profile; see EngineOptions."""

    context: int | None
    slots: int | None
    batch: int | None
    kv: str | None
    prefix_bytes: int | None
    flash_attention: bool | None
    micro_batch: int | None
    gpu_layers: GpuLayers | None


class EngineOptions(ProfileOptions, total=False):
    """Keywords of Engine(), which documents them."""

    profile: str | Profile
    adapter: str | Path | None
    adapters: Mapping[str, str | Path] | None
    threads: int | None
    adaptive_threads: bool | None
    reproducible: bool
    prefix_folder: str | Path | None
    queue: int
    untrusted: bool | None


@dataclass(frozen=True)
class EngineConfig:
    """What an engine loads and allocates.

    Attributes:
        profile: memory profile, with the values that the keywords replace.
        threads: compute threads; None to measure.
        params: parameters of the context. Its length is not yet clamped to the one that the model was trained
            for, and what is open is not yet chosen.
        adapters: adapter files by name.
        prefix_folder: parent of the prefix cache's folders.
        queue: maximum number of waiting requests.
        untrusted: which files are loaded in another process first; see Engine().
    """

    profile: Profile
    threads: int | None
    params: ContextParams
    adapters: Mapping[str, Path]
    prefix_folder: Path | None
    queue: int
    untrusted: bool | None

    @classmethod
    def from_options(  # noqa: PLR0913 - the documented options of Engine()
        cls,
        *,
        profile: str | Profile = "laptop",
        adapter: str | Path | None = None,
        adapters: Mapping[str, str | Path] | None = None,
        threads: int | None = None,
        adaptive_threads: bool | None = None,
        reproducible: bool = False,
        prefix_folder: str | Path | None = None,
        queue: int = QUEUE,
        untrusted: bool | None = None,
        **overrides: Unpack[ProfileOptions],
    ) -> Self:
        """Resolve the keywords of Engine().

        Raises:
            RequestError: a number is out of range, a name is unknown or reserved, or there is no GPU for GPU
                layers.
        """
        profile = _resolve_profile(profile, overrides)
        check_integer("queue", queue, 0)
        return cls(
            profile=profile,
            threads=threads,
            params=replace(
                _context_params(profile, threads),
                adaptive_threads=threads is None if adaptive_threads is None else adaptive_threads,
                reproducible=reproducible,
            ),
            adapters=_adapter_files(adapter, adapters or {}),
            prefix_folder=None if prefix_folder is None else Path(prefix_folder),
            queue=queue,
            untrusted=untrusted,
        )

    @property
    def default_adapter(self) -> str:
        """Name of the adapter of requests that name none."""
        return DEFAULT_ADAPTER if DEFAULT_ADAPTER in self.adapters else BASE


def _resolve_profile(profile: str | Profile, overrides: ProfileOptions) -> Profile:
    changes: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    profile = replace(profile_named(profile) if isinstance(profile, str) else profile, **changes)
    for name in ("context", "slots", "batch"):  # their upper limits are those of ContextParams
        check_integer(name, getattr(profile, name), 1)
    check_integer("prefix_bytes", profile.prefix_bytes, 0)
    check_gpu_layers(profile.gpu_layers)
    return profile


def _context_params(profile: Profile, threads: int | None) -> ContextParams:
    if profile.slots > profile.batch:
        raise RequestError(f"slots {profile.slots} exceeds batch {profile.batch}")
    return ContextParams(
        context=min(profile.context, CONTEXT_MAX),
        slots=profile.slots,
        batch=profile.batch,
        threads=default_threads() if threads is None else threads,
        outputs=profile.slots,
        kv=profile.kv_name,
        flash_attention=profile.flash_attention,
        micro_batch=profile.micro_batch,
    )


def _adapter_files(adapter: str | Path | None, adapters: Mapping[str, str | Path]) -> dict[str, Path]:
    if reserved := {BASE, DEFAULT_ADAPTER} & adapters.keys():
        raise RequestError(f"adapters: the name {min(reserved)!r} is reserved")
    named = {**adapters, DEFAULT_ADAPTER: adapter} if adapter is not None else adapters
    return {name: Path(file) for name, file in named.items()}
