"""Memory that a model needs with some settings, computed from its header alone.

The parts that llama.cpp allocates are computed as it computes them, from the shapes. The parts that grow with
use (Python, its libraries, the tables of the vocabulary) were measured on Linux with Python 3.11;
`lab/memory_limit.py` measures the total again on any machine.

Layers on a GPU do not lower the estimate. The GPU of a laptop mostly uses the same memory, and llama.cpp maps
the whole file in any case. The memory of a GPU that has its own is not checked.
"""

from collections.abc import Collection
from dataclasses import astuple, dataclass, replace

from gguf.constants import GGMLQuantizationType as Type

from ..errors import FileError
from ..files.gguf.header import Header, row_bytes
from ..files.gguf.model_shape import ENCODERS, DecoderShape, embeds_in_parts, read_decoder_shape, read_pooling
from .defaults import build_features
from .llama.settings import BATCH_MAX, KV_TYPES, LLAMA, Settings
from .machine import available_bytes

KV_CELLS = 256  # llama.cpp pads the cells of each sequence to a multiple of this
_EMBEDDED_TEXTS = 64  # at once
_PROGRAM_BYTES = 68_000_000  # Python, NumPy, llama.cpp, Jinja: resident after each has been used
_TOKEN_BYTES = 450  # a token's entries in the tables of llama.cpp and of Python
_TEXT_BYTES = 1.9  # in memory, for each byte of the header, most of which is the texts of the vocabulary
_F32_BYTES, _F16_BYTES = 4, 2
_REPACKED_ROWS = 8  # matrices are repacked only if their number of rows is a multiple of this

