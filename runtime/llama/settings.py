"""Settings of an engine, all decided: what it allocates, and how it computes."""

from dataclasses import dataclass, field
from typing import Any, Literal

from gguf.constants import GGMLQuantizationType as Type

LLAMA, IK = LIBRARIES = ("llama.cpp", "ik")  # that can compute
PACKAGES = {LLAMA: "llama-cpp-python", IK: "ik-llama-cpp-python"}
KV_TYPES = {"f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0}  # types of the KV cache by option name
QUANTIZED_KV = frozenset({"q8_0"})  # those that only flash attention reads
BATCH_MAX = 1 << 16  # tokens of a step; far beyond use
# Tokens that standard attention computes at once. With more, prefill of long prompts is no faster, and the
# scores need more memory.
_STANDARD_ATTENTION_TOKENS = 256

GpuLayers = int | Literal["all"]
Handle = Any  # a pointer of a library; 0 or None where it could not make one


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of an engine, and its way to compute; see also EngineOptions.

    Attention, KV type and threads change the speed, and otherwise only the last bits of the logits.
    """

    context: int
    slots: int
    batch: int
    outputs: int = 0  # maximum rows of logits of a step, each as wide as the vocabulary
    threads: int = field(kw_only=True)
    flash_attention: bool | None = True  # None leaves it to llama.cpp
    kv: str = "f16"
    adaptive_threads: bool = False  # with flash attention, the last bits depend on their number
    reproducible: bool = False
    exact: bool = False  # keep the KV cache and attention in float32, for measurements
    repack: bool = True
    prefix_bytes: int = 0
    gpu_layers: GpuLayers = 0
    library: str = LLAMA
    pooling: int = 0  # how a model of embeddings makes a vector of a text, a Pooling; 0 in others

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", self.outputs or self.slots)
        assert 1 <= self.slots <= self.outputs <= self.batch, "EngineOptions checks what a user gives"

    def size_context(self, native: Any) -> None:
        """Set what the parameters of a context have in both libraries."""
        native.n_seq_max, native.n_ctx = self.slots, self.context * self.slots
        native.n_batch, native.n_ubatch = self.batch, self.micro_batch
        native.n_threads = native.n_threads_batch = self.threads
        native.type_k = native.type_v = KV_TYPES[self.kv]

    @property
    def micro_batch(self) -> int:
        """Maximum tokens that are computed at once."""
        standard = self.flash_attention is False
        return min(self.batch, _STANDARD_ATTENTION_TOKENS) if standard else self.batch
