"""How a file is computed where nothing is given: a table by processor, type and number of slots.

`lab/defaults.py` measures what the rows choose between. Starting an engine measures nothing;
`thirteen bench tune` measures one model on one machine, and what it found comes before the table.
"""

import json
import re
from collections import Counter
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from gguf.constants import GGMLQuantizationType as Type

from ..errors import ThirteenError
from ..files.gguf.header import Header
from ..files.gguf.model_shape import read_decoder_shape
from ..files.processors import processor_name
from .llama.llama_cpp_library import llama_cpp
from .llama.settings import IK, LLAMA


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A way to compute a file."""

    library: str = LLAMA  # name of the library
    flash_attention: bool = True  # whether attention is computed without storing its scores
    kv: str = "f16"  # type of the KV cache
    threads: int | None = None  # compute threads; None is one per physical core
    repack: bool = True  # whether weights are repacked for this processor, into a copy in memory


FLASH = Way()
STANDARD = Way(flash_attention=False)
IK_STANDARD = Way(library=IK, flash_attention=False)
MAPPED = Way(repack=False)

# Types that ik_llama.cpp decodes faster on x86 (docs/figures.md); Q4_0, Q8_0 and F16 are level.
_FASTER_IN_IK = frozenset({Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.Q5_0, Type.IQ4_XS})
# The instruction set that llama.cpp must be compiled for, main types of the files, maximum sequences at once,
# and the default for files that match: the first such row counts. Without a feature or types, all match.
_ANY = 1 << 30
TABLE: tuple[tuple[str, frozenset[Type], int, Way], ...] = (
    ("AMX_INT8", _FASTER_IN_IK, 4, IK_STANDARD),
    ("AMX_INT8", frozenset(), _ANY, STANDARD),
    ("AVX2", _FASTER_IN_IK, 8, IK_STANDARD),
    # For mapped weights, llama.cpp has tiled kernels: prefill takes 0.6 of the time, decode 1.17.
    ("AVX512", frozenset({Type.Q4_K}), _ANY, MAPPED),
    ("", frozenset(), _ANY, FLASH),
)

# Files that ik_llama.cpp computes as llama.cpp does, by tests/runtime/llama/test_ik_equality.py. Others stay
# with llama.cpp: ik ignores rope_freqs (Llama 3), and multiplies some Q4_1 and Q5_1 wrongly.
IK_ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3", "smollm3"})
IK_TYPES = _FASTER_IN_IK | {Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q8_0, Type.IQ4_NL, Type.IQ3_S}
_IK_KEYS = re.compile(
    r"(context|embedding|feed_forward)_length|block_count|vocab_size|rope\.(freq_base|dimension_count)"
    r"|attention\.(head_count(_kv)?|(key|value)_length|layer_norm_rms_epsilon)"
)
_IK_TENSORS = re.compile(
    r"(token_embd|output|output_norm|blk\.\d+\.(attn_norm|attn_output|attn_[qk]_norm|ffn_(norm|gate|up|down)))\.weight"
    r"|blk\.\d+\.attn_[qkv]\.(weight|bias)"
)


def find_default(main: Type | None, slots: int, features: Container[str], libraries: Container[str]) -> Way:
    """The way of the first row that matches, for a main type and sequences at once."""
    return next(
        way
        for feature, types, slots_max, way in TABLE
        if way.library in libraries
        and (not feature or feature in features)
        and (not types or main in types)
        and slots <= slots_max
    )


def ik_equals(header: Header) -> bool:
    """Whether ik_llama.cpp is known to compute a file as llama.cpp does."""
    shape = read_decoder_shape(header)
    start = f"{shape.architecture}."
    values = {
        name.removeprefix(start): value for name, value in header.metadata.items() if name.startswith(start)
    }
    return (
        shape.architecture in IK_ARCHITECTURES
        and all(_IK_KEYS.fullmatch(name) and not isinstance(value, list) for name, value in values.items())
        and shape.head_widths == {values.get("rope.dimension_count", shape.head_dim)}
        and all(map(_IK_TENSORS.fullmatch, header.tensors))
        and {tensor.type for tensor in header.tensors.values()} <= IK_TYPES
    )


def main_type(header: Header) -> Type | None:
    """The type with the most bytes among the matrices of the layers; None without any."""
    nbytes = Counter[Type]()
    for name, tensor in header.tensors.items():
        if name.startswith("blk.") and len(tensor.shape) == 2:
            nbytes[tensor.type] += tensor.nbytes
    return max(nbytes, key=lambda kind: nbytes[kind], default=None)


def build_features() -> frozenset[str]:
    """Instruction sets for which llama.cpp is compiled: usually all that this processor has."""
    text = llama_cpp.llama_print_system_info().decode("utf-8", "replace")
    pairs = (part.rpartition(":")[2].partition(" = ") for part in text.split("|"))
    return frozenset(name.strip() for name, _, value in pairs if value.strip() not in {"", "0"})


def find_tuned(header: Header) -> Way | None:
    """The way that was the fastest for models of a file's shape and main type, if that was measured here."""
    with suppress(OSError, ThirteenError, ValueError, TypeError):
        return Way(**json.loads(tuned_file(header).read_bytes()))
    return None


def tuned_file(header: Header) -> Path:
    """Where the way is kept. Files are told apart by shape and main type, whatever their weights are."""
    from ..files.cache_folder import record_file  # noqa: PLC0415 - a given library needs no record

    facts = {
        "processor": processor_name(),
        "llama_cpp_python": version("llama-cpp-python"),
        "features": sorted(build_features()),
        "shape": repr(read_decoder_shape(header)),
        "type": main_type(header),
    }
    return record_file("tuned", facts)
