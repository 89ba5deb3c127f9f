"""Choice between flash and standard attention, by timing both with the model itself.

Flash attention never stores the scores of a query with all keys. Standard attention stores them, and
computes them as products of matrices, for which some processors have faster kernels. At a depth of 256 tokens
llama.cpp decodes SmolLM2-135M with standard attention 1.45 times as fast on a Xeon with AVX-512, and 0.93
times as fast on a Zen 4.
"""

import json
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import llama_cpp

from ...errors import ModelFileError, OutputError, ThirteenError
from ...files.atomic_write import atomic_write
from ...files.cache_folder import cache_dir
from ...files.gguf.header import Header
from ...files.gguf.model_shape import read_model_shape
from ...files.processors import processor_name
from ..profile import QUANTIZED_KV, Profile
from .context import Context, ContextParams, Span
from .memory_estimate import fits_in_memory
from .model import Model

# An ordinary question: the tokens of its prompt, and the decoded tokens of its answer.
_PROMPT_TOKENS, _ANSWER_TOKENS = 192, 96
_STEPS = 12  # decode steps of each way, of which the fastest counts: disturbances only slow down
_ADVANTAGE_MIN = 0.1  # of standard attention, which needs more memory; on a busy machine less may be noise


@dataclass(frozen=True, slots=True)
class AttentionTimes:
    """Seconds for an ordinary question and its answer with flash and with standard attention."""

    flash_s: float
    standard_s: float

    @property
    def flash_attention(self) -> bool:
        """Whether flash attention is the better choice."""
        return self.standard_s > (1 - _ADVANTAGE_MIN) * self.flash_s


def choose_attention(profile: Profile, model: Model, threads: int) -> Profile:
    """Choose between flash and standard attention if the profile leaves it open.

    With layers on a GPU it stays open, for llama.cpp: flash attention, unless the device lacks it. On a GPU a
    short measurement would mostly time the compilation of its kernels.

    The first call for a processor, build, model shape and number of threads measures both, in one to three
    seconds. The choice is saved in the cache folder, because the last bits of the logits depend on it.

    Args:
        profile: what an engine allocates.
        model: the loaded model.
        threads: threads that compute.

    Raises:
        ModelFileError: the computation failed.
        RequestError: the contexts do not fit in memory.
    """
    if profile.gpu_layers:
        return profile
    flash = known_attention(profile, model.header, threads)
    if flash is None:
        times = measure_attention(model, threads)
        flash = times.flash_attention
        with suppress(ThirteenError):  # else the next process measures again
            save_attention(times, model.header, threads)
    return replace(profile, flash_attention=flash)


def limit_attention(profile: Profile, header: Header, threads: int) -> Profile:
    """Choose flash attention if the profile leaves it open and the scores would not fit in memory.

    This is for before the model is loaded: afterwards, the memory of its weights is no longer available.
    """
    standard = replace(profile, flash_attention=False)
    if (
        profile.flash_attention is None
        and not profile.gpu_layers
        and not fits_in_memory(header, standard, threads)
    ):
        return replace(profile, flash_attention=True)
    return profile


def known_attention(profile: Profile, header: Header, threads: int) -> bool | None:
    """Whether the profile or a saved choice demands flash attention; None if it must be measured."""
    if profile.flash_attention is not None:
        return profile.flash_attention
    if profile.kv in QUANTIZED_KV:
        return True
    key = _key(header, threads)
    with suppress(OSError, OutputError, ValueError, KeyError, TypeError):
        return bool(json.loads(_choice_file(key).read_bytes())["flash_attention"])
    return None


def save_attention(times: AttentionTimes, header: Header, threads: int) -> Path:
    """Save the choice that follows from a measurement, for all engines with such a model.

    Returns:
        The file.

    Raises:
        OutputError: it cannot be written.
        ModelFileError: the header has no valid shape.
    """
    key = _key(header, threads)
    path = _choice_file(key)
    with atomic_write(path) as file:
        choice = {"flash_attention": times.flash_attention} | asdict(times)
        file.write(json.dumps(key | choice, indent=1).encode() + b"\n")
    return path


def saved_attention() -> list[bool]:
    """Whether flash attention is chosen, for each model shape and number of threads measured here."""
    chosen, environment = list[bool](), _environment()
    with suppress(OutputError):  # no cache folder
        for path in cache_dir().glob("attention-*.json"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                found = json.loads(path.read_bytes())
                if all(found[name] == value for name, value in environment.items()):
                    chosen.append(bool(found["flash_attention"]))
    return chosen


def _key(header: Header, threads: int) -> dict[str, Any]:
    """Everything that the choice depends on."""
    shape = read_model_shape(header, ModelFileError)
    return {
        **_environment(),
        **{name: getattr(shape, name) for name in ("layers", "hidden", "heads", "kv_heads", "head_dim")},
        "threads": threads,
    }


def _environment() -> dict[str, str]:
    return {
        "processor": processor_name(),
        "llama_cpp_python": version("llama-cpp-python"),
        "features": llama_cpp.llama_print_system_info().decode("utf-8", "replace").strip(" |\n"),
    }


def _choice_file(key: dict[str, Any]) -> Path:
    return cache_dir() / f"attention-{sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"


def measure_attention(model: Model, threads: int) -> AttentionTimes:
    """Estimate the times of both from a prefill and the fastest of some decode steps.

    Raises:
        ModelFileError: the computation failed.
        RequestError: the contexts do not fit in memory.
    """
    tokens = min(_PROMPT_TOKENS, model.context_trained - 1)
    prompt = tuple(token % model.vocabulary_size for token in range(1, tokens + 1))
    params = ContextParams(tokens + 1, 1, tokens, threads, outputs=1)
    with ExitStack() as loaded:
        contexts = [
            loaded.enter_context(Context(model, replace(params, flash_attention=flash)))
            for flash in (True, False)
        ]
        for context in contexts:  # the first batches also read the weights and fill the processor's caches
            _step_s(context, 0, prompt[:8])
        prefill_s = [_step_s(context, 0, prompt) for context in contexts]
        decode_s = [[_step_s(context, tokens, prompt[:1]) for context in contexts] for _ in range(_STEPS)]
    flash_s, standard_s = (
        prefill + _ANSWER_TOKENS * min(steps)
        for prefill, steps in zip(prefill_s, zip(*decode_s, strict=True), strict=True)
    )
    return AttentionTimes(round(flash_s, 4), round(standard_s, 4))


def _step_s(context: Context, start: int, tokens: tuple[int, ...]) -> float:
    """Seconds of a batch from position `start` on, where the sequence is cut first."""
    context.clear(0, start)
    began = perf_counter()
    context.decode([Span(0, start, tokens, rows=1)])
    return perf_counter() - began
