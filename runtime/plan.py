"""What an engine allocates and how it computes a file, decided before anything is loaded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES

from ..errors import FileError, RequestError
from ..files.gguf.header import Header
from ..files.gguf.model_shape import read_decoder_shape, read_pooling
from .defaults import FLASH, IK_STANDARD, Way, build_features, find_default, find_tuned, ik_equals, main_type
from .engine_options import QUEUE, EngineOptions
from .llama.model import find_library, read_model_header
from .llama.settings import IK, KV_TYPES, LIBRARIES, LLAMA, PACKAGES, Settings
from .memory import MemoryEstimate, embedding_settings, estimate_memory, memory_error


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """How an engine will run a model."""

    header: Header = field(repr=False)  # header of the model file, checked
    settings: Settings  # what is allocated, and how it is computed
    context_trained: int  # tokens of the longest context that the model was trained for
    adapters: Mapping[str, Path] = field(default_factory=dict)  # by the names of requests
    queue: int = QUEUE  # maximum number of waiting requests

    @classmethod
    def make(cls, model: Path, options: EngineOptions) -> "EnginePlan":
        """Decide how an engine will run a model, of which only the header is read here.

        ThirteenError: the file is damaged, cannot be run by this build, ends the process that tries it, or
        does not fit in memory; or decide_settings() raises it.
        """
        from .trial import try_files  # noqa: PLC0415 - an engine that is given a plan tries nothing

        adapters = {name: Path(file) for name, file in options.named_adapters.items()}
        header = read_model_header(model)
        settings = decide_settings(options, header)
        try_files(model, adapters.values(), untrusted=options.untrusted, library=settings.library)
        return cls(header, settings, read_decoder_shape(header).context, adapters, options.queue)

    @property
    def memory(self) -> MemoryEstimate:
        """The memory that it takes."""
        return estimate_memory(self.header, self.settings)

    @property
    def embeds(self) -> bool:
        """Whether the model makes embeddings, and nothing else."""
        return self.settings.pooling > 0

    @property
    def context_hint(self) -> str:
        """What to do about a prompt that is too long."""
        if self.context_trained <= self.settings.context:
            return "the model was trained for no more"
        return f"a context of up to {self.context_trained} tokens is possible"

    @property
    def json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        package = PACKAGES[self.settings.library]
        return {
            "model": str(self.header.path),
            "library": self.settings.library,
            "version": f"{package} {version(package)}",
            "settings": asdict(self.settings),
            "memory": asdict(self.memory) | {"total_bytes": self.memory.total_bytes},
            "context_trained": self.context_trained,
            "adapters": {name: str(path) for name, path in self.adapters.items()},
            "queue": self.queue,
        }

    def __str__(self) -> str:
        facts = self.json | {"memory": self.memory.text}
        settings = facts.pop("settings")
        return "\n".join(f"{name}: {value}" for name, value in (facts | settings).items())


def decide_settings(options: EngineOptions, header: Header) -> Settings:
    """Decide what an engine allocates, and how it computes a file.

    What the options give stands. What they leave open is what `thirteen bench tune` found for such a file,
    else the table's. Then memory decides: the first of _fallbacks() that fits. RequestError or FileError: the
    named library does not compute such a file, or is not installed; or nothing fits.
    """
    settings = options.settings(_find_way(options, header))
    if options.kv is None and not holds_heads(header, settings.kv):
        settings = replace(settings, kv=FLASH.kv)
    settings = replace(settings, context=min(settings.context, read_decoder_shape(header).context))
    for tried in _fallbacks(settings, options, header):
        error = memory_error(header, tried)
        if error is None:
            return tried
    assert error, "there is at least one way"
    raise error


def _find_way(options: EngineOptions, header: Header) -> Way:
    """What was measured for such a file here, else the table's row: of the libraries that may compute it."""
    if options.named_library == IK:
        if not ik_equals(header):
            raise RequestError(f"{header.path}: library {IK} is not used for such a file; leave it out")
        find_library(IK)
        return IK_STANDARD
    if read_pooling(header):
        return FLASH
    libraries = usable_libraries(options, header)
    tuned = find_tuned(header)
    return tuned if tuned and tuned.library in libraries else table_way(options, header, libraries)


def table_way(options: EngineOptions, header: Header, libraries: Sequence[str]) -> Way:
    """The table's row for a file here."""
    return find_default(main_type(header), options.value("slots"), build_features(), libraries)


def usable_libraries(options: EngineOptions, header: Header) -> Sequence[str]:
    """The libraries that may compute a file: also ik_llama.cpp if it is here and has all that is given."""
    is_open = options.named_library is None and options.flash_attention is None and not options.gpu_layers
    as_given = options.value("repack") is not False and options.value("kv") in {None, IK_STANDARD.kv}
    if not (is_open and as_given and ik_equals(header)):
        return (LLAMA,)
    try:
        find_library(IK)
    except FileError:  # thirteen doctor says why
        return (LLAMA,)
    return LIBRARIES


def _fallbacks(settings: Settings, options: EngineOptions, header: Header) -> Iterator[Settings]:
    """The settings, then others that take less memory: flash attention, q8_0, a shorter context."""
    embeds, ways = read_pooling(header) is not None, [settings]
    fixed = embeds or settings.gpu_layers or options.named_library == IK or options.flash_attention is False
    if not fixed:
        ways.append(replace(settings, library=LLAMA, flash_attention=True))
        if options.kv is None and holds_heads(header, "q8_0"):
            ways.append(replace(ways[-1], kv="q8_0"))
    for divisor in (1, 2, 4) if options.context is None else (1,):
        for way in ways:
            shorter = replace(way, context=max(1, settings.context // divisor))
            yield embedding_settings(header, shorter) if embeds else shorter


def holds_heads(header: Header, kv: str) -> bool:
    """Whether the model's heads are whole blocks of a type of the KV cache."""
    block = GGML_QUANT_SIZES[KV_TYPES[kv]][0]
    return not any(width % block for width in read_decoder_shape(header).head_widths)
