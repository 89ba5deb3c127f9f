"""Checks of a GGUF header before the native library reads the file.

llama.cpp ends the process (GGML_ASSERT, GGML_ABORT) on many wrong values of a header. Every such case of its
loader and of its graphs for the dense models of two architectures is refused here, in one line that quotes
the numbers. The cases come from ggml/src/gguf.cpp and, under src/, from llama-model.cpp, llama-vocab.cpp,
llama-adapter.cpp, models/llama.cpp and models/qwen2.cpp of the llama.cpp that llama-cpp-python 0.3.36
bundles.

Of other decoders, the container and the vocabulary are checked here. A trial in another process, which
computes all that an engine does, decides about the rest; see load_probe.py.
"""

import math
from collections.abc import Iterator, Set
from pathlib import Path

from gguf.constants import GGMLQuantizationType, GGUFValueType

from ...files.gguf.decoder_shape import read_decoder_shape
from ...files.gguf.header import Header, TensorInfo, read_header
from ...files.gguf.metadata import CheckedMetadata
from ...files.gguf.model_shape import ModelShape, check_head_width, read_model_shape
from ...files.gguf.pooling import read_pooling
from .vocabulary_checks import PRE_TOKENIZERS, check_vocabulary, tokenizer_names

# TENSOR_ALIGNMENT of ggml: the address of each mapped tensor is asserted to be a multiple of it.
DATA_ALIGNMENT = 32
ARCHITECTURES = ("llama", "qwen2")
F32 = GGMLQuantizationType.F32
# Types with a matrix product on the CPU; the others are ggml's intermediates or were removed.
WEIGHT_TYPES = frozenset(
    GGMLQuantizationType[name]
    for names in (
        "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K",
        "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4",
    )
    for name in names.split()
)
# Architecture keys that select another kind of model, with the values that do not.
DENSE_DECODER = {
    "attention.causal": (True,),
    "pooling_type": (0,),
    "expert_used_count": (0,),
    "expert_group_count": (0,),
    "nextn_predict_layers": (0,),
    "rope.scaling.type": ("none", "linear", "yarn"),
}
EXPERTS_MAX = 1024
# Architectures of llama.cpp that neither continue a text nor make embeddings by llama_decode().
OTHER_MODELS = {
    "an encoder": ("t5encoder",),
    "an encoder with a decoder": ("t5",),
    "a diffusion model": ("dream", "llada", "llada-moe", "rnd1"),
    "a part that sees or hears": ("clip", "wavtokenizer-dec", "pockettts", "qwen3tts"),
    "a draft for another model": ("eagle3", "dflash", "gemma4-assistant"),
}
STRING, FLOAT32 = GGUFValueType.STRING, GGUFValueType.FLOAT32


def read_model_header(path: Path, *, weights: bool = True) -> Header:
    """Read the header of a model, and check it; see check_model()."""
    header = read_header(path, skip_values=("tokenizer.ggml.merges",))
    check_model(header, weights=weights)
    return header


def check_model(header: Header, *, weights: bool = True) -> None:
    """Check that the file is a model which this build can load and run.

    Without `weights`, only the vocabulary will be loaded.

    Raises:
        FileError: it is not; the message names the key or the tensor.
    """
    metadata = CheckedMetadata(header)
    _check_general(metadata)
    architecture = metadata.get("general.architecture", STRING)
    if (kind := header.metadata.get("general.type", "model")) != "model":
        raise metadata.error(f"general.type is {kind!r}, not 'model'; a GGUF LoRA is an adapter")
    if not _is_dense(header):
        _check_decoder(metadata, architecture)
        check_vocabulary(metadata)
        read_decoder_shape(header)
        return
    _check_dense(metadata, architecture)
    check_vocabulary(metadata)
    shape = read_model_shape(header)
    check_head_width(metadata, f"{architecture}.rope.dimension_count", shape.head_dim)
    if weights:
        _check_tensors(metadata, shape)


def is_checked(header: Header) -> bool:
    """Whether check_model() looks at every value and tensor; else the trial of the file is a longer one."""
    tokenizer, pre_tokenizer = tokenizer_names(header)
    return _is_dense(header) and tokenizer == "gpt2" and pre_tokenizer in PRE_TOKENIZERS


def _is_dense(header: Header) -> bool:
    """Whether it is a dense model of the architectures whose tensors are known here."""
    architecture = header.metadata["general.architecture"]
    others = (f"{architecture}.{key}" for key in ("expert_count", "pooling_type"))
    return architecture in ARCHITECTURES and not any(map(header.metadata.get, others))


def check_adapter(header: Header, base: Header) -> None:
    """Check that the file is a LoRA which fits the base model.

    Raises:
        FileError: it is not; the message names the key or the tensor, and the sizes at odds.
    """
    metadata = CheckedMetadata(header)
    _check_general(metadata)
    if header.metadata.get("general.type", "model") == "model":
        raise metadata.error("is a model, not an adapter")
    expected = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "general.architecture": base.metadata["general.architecture"],
    }
    for key, value in expected.items():
        if metadata.get(key, STRING) != value:
            raise metadata.error(f"metadata key {key!r} is {header.metadata[key]!r}, not {value!r}")
    alpha = metadata.get("adapter.lora.alpha", FLOAT32)
    if not math.isfinite(alpha):
        raise metadata.error(f"metadata key 'adapter.lora.alpha' is {alpha}")
    if "adapter.alora.invocation_tokens" in header.fields:
        raise metadata.error("an activated LoRA (aLoRA), which starts within a prompt, is not supported")
    _check_factors(metadata, base)