# Types with interleaved kernels (ggml-cpu/repack.cpp of llama-cpp-python 0.3.36), by processor feature.
REPACKED_TYPES = {
    "AVX2": {Type.Q4_0, Type.Q4_K, Type.IQ4_NL, Type.MXFP4},
    "AVX512": {Type.Q2_K},
    "DOTPROD": {Type.Q4_0, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.Q8_0, Type.IQ4_NL, Type.MXFP4},
}


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes of memory, by purpose."""

    program_bytes: int  # Python and its libraries
    weights_bytes: int  # tensors of the file, mapped
    copied_bytes: int  # repacked weights, a second copy of some of the mapped ones
    vocabulary_bytes: int  # tables of tokens
    kv_bytes: int  # KV cache, and recurrent states
    buffer_bytes: int  # compute buffers of llama.cpp, and the logits
    prefix_bytes: int  # prefix cache when full, and one entry that is being saved

    @property
    def total_bytes(self) -> int:
        """Sum of all parts."""
        return sum(astuple(self))

    @property
    def parts(self) -> str:
        """The largest parts in MB."""
        sizes = {
            "weights": self.weights_bytes,
            "repacked weights": self.copied_bytes,
            "KV cache": self.kv_bytes,
            "prefix cache": self.prefix_bytes,
        }
        return ", ".join(f"{name} {_mb(nbytes)}" for name, nbytes in sizes.items() if nbytes)

    @property
    def text(self) -> str:
        """The total and its largest parts in MB."""
        return f"{_mb(self.total_bytes)} ({self.parts})"


def embedding_settings(header: Header, settings: Settings) -> Settings:
    """The settings for a model of embeddings: all texts of a batch share one context.

    A text that cannot be computed in parts is computed in one batch. Given its own result, it returns it.
    """
    context, parts = min(settings.context, read_decoder_shape(header).context), embeds_in_parts(header)
    context = context if parts else min(context, BATCH_MAX)
    batch = min(settings.batch, context) if parts else context
    slots = min(_EMBEDDED_TEXTS, batch)
    outputs = slots if parts else batch
    sizes = replace(settings, context=context, batch=batch, slots=slots, outputs=outputs, prefix_bytes=0)
    return replace(sizes, pooling=read_pooling(header) or 0)


def estimate_memory(header: Header, settings: Settings) -> MemoryEstimate:
    """Estimate the memory that a model needs; its context is at most that of its training."""
    shape = read_decoder_shape(header)
    settings = replace(settings, context=min(settings.context, shape.context))
    slots, tokens, rows = settings.slots, settings.micro_batch, settings.outputs
    if read_pooling(header):  # texts share one context, and are computed at once
        settings = embedding_settings(header, settings)
        slots, tokens = int(shape.architecture not in ENCODERS), settings.batch
        rows = settings.outputs * (1 + slots)  # a decoder computes them, too; an encoder has the room only
    start = min(tensor.offset for tensor in header.tensors.values())
    kv = _kv_bytes(shape, settings, slots)
    # Another library reads the file, and repacks what it has read: there is no second copy.
    repacks = settings.repack and settings.library == LLAMA
    return MemoryEstimate(
        program_bytes=_PROGRAM_BYTES,
        weights_bytes=header.file_bytes - start,
        copied_bytes=repacked_bytes(header, _repacked_types()) if repacks else 0,
        vocabulary_bytes=round(_TOKEN_BYTES * shape.vocab + _TEXT_BYTES * start),
        kv_bytes=kv,
        buffer_bytes=_buffer_bytes(shape, settings, tokens, rows),
        prefix_bytes=settings.prefix_bytes + min(settings.prefix_bytes, kv // settings.slots),
    )


def memory_error(header: Header, settings: Settings) -> FileError | None:
    """The error, with the numbers, of a model that does not fit in memory; None of one that does."""
    estimate, available = estimate_memory(header, settings), available_bytes()
    needed = estimate.total_bytes - estimate.program_bytes  # the program itself is already in memory
    if needed <= available:
        return None
    return FileError(
        f"{header.path}: {_mb(needed)} of memory are needed for a context of {settings.context} "
        f"({estimate.parts}), but {_mb(available)} are available; the phone profile or a shorter context "
        "needs less"
    )


def _kv_bytes(shape: DecoderShape, settings: Settings, slots: int) -> int:
    """Bytes of keys and values, also of positions that have left a window, and of states in float32."""
    widths = [width for layer in shape.kv_widths for width in layer]
    if settings.flash_attention is False:  # it stores values transposed, in layers of one width
        values = max((value for _, value in shape.kv_widths), default=0)
        widths = [width for key, value in shape.kv_widths for width in (key, values if value else 0)]
    cell_bytes = sum(row_bytes(width, KV_TYPES[settings.kv]) for width in widths)
    return slots * (_cells(settings.context) * cell_bytes + shape.state_size * _F32_BYTES)


def _cells(tokens: int) -> int:
    return tokens + -tokens % KV_CELLS


def _buffer_bytes(shape: DecoderShape, settings: Settings, tokens: int, rows: int) -> int:
    """Bytes of activations where a layer is widest, masks, rows of logits, and scores of attention."""
    # Layers with windows have a mask of their own.
    widest = (3 * shape.ffn + (4 + 2 * shape.experts_used) * shape.hidden) * _F32_BYTES
    if shape.recurrent:
        widest = max(widest, (7 * shape.inner + 2 * shape.hidden) * _F32_BYTES)
    cells = _cells(settings.context)
    mask = cells * _F16_BYTES
    if settings.flash_attention is False:
        scores = cells * shape.heads + 5 * shape.hidden + 2 * shape.kv_heads * shape.head_dim
        widest = max(widest, scores * _F32_BYTES)
        mask = cells * _F32_BYTES
    logits = rows * shape.vocab * _F32_BYTES
    masks = (1 + shape.windows) * mask if shape.kv_widths else 0
    return tokens * (widest + masks) + logits


def repacked_bytes(header: Header, types: Collection[Type]) -> int:
    """Bytes of the matrices that llama.cpp repacks, if it repacks these types.

    The token embedding is one only where it is also the output matrix: otherwise it is never multiplied.
    """
    tied = "output.weight" not in header.tensors
    return sum(
        tensor.nbytes
        for name, tensor in header.tensors.items()
        if (tied or name != "token_embd.weight")
        and tensor.type in types
        and len(tensor.shape) > 1
        and not tensor.shape[0] % _REPACKED_ROWS
    )


def _repacked_types() -> set[Type]:
    return set().union(*(REPACKED_TYPES[name] for name in REPACKED_TYPES.keys() & build_features()))


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.0f} MB"
