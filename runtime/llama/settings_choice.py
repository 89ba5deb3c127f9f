"""The fastest way to compute on this processor, by timing the model itself: attention, KV type, threads.

Flash attention never stores the scores of a query with all keys. Standard attention stores them, and computes
them as products of matrices, for which some processors have faster kernels. Which one wins, and whether a KV
cache in bfloat16 is faster than one in float16, differs by more than half between processors; docs/engine.md
has figures.
"""

import json
from contextlib import suppress
from dataclasses import asdict, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import time
from typing import Any

from ...errors import OutputError, ThirteenError
from ...files.atomic_write import write_file
from ...files.cache_folder import cache_dir
from ...files.gguf.header import Header
from ...files.gguf.model_shape import read_model_shape
from ...files.processors import processor_name
from ..profile import CHOSEN, KV_TYPES, Profile
from ..threads import default_threads
from .bindings import llama_cpp
from .compute_settings import ComputeSettings, open_settings
from .model import Model
from .settings_measurement import Tuning, measure_settings

_SAVED = "compute-{}.json"
_DISTURBED_S = 600  # how long a disturbed choice holds


def choose_settings(profile: Profile, threads: int | None, model: Model) -> ComputeSettings:
    """Choose what the profile and the caller leave open.

    The first call for a processor, build, model shape and profile measures, in about three seconds. The
    choice is saved in the cache folder; one that other programs have disturbed holds for ten minutes, so that
    not every start on a busy machine measures.

    Args:
        profile: what an engine allocates. With layers on a GPU nothing is measured: a short measurement would
            mostly time the compilation of its kernels.
        threads: threads that compute; None to measure.
        model: the loaded model.

    Raises:
        FileError: the computation failed.
        RequestError: the contexts do not fit in memory.
    """
    settings = known_settings(profile, threads, model.header)
    if settings is None:
        tuning = measure_settings(profile, threads, model)
        settings = tuning.settings
        with suppress(ThirteenError):  # else the next process measures again
            save_tuning(tuning, profile, threads, model.header)
    return settings


def known_settings(profile: Profile, threads: int | None, header: Header) -> ComputeSettings | None:
    """The settings if the profile or a saved choice decides them; None if they must be measured."""
    ways = open_settings(profile, threads, header)
    if profile.gpu_layers:
        return replace(ways[0], flash_attention=profile.flash_attention)
    if len(ways) == 1 and threads:
        return ways[0]
    with suppress(OSError, OutputError, ValueError, KeyError, TypeError):
        path = _choice_file(_key(profile, threads, header))
        found = json.loads(path.read_bytes())
        if found["quiet"] or abs(time() - path.stat().st_mtime) < _DISTURBED_S:
            return _parse(found["settings"])
    return None


def parallel_cost(profile: Profile, threads: int | None, header: Header) -> float | None:
    """Seconds of a token that all slots decode at once / of one alone, as measured for the saved choice."""
    with suppress(OSError, ThirteenError, ValueError, KeyError, TypeError, StopIteration, ZeroDivisionError):
        found = json.loads(_choice_file(_key(profile, threads, header)).read_bytes())
        if profile.gpu_layers or not found["quiet"]:
            return None
        trial = next(one for one in found["trials"] if one["settings"] == found["settings"])
        return float(trial["together_s"] / profile.slots / trial["decode_s"])
    return None


def save_tuning(tuning: Tuning, profile: Profile, threads: int | None, header: Header) -> None:
    """Save a choice for all engines with such a model and profile.

    Raises:
        OutputError: it cannot be written.
        FileError: the header has no valid shape.
    """
    key = _key(profile, threads, header)
    write_file(_choice_file(key), json.dumps(key | asdict(tuning), indent=1).encode() + b"\n")


def saved_settings() -> list[ComputeSettings]:
    """All choices that were measured on this processor with this build."""
    chosen, environment = list[ComputeSettings](), speed_environment()
    with suppress(OutputError):  # no cache folder
        for path in cache_dir().glob(_SAVED.format("*")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                found = json.loads(path.read_bytes())
                if found["quiet"] and all(found[name] == value for name, value in environment.items()):
                    chosen.append(_parse(found["settings"]))
    return chosen


def _parse(value: Any) -> ComputeSettings:
    settings = ComputeSettings(**value)
    counts = (settings.threads, settings.prefill_threads)
    if settings.kv not in KV_TYPES or not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(value)
    return replace(settings, flash_attention=bool(settings.flash_attention))


def _key(profile: Profile, threads: int | None, header: Header) -> dict[str, Any]:
    """Everything that the choice depends on."""
    shape = read_model_shape(header)
    return {
        **speed_environment(),
        **{name: getattr(shape, name) for name in ("layers", "hidden", "heads", "kv_heads", "head_dim")},
        **{name: getattr(profile, name) for name in ("slots", "batch", "repack", *CHOSEN)},
        "given_threads": threads,
        "default_threads": default_threads(),
    }


def speed_environment() -> dict[str, str]:
    """Processor and build: what every measured speed depends on."""
    return {
        "processor": processor_name(),
        "llama_cpp_python": version("llama-cpp-python"),
        "features": llama_cpp.llama_print_system_info().decode("utf-8", "replace").strip(" |\n"),
    }


def _choice_file(key: dict[str, Any]) -> Path:
    return cache_dir() / _SAVED.format(sha256(json.dumps(key).encode()).hexdigest()[:16])