def _check_general(metadata: CheckedMetadata) -> None:
    header = metadata.header
    if not header.tensors:
        raise metadata.error("the file has no tensors")
    metadata.check_whole()  # llama.cpp would look for the other parts, which nothing has checked
    for tensor in header.tensors.values():
        if tensor.offset % DATA_ALIGNMENT:
            raise metadata.error(
                f"tensor {tensor.name!r} starts at byte {tensor.offset}, not a multiple of {DATA_ALIGNMENT}"
            )


def _check_decoder(metadata: CheckedMetadata, architecture: str) -> None:
    """Refuse models that neither continue nor embed a text; the library tells what it does not know."""
    values = metadata.header.metadata
    for kind, names in OTHER_MODELS.items():
        if architecture in names:
            raise metadata.error(f"{architecture} is {kind}; text decoders and models of embeddings are run")
    if not read_pooling(metadata.header) and values.get(key := f"{architecture}.attention.causal") is False:
        raise metadata.error(f"metadata key {key!r} is False, and there is no pooling_type")
    if values.get(f"{architecture}.expert_count"):
        metadata.count(f"{architecture}.expert_count", EXPERTS_MAX)


def _check_dense(metadata: CheckedMetadata, architecture: str) -> None:
    values = metadata.header.metadata
    for key, allowed in DENSE_DECODER.items():
        value = values.get(f"{architecture}.{key}", allowed[0])
        if value not in allowed:
            raise metadata.error(f"metadata key '{architecture}.{key}' is {value!r}; supported: {allowed}")
    epsilon = metadata.get(f"{architecture}.attention.layer_norm_rms_epsilon", FLOAT32)
    if not 0 <= epsilon < 1:
        raise metadata.error(f"metadata key '{architecture}.attention.layer_norm_rms_epsilon' is {epsilon}")
    base = values.get(f"{architecture}.rope.freq_base", 1.0)
    if not (isinstance(base, float) and 0 < base < math.inf):
        raise metadata.error(f"metadata key '{architecture}.rope.freq_base' is {base!r}")


def _tensor_shapes(shape: ModelShape) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Yield each tensor that a model may have: name, shape in numpy's order, whether it is required."""
    yield "token_embd.weight", (shape.vocab, shape.hidden), True
    yield "output.weight", (shape.vocab, shape.hidden), False
    yield "output.bias", (shape.vocab,), False
    yield "output_norm.weight", (shape.hidden,), True
    yield "rope_freqs.weight", (shape.head_dim // 2,), False
    for layer in range(shape.layers):
        for name, matrix in shape.layer_matrices.items():
            yield f"blk.{layer}.{name}.weight", matrix, True
            yield f"blk.{layer}.{name}.bias", matrix[:1], False
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", (shape.hidden,), True


def _check_tensors(metadata: CheckedMetadata, shape: ModelShape) -> None:
    tensors = metadata.header.tensors
    known = set()
    for name, expected, required in _tensor_shapes(shape):
        known.add(name)
        if name in tensors:
            _check_tensor(metadata, tensors[name], expected)
        elif required:
            raise metadata.error(f"tensor {name!r} is missing")
    unknown = next((name for name in tensors if name not in known), None)
    if unknown:
        raise metadata.error(f"tensor {unknown!r} does not belong to this architecture")


def _check_tensor(metadata: CheckedMetadata, tensor: TensorInfo, expected: tuple[int, ...]) -> None:
    if tensor.shape != expected:
        raise metadata.error(
            f"tensor {tensor.name!r} has the shape {tensor.shape}; the metadata says {expected}"
        )
    _check_type(metadata, tensor, {F32} if len(expected) == 1 else WEIGHT_TYPES)


def _check_type(metadata: CheckedMetadata, tensor: TensorInfo, types: Set[GGMLQuantizationType]) -> None:
    if tensor.type not in types:
        raise metadata.error(f"tensor {tensor.name!r} is of type {tensor.type.name}, which is not supported")


def _check_factors(metadata: CheckedMetadata, base: Header) -> None:
    tensors = metadata.header.tensors
    names = {name.removesuffix(".lora_a") for name in tensors if name.endswith(".lora_a")}
    if set(tensors) != {name + suffix for name in names for suffix in (".lora_a", ".lora_b")}:
        raise metadata.error(f"its {len(tensors)} tensors are not pairs of .lora_a and .lora_b")
    for name in sorted(names):
        target = base.tensors.get(name)
        if target is None:
            raise metadata.error(f"it changes {name!r}, which the base model does not have")
        if len(target.shape) != 2 or name == "token_embd.weight":
            raise metadata.error(f"it changes {name!r}, which cannot be adapted at run time")
        _check_pair(metadata, name, target.shape)


def _check_pair(metadata: CheckedMetadata, name: str, target: tuple[int, ...]) -> None:
    pair = [metadata.header.tensors[name + suffix] for suffix in (".lora_a", ".lora_b")]
    for tensor in pair:
        _check_type(metadata, tensor, WEIGHT_TYPES)
    a, b = (tensor.shape for tensor in pair)
    if len(a) != 2 or len(b) != 2 or a[1] != target[1] or b[0] != target[0] or a[0] != b[1]:
        raise metadata.error(
            f"factors {b} and {a} do not multiply to the shape of {name!r}, which is {target}"
        )
