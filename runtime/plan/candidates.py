"""Settings to choose from: the ways to compute that the options leave open, as far as they fit in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from gguf.constants import GGML_QUANT_SIZES

from ...errors import RequestError
from ...files.gguf.decoder_shape import read_decoder_shape
from ...files.gguf.header import Header
from ...files.gguf.pooling import read_pooling
from ...files.processors import multiplies_bf16
from ..llama.gguf_checks import is_checked
from ..native.ik_llama_library import installed
from ..native.settings import DEFAULT_KV, KV_TYPES, LIBRARIES, QUANTIZED_KV, Settings
from .memory import embedding_settings, fits_in_memory
from .options import EngineOptions, requested_library, with_profile

_DIVISORS = (1, 2, 4)  # of an open context, where memory is short


@dataclass(frozen=True, slots=True)
class Candidates:
    """Settings to choose from.

    Attributes:
        ways: they differ in attention, type of the KV cache and library; the default is the first.
        threads: the threads that are given; None if their number is open too.
    """

    ways: tuple[Settings, ...]
    threads: int | None

    @property
    def libraries(self) -> tuple["Candidates", ...]:
        """The ways of each library, the default's first."""
        names = dict.fromkeys(way.library for way in self.ways)
        parts = (tuple(way for way in self.ways if way.library == name) for name in names)
        return tuple(Candidates(part, self.threads) for part in parts)

    @property
    def decided(self) -> bool:
        """Whether nothing is open.

        With layers on a GPU nothing is measured: a short measurement would mostly time the compilation of its
        kernels.
        """
        return bool(self.ways[0].gpu_layers) or (len(self.ways) == 1 and self.threads is not None)


def find_candidates(usual: Settings, options: EngineOptions, header: Header) -> Candidates:
    """Find the ways to compute that the options leave open, and that fit in memory.

    This is for before the model is loaded: afterwards, the memory of its weights is no longer available.
    First the memory decides between standard and flash attention, then a KV cache in q8_0 is taken, and at
    last a half or a quarter of the context, unless the options have one. Where nothing fits, all is open.
    Nothing is measured for a model with a recurrent state: measurements go back to earlier positions.
    `usual` are the default_settings() of the options.
    """
    full, shape = with_profile(options), read_decoder_shape(header)
    divisors = _DIVISORS[:1] if options.get("context") else _DIVISORS
    if usual.kv in QUANTIZED_KV and not options.get("kv") and not holds_heads(header, usual.kv):
        usual, full["kv"] = replace(usual, kv=DEFAULT_KV), DEFAULT_KV
    if read_pooling(header):
        return _embedding_candidates(usual, divisors, header)
    if shape.recurrent:
        full |= EngineOptions(kv=usual.kv, flash_attention=usual.flash_attention, threads=usual.threads)
    ways, quantized, others = [usual], list[Settings](), list[Settings]()
    if not usual.gpu_layers and usual.library == LIBRARIES[0]:
        ways, quantized = _open_ways(usual, full), _quantized_ways(usual, full, header)
        others = _other_libraries(usual, options, header)
    for divisor in divisors:
        for group in (ways, quantized):
            if fitting := _fitting(group, usual.context // divisor or 1, header):
                fitting += _fitting(others, fitting[0].context, header)
                return _clamped(fitting, shape.context, full)
    return _clamped(ways, shape.context, full)


def _embedding_candidates(usual: Settings, divisors: Sequence[int], header: Header) -> Candidates:
    """The one way of a model of embeddings, with as much of an open context as fits in memory."""
    if usual.library != LIBRARIES[0]:
        raise RequestError(f"library {usual.library}: it makes no embeddings; leave it out")
    shorter = (replace(usual, context=usual.context // divisor or 1) for divisor in divisors)
    ways = [embedding_settings(header, way) for way in shorter]
    fitting = (way for way in ways if fits_in_memory(header, way))
    return Candidates((next(fitting, ways[0]),), usual.threads)


def _fitting(ways: Sequence[Settings], context: int, header: Header) -> list[Settings]:
    shorter = (replace(way, context=context) for way in ways)
    return [way for way in shorter if fits_in_memory(header, way)]


def _clamped(ways: Sequence[Settings], trained: int, options: EngineOptions) -> Candidates:
    clamped = (replace(way, context=min(way.context, trained)) for way in ways)
    return Candidates(tuple(clamped), options.get("threads"))


def _open_ways(usual: Settings, options: EngineOptions) -> list[Settings]:
    """The combinations of attention and KV type that are open, the default first."""
    given = options.get("kv")
    kinds = [given] if given else [DEFAULT_KV, *(["bf16"] if multiplies_bf16() else [])]
    return [
        replace(usual, flash_attention=flash, kv=kv)
        for kv, flash in product(kinds, (True, False))
        if options.get("flash_attention") in {None, flash} and (flash or kv not in QUANTIZED_KV)
    ]


def _quantized_ways(usual: Settings, options: EngineOptions, header: Header) -> list[Settings]:
    """The way that takes the least memory, if it is open and the model's heads allow it."""
    is_open = options.get("kv") is None and options.get("flash_attention") is not False
    if not is_open or not holds_heads(header, "q8_0"):
        return []
    return [replace(usual, flash_attention=True, kv="q8_0")]


def _other_libraries(usual: Settings, options: EngineOptions, header: Header) -> list[Settings]:
    """The way of another library, if that is open: it repacks weights, and has standard attention alone."""
    is_open = requested_library(options) is None and options.get("flash_attention") is None
    repacks_f16 = usual.repack and with_profile(options).get("kv", DEFAULT_KV) == DEFAULT_KV
    if not is_open or not repacks_f16 or not is_checked(header) or not installed():
        return []
    return [replace(usual, library=LIBRARIES[1], flash_attention=False, kv=DEFAULT_KV)]


def holds_heads(header: Header, kv: str) -> bool:
    """Whether the model's heads are whole blocks of a type of the KV cache."""
    block = GGML_QUANT_SIZES[KV_TYPES[kv]][0]
    return not any(width % block for width in read_decoder_shape(header).head_widths)
