"""What memory a model needs with the room that a profile sets aside, told from its header alone.

Parts that llama.cpp sets aside are computed as it does, from the shapes. Those that grow with use (Python,
its libraries, the vocabulary's tables) were measured on Linux with Python 3.11; `thirteen bench memory --cap`
measures the whole again on any machine.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any

import llama_cpp
from gguf import GGMLQuantizationType as Type

from ...errors import NoRoomError
from ...files.gguf_header import Header, row_bytes
from ..profile import KV_TYPES, Profile
from .available_memory import available_bytes, reserved_bytes

KV_CELLS = 256  # llama.cpp rounds up each sequence's cells to a multiple of this
_PROGRAM = 68_000_000  # Python, NumPy, llama.cpp, Jinja: resident once they have all worked
_TOKEN = 450  # bytes of a token's entries in the tables of llama.cpp and of Python
_TEXT = 1.9  # bytes in memory for a byte of the header, most of which is the vocabulary's texts
_F32, _F16 = 4, 2
_ROWS = 8  # matrices are laid out anew only if their rows are a multiple of this

# Types with interleaved kernels (ggml-cpu/repack.cpp of llama-cpp-python 0.3.36), by what the processor has.
REPACKED = {
    "AVX2": {Type.Q4_0, Type.Q4_K, Type.IQ4_NL, Type.MXFP4},
    "AVX512": {Type.Q2_K},
    "DOTPROD": {Type.Q4_0, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.Q8_0, Type.IQ4_NL, Type.MXFP4},
}


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes of memory, by what they are for.

    Attributes:
        program_bytes: Python and its libraries.
        weights_bytes: the file's tensors, mapped.
        copied_bytes: of these, what is laid out anew for this processor, and so is there twice.
        vocabulary_bytes: tables of tokens.
        kv_bytes: keys and values.
        buffer_bytes: what llama.cpp computes in, and the logits.
        prefix_bytes: the most that beginnings of prompts come to take, with one that is being put away.
    """

    program_bytes: int
    weights_bytes: int
    copied_bytes: int
    vocabulary_bytes: int
    kv_bytes: int
    buffer_bytes: int
    prefix_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it together."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class _Shape:
    """The sizes that memory depends on, of a header that model_file.check_model() has passed."""

    layers: int
    embedding: int
    feed_forward: int
    keys: int  # width of a token's keys, and of its values
    vocabulary: int
    trained: int

    @classmethod
    def of(cls, header: Header) -> "_Shape":
        shape: dict[str, Any] = {key.partition(".")[2]: value for key, value in header.metadata.items()}
        heads = int(shape["attention.head_count"])
        head = int(shape.get("attention.key_length", int(shape["embedding_length"]) // heads))
        return cls(
            layers=int(shape["block_count"]),
            embedding=int(shape["embedding_length"]),
            feed_forward=int(shape["feed_forward_length"]),
            keys=int(shape.get("attention.head_count_kv", heads)) * head,
            vocabulary=header.tensors["token_embd.weight"].shape[0],
            trained=int(shape["context_length"]),
        )


def estimate_memory(header: Header, profile: Profile) -> MemoryEstimate:
    """What a model needs.

    Args:
        header: one that model_file.check_model() passes.
        profile: the room; its context counts as far as the model was trained for.
    """
    shape = _Shape.of(header)
    profile = replace(profile, context=min(profile.context, shape.trained))
    start = min(tensor.offset for tensor in header.tensors.values())
    kv = kv_bytes(header, profile, profile.context)
    return MemoryEstimate(
        program_bytes=_PROGRAM,
        weights_bytes=header.file_bytes - start,
        copied_bytes=copied_bytes(header, _repacked()) if profile.repack else 0,
        vocabulary_bytes=round(_TOKEN * shape.vocabulary + _TEXT * start),
        kv_bytes=kv,
        buffer_bytes=_buffers(shape, profile),
        prefix_bytes=profile.prefix_bytes + min(profile.prefix_bytes, kv // profile.slots),
    )


def check_memory(header: Header, profile: Profile, threads: int) -> None:
    """Check that what the model needs is there, before any of it is taken.

    Raises:
        NoRoomError: it is not; the message has the numbers.
    """
    there = available_bytes()
    if there is None:
        return
    wanted = estimate_memory(header, profile)
    missing = (
        wanted.total_bytes - wanted.program_bytes + reserved_bytes(threads)
    )  # the program is here already
    if missing > there:
        raise NoRoomError(
            f"{header.path}: {_mb(missing)} of memory are needed (weights {_mb(wanted.weights_bytes)}, "
            f"laid out anew {_mb(wanted.copied_bytes)}, keys and values {_mb(wanted.kv_bytes)} for a context "
            f"of {profile.context}, kept prompts {_mb(wanted.prefix_bytes)}), but {_mb(there)} are there; "
            "the phone profile or a shorter context needs less"
        )


def kv_bytes(header: Header, profile: Profile, context: int) -> int:
    """Bytes of keys and values that an engine sets aside.

    Args:
        header: of the model.
        profile: what was asked for: slots and type.
        context: tokens of each slot.
    """
    shape = _Shape.of(header)
    of_a_cell = 2 * row_bytes(shape.keys, KV_TYPES[profile.kv])
    return prod((shape.layers, profile.slots, _cells(context), of_a_cell))


def _cells(context: int) -> int:
    return context + -context % KV_CELLS


def _buffers(shape: _Shape, profile: Profile) -> int:
    """Where a layer is widest, which is where its feed-forward part begins, the masks, and the logits."""
    wide = (3 * shape.feed_forward + 4 * shape.embedding) * _F32
    mask = _cells(profile.context) * _F16
    logits = profile.slots * (1 + profile.lookup) * shape.vocabulary * _F32
    return profile.batch * (wide + mask) + logits


def copied_bytes(header: Header, types: Collection[Type]) -> int:
    """Bytes of the matrices that are laid out anew, where those of some types are.

    The embedding is one only where it is the output matrix too: else it is looked up, and not multiplied by.
    """
    tied = "output.weight" not in header.tensors
    return sum(
        tensor.nbytes
        for name, tensor in header.tensors.items()
        if (tied or name != "token_embd.weight")
        and tensor.type in types
        and len(tensor.shape) > 1
        and not tensor.shape[0] % _ROWS
    )


def _repacked() -> set[Type]:
    """The types that are laid out anew here."""
    has = llama_cpp.llama_print_system_info().decode()
    found = [types for name, types in REPACKED.items() if f"{name} = 1" in has]
    return set().union(*found)


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.0f} MB"
