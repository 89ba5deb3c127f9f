"""Whether a GGUF is one that the native library can run: asked of its header before the library sees it.

llama.cpp ends the process (GGML_ASSERT, GGML_ABORT) on much that a header can say wrongly, so every such
case of its loader and its graphs for these architectures is refused here, in one line, with the numbers.
They were found in ggml/src/gguf.cpp and, under src/, in llama-model.cpp, llama-vocab.cpp, llama-adapter.cpp,
models/llama.cpp and models/qwen2.cpp of the llama.cpp that llama-cpp-python 0.3.36 carries.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gguf import GGMLQuantizationType, GGUFValueType

from ...errors import AdapterError, ModelFileError, ThirteenError
from ...files.gguf_header import Header, TensorInfo

ARCHITECTURES = ("llama", "qwen2")
ROPE_SCALINGS = ("none", "linear", "yarn")
# Pre-tokenizers that llama.cpp has code for. The others run through std::regex, which overflows the stack on
# a long run of letters or digits: falcon, bloom, viking, deepseek-llm and default all do.
PRE_TOKENIZERS = (
    "gpt-2",
    "llama-bpe",
    "llama3",
    "llama-v3",
    "smollm",
    "starcoder",
    "qwen2",
    "deepseek-r1-qwen",
)
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
F32 = GGMLQuantizationType.F32
# Types with a matrix product on the CPU; the rest are ggml's intermediates or were dropped.
WEIGHT_TYPES = frozenset(
    GGMLQuantizationType[name]
    for names in (
        "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K",
        "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4",
    )
    for name in names.split()
)
# Keys of an architecture that turn it into another kind of model, and the values under which they do not.
INNOCENT = {
    "attention.causal": (True,),
    "pooling_type": (0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_group_count": (0,),
    "nextn_predict_layers": (0,),
    "rope.scaling.type": ROPE_SCALINGS,
}
STRINGS, INTEGERS, FLOATS = GGUFValueType.STRING, GGUFValueType.INT32, GGUFValueType.FLOAT32


@dataclass(frozen=True)
class _Keys:
    """Metadata by key, where a missing or ill-typed value is an error that names file and key."""

    header: Header
    kind: type[ThirteenError]

    def error(self, what: str) -> ThirteenError:
        return self.kind(f"{self.header.path}: {what}")

    def get(self, key: str, type_: GGUFValueType) -> Any:
        field = self.header.fields.get(key)
        if field is None:
            raise self.error(f"metadata key {key!r} is missing")
        if field.type is not type_:
            raise self.error(f"metadata key {key!r} is of type {field.type.name}, not {type_.name}")
        return field.value

    def count(self, key: str, most: int, default: int | None = None) -> int:
        """A whole number from 1 to `most`."""
        if default is not None and key not in self.header.fields:
            return default
        value = self.get(key, GGUFValueType.UINT32)
        if not 1 <= value <= most:
            raise self.error(f"metadata key {key!r} is {value}; it must be from 1 to {most}")
        return int(value)

    def array(self, key: str, element: GGUFValueType) -> list[Any]:
        values = self.get(key, GGUFValueType.ARRAY)
        if self.header.fields[key].element is not element:
            raise self.error(f"metadata key {key!r} is not an array of {element.name}")
        return list(values)


@dataclass(frozen=True)
class _Shape:
    """The sizes of a dense Llama or Qwen2, proved consistent with each other."""

    vocabulary: int
    layers: int
    embedding: int
    feed_forward: int
    queries: int  # heads times head dimension
    keys: int  # key heads times head dimension
    head: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...], bool]]:
        """Every tensor that the model may have: name, shape in numpy's order, whether it must be there."""
        yield "token_embd.weight", (self.vocabulary, self.embedding), True
        yield "output.weight", (self.vocabulary, self.embedding), False
        yield "output.bias", (self.vocabulary,), False
        yield "output_norm.weight", (self.embedding,), True
        yield "rope_freqs.weight", (self.head // 2,), False
        for layer in range(self.layers):
            for name, shape in self.matrices().items():
                yield f"blk.{layer}.{name}.weight", shape, True
                yield f"blk.{layer}.{name}.bias", shape[:1], False
            for name in ("attn_norm", "ffn_norm"):
                yield f"blk.{layer}.{name}.weight", (self.embedding,), True

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Each layer's matrices, (out, in)."""
        return {
            "attn_q": (self.queries, self.embedding),
            "attn_k": (self.keys, self.embedding),
            "attn_v": (self.keys, self.embedding),
            "attn_output": (self.embedding, self.queries),
            "ffn_gate": (self.feed_forward, self.embedding),
            "ffn_up": (self.feed_forward, self.embedding),
            "ffn_down": (self.embedding, self.feed_forward),
        }


def check_model(header: Header) -> None:
    """Check that the file is a model which this build can load and run.

    Raises:
        ModelFileError: it is not; the message names the key or the tensor.
    """
    keys = _Keys(header, ModelFileError)
    _check_general(keys)
    architecture = keys.get("general.architecture", STRINGS)
    if architecture not in ARCHITECTURES:
        raise keys.error(
            f"architecture {architecture!r} is not supported; these are: {', '.join(ARCHITECTURES)}"
        )
    if header.metadata.get("general.type", "model") != "model":
        raise keys.error(f"it holds a {header.metadata['general.type']}, not a model")
    _check_kind(keys, architecture)
    _check_vocabulary(keys)
    _check_tensors(keys, _shape(keys, architecture))


def check_adapter(header: Header, base: Header) -> None:
    """Check that the file is a LoRA which fits the base model.

    Raises:
        AdapterError: it is not; the message names the key or the tensor, and the sizes at odds.
    """
    keys = _Keys(header, AdapterError)
    _check_general(keys)
    expected = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "general.architecture": base.metadata["general.architecture"],
    }
    for key, value in expected.items():
        if keys.get(key, STRINGS) != value:
            raise keys.error(f"metadata key {key!r} is {header.metadata[key]!r}, not {value!r}")
    alpha = keys.get("adapter.lora.alpha", FLOATS)
    if not math.isfinite(alpha):
        raise keys.error(f"metadata key 'adapter.lora.alpha' is {alpha}")
    if "adapter.alora.invocation_tokens" in header.fields:
        raise keys.error("an activated LoRA, which begins in the middle of a prompt, is not supported")
    _check_factors(keys, base)


