"""What an engine allocates and how it computes a file, decided before anything is loaded."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gguf.constants import GGML_QUANT_SIZES

from ...errors import FileError, RequestError
from ...files.gguf.decoder_shape import read_decoder_shape
from ...files.gguf.header import Header
from ...files.gguf.pooling import read_pooling
from ..defaults import FLASH, IK_STANDARD, Way, build_features, find_default, find_tuned, ik_equals, main_type
from ..native.libraries import find_library
from ..native.settings import IK, KV_TYPES, LIBRARIES, LLAMA, Settings
from .memory import embedding_settings, memory_error
from .options import EngineOptions


def decide_settings(options: EngineOptions, header: Header) -> Settings:
    """Decide what an engine allocates, and how it computes a file.

    What the options give stands. What they leave open is what `thirteen bench tune` found for such a file,
    else the table's. Then memory decides: the first of _fallbacks() that fits.

    Raises:
        InsufficientMemoryError: nothing fits.
        RequestError: the named library does not compute such a file.
        FileError: the named library is not installed, or cannot be loaded; a size in the file is invalid.
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
