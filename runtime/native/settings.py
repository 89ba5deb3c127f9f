"""Settings of an engine, all decided: what it allocates, and how it computes."""

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from gguf.constants import GGMLQuantizationType as Type

from ...errors import FileError

LLAMA, IK = LIBRARIES = ("llama.cpp", "ik")  # what can compute; see libraries.py
PACKAGES = {LLAMA: "llama-cpp-python", IK: "ik-llama-cpp-python"}
KV_TYPES = {"f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0}  # types of the KV cache by option name
QUANTIZED_KV = frozenset({"q8_0"})  # those that only flash attention reads
BATCH_MAX = 1 << 16  # tokens of a step; far beyond use
# Tokens that standard attention computes at once. With more, prefill of long prompts is no faster, and the
# scores need more memory.
_STANDARD_ATTENTION_TOKENS = 256
# Guessed tokens that are computed with the last one of a sequence that runs alone: each costs a sixth to a
# fourth of a step in ik_llama.cpp, a half and more in llama.cpp. See docs/figures.md.
DRAFT_TOKENS = {LLAMA: 0, IK: 2}

GpuLayers = int | Literal["all"]
Handle = Any  # a pointer of a library; 0 or None where it could not make one


def library_version(library: str) -> str:
    """The version of a library's package.

    Raises:
        FileError: it is not installed.
    """
    try:
        return version(package := PACKAGES[library])
    except PackageNotFoundError:
        raise FileError(f"library {library} is not installed: pip install {package}") from None


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of an engine, and its way to compute; see also EngineOptions in plan/options.py.

    Attention, type of the KV cache and threads change the speed, and otherwise only the last bits of the
    logits.

    Attributes:
        outputs: maximum rows of logits of a step, each as wide as the vocabulary; by default one a slot.
        flash_attention: None leaves it to llama.cpp, which looks at the devices. Standard attention cannot
            read a quantized KV cache.
        adaptive_threads: with flash attention, the last bits of the logits of a single token depend on the
            number of threads.
        exact: keep the KV cache and attention in float32, for measurements. On a CPU, flash attention rounds
            to float16 even where the cache does not, which costs a KL divergence of 1e-6 instead of 1e-11.
    """

    context: int
    slots: int
    batch: int
    outputs: int = 0
    threads: int = field(kw_only=True)
    flash_attention: bool | None = True
    kv: str = "f16"
    adaptive_threads: bool = False
    reproducible: bool = False
    exact: bool = False
    repack: bool = True
    prefix_bytes: int = 0
    gpu_layers: GpuLayers = 0
    library: str = LLAMA

    def __post_init__(self) -> None:
        rows = min(1 + DRAFT_TOKENS[self.library], self.batch)
        object.__setattr__(self, "outputs", self.outputs or max(self.slots, rows))
        assert 1 <= self.slots <= self.outputs <= self.batch, "EngineOptions checks what a user gives"

    @property
    def micro_batch(self) -> int:
        """Maximum tokens that are computed at once."""
        standard = self.flash_attention is False
        return min(self.batch, _STANDARD_ATTENTION_TOKENS) if standard else self.batch