def _check_general(keys: _Keys) -> None:
    header = keys.header
    if "" in header.fields:
        raise keys.error("a metadata key is empty")
    if not header.tensors:
        raise keys.error("it holds no tensors")
    if "general.alignment" in header.fields:
        keys.get("general.alignment", GGUFValueType.UINT32)
    if header.metadata.get("split.count", 0) not in (0, 1):
        raise keys.error("it is one part of a split file; join the parts first (llama-gguf-split --merge)")


def _check_kind(keys: _Keys, architecture: str) -> None:
    metadata = keys.header.metadata
    for key, allowed in INNOCENT.items():
        value = metadata.get(f"{architecture}.{key}", allowed[0])
        if value not in allowed:
            raise keys.error(f"metadata key '{architecture}.{key}' is {value!r}; supported: {allowed}")
    epsilon = keys.get(f"{architecture}.attention.layer_norm_rms_epsilon", FLOATS)
    if not 0 <= epsilon < 1:
        raise keys.error(f"metadata key '{architecture}.attention.layer_norm_rms_epsilon' is {epsilon}")
    base = metadata.get(f"{architecture}.rope.freq_base", 1.0)
    if not (isinstance(base, float) and 0 < base < math.inf):
        raise keys.error(f"metadata key '{architecture}.rope.freq_base' is {base!r}")


def _check_vocabulary(keys: _Keys) -> None:
    kind = keys.get("tokenizer.ggml.model", STRINGS)
    if kind != "gpt2":
        raise keys.error(f"tokenizer {kind!r} is not supported; only byte-level BPE ('gpt2') is")
    pre = keys.get("tokenizer.ggml.pre", STRINGS)
    if pre not in PRE_TOKENIZERS:
        raise keys.error(f"pre-tokenizer {pre!r} is not supported; these are: {', '.join(PRE_TOKENIZERS)}")
    tokens = keys.array("tokenizer.ggml.tokens", STRINGS)
    if not tokens:
        raise keys.error("its vocabulary is empty")
    # As llama.cpp reads them: up to a zero byte, and an empty one under a name of its own.
    read = [token.split("\0", 1)[0] or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
    token, times = Counter(read).most_common(1)[0]
    if times > 1:
        raise keys.error(f"token {token!r} stands {times} times in the vocabulary")
    keys.array("tokenizer.ggml.merges", STRINGS)
    types = keys.array("tokenizer.ggml.token_type", INTEGERS)
    if len(types) != len(tokens):
        raise keys.error(f"the vocabulary has {len(tokens)} tokens but {len(types)} token types")


def _shape(keys: _Keys, architecture: str) -> _Shape:
    def count(key: str, default: int | None = None, most: int = 1 << 24) -> int:
        return keys.count(f"{architecture}.{key}", most, default)

    count("context_length", most=(1 << 31) - 1)
    embedding, heads = count("embedding_length"), count("attention.head_count")
    key_heads = count("attention.head_count_kv", heads)
    head = count("attention.key_length", embedding // heads)
    widths = {key: count(key, head) for key in ("attention.value_length", "rope.dimension_count")}
    if heads % key_heads or head < 1 or head % 2 or set(widths.values()) != {head}:
        raise keys.error(
            f"attention does not add up: {heads} heads of {head} over {key_heads} key heads of "
            f"{widths['attention.value_length']}, {widths['rope.dimension_count']} of them rotated"
        )
    return _Shape(
        vocabulary=len(keys.header.metadata["tokenizer.ggml.tokens"]),
        layers=count("block_count", most=MAX_LAYERS),
        embedding=embedding,
        feed_forward=count("feed_forward_length"),
        queries=heads * head,
        keys=key_heads * head,
        head=head,
    )


def _check_tensors(keys: _Keys, shape: _Shape) -> None:
    tensors = keys.header.tensors
    known = set()
    for name, expected, needed in shape.tensors():
        known.add(name)
        tensor = tensors.get(name)
        if tensor is None and needed:
            raise keys.error(f"tensor {name!r} is missing")
        if tensor is not None:
            _check_tensor(keys, tensor, expected)
    unknown = next((name for name in tensors if name not in known), None)
    if unknown:
        raise keys.error(f"tensor {unknown!r} is not one of this architecture's")


def _check_tensor(keys: _Keys, tensor: TensorInfo, expected: tuple[int, ...]) -> None:
    if tensor.shape != expected:
        raise keys.error(f"tensor {tensor.name!r} has the shape {tensor.shape}; the metadata says {expected}")
    if tensor.type not in WEIGHT_TYPES or (len(expected) == 1 and tensor.type is not F32):
        raise keys.error(
            f"tensor {tensor.name!r} is of type {tensor.type.name}, which cannot be computed with here"
        )


def _check_factors(keys: _Keys, base: Header) -> None:
    tensors = keys.header.tensors
    names = {name[: -len(".lora_a")] for name in tensors if name.endswith(".lora_a")}
    if set(tensors) != {name + suffix for name in names for suffix in (".lora_a", ".lora_b")}:
        raise keys.error(f"its {len(tensors)} tensors are not pairs of .lora_a and .lora_b")
    for name in sorted(names):
        target = base.tensors.get(name)
        if target is None:
            raise keys.error(f"it changes {name!r}, which the base model does not have")
        if len(target.shape) != 2 or name == "token_embd.weight":
            raise keys.error(f"it changes {name!r}, which cannot be adapted at run time")
        _check_pair(keys, name, target.shape)


def _check_pair(keys: _Keys, name: str, target: tuple[int, ...]) -> None:
    pair = [keys.header.tensors[name + suffix] for suffix in (".lora_a", ".lora_b")]
    for tensor in pair:
        if tensor.type not in WEIGHT_TYPES:
            raise keys.error(
                f"tensor {tensor.name!r} is of type {tensor.type.name}, which cannot be computed with here"
            )
    a, b = (tensor.shape for tensor in pair)
    if len(a) != 2 or len(b) != 2 or a[1] != target[1] or b[0] != target[0] or a[0] != b[1]:
        raise keys.error(f"factors {b} and {a} do not make up the change of {name!r}, which is {target}")
