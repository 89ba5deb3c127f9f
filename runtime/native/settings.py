"""Settings of an engine, all decided: what it allocates, and how it computes."""

import os
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from gguf.constants import GGMLQuantizationType as Type

from ...errors import RequestError
from ..validation import check_integer
from .bindings import llama_cpp

KV_TYPES = {"f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0}  # types of the KV cache by option name
QUANTIZED_KV = {"q8_0"}  # those that only flash attention reads
DEFAULT_KV = "f16"
CONTEXT_MAX = 1 << 22  # tokens; far beyond what any model was trained for
BATCH_MAX = 1 << 16  # tokens, likewise
# Upper limits: the library's own, or far beyond use where it has none.
_MAXIMA = {
    "context": CONTEXT_MAX,
    "slots": llama_cpp.llama_max_parallel_sequences(),
    "batch": BATCH_MAX,
    "outputs": BATCH_MAX,
    **dict.fromkeys(("threads", "prefill_threads"), 512),  # GGML_MAX_N_THREADS
}
# Tokens that standard attention computes at once. With more, prefill of long prompts is no faster, and the
# scores need more memory.
_STANDARD_ATTENTION_TOKENS = 256

PACKAGES = {"llama.cpp": "llama-cpp-python", "ik": "ik-llama-cpp-python"}  # of what can compute; libraries.py
LIBRARIES = tuple(PACKAGES)
_OTHER_BUILD = {"ik": "IK_LLAMA_CPP_LIB_PATH"}  # variables by which a package loads another file than its own
# Guessed tokens that are computed with the last one of a sequence that runs alone: each costs a sixth to a
# fourth of a step in ik_llama.cpp, a half and more in llama.cpp. See docs/figures/speed.md.
DRAFT_TOKENS = dict(zip(LIBRARIES, (0, 2), strict=True))

GpuLayers = int | Literal["all"]


def library_version(library: str) -> str:
    """The version of a library's package; of ik_llama.cpp also the file that takes the place of its own.

    The file has its size and time: what is measured, proven or computed with one build is not with another.
    (What another build of llama.cpp is compiled for, llama.cpp itself says.)
    """
    found, path = version(PACKAGES[library]), Path(os.environ.get(_OTHER_BUILD.get(library, ""), ""))
    if not path.is_file():
        return found
    state = path.stat()
    return f"{found} from {path} ({state.st_size} bytes, {state.st_mtime_ns})"


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of an engine, and its way to compute; see also EngineOptions in plan/options.py.

    Attention, type of the KV cache and threads change the speed, and otherwise only the last bits of the
    logits.

    Attributes:
        outputs: maximum rows of logits of a step, each as wide as the vocabulary; by default one a slot.
        prefill_threads: threads for batches of more than one token; by default as many as for one.
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
    prefill_threads: int = 0
    flash_attention: bool | None = True
    kv: str = DEFAULT_KV
    adaptive_threads: bool = False
    reproducible: bool = False
    exact: bool = False
    repack: bool = True
    prefix_bytes: int = 0
    gpu_layers: GpuLayers = 0
    library: str = LIBRARIES[0]

    def __post_init__(self) -> None:
        if self.kv not in KV_TYPES:
            raise RequestError(f"kv must be one of {', '.join(KV_TYPES)}, not {self.kv!r}")
        if self.library != LIBRARIES[0]:
            self._check_other_library()
        if self.kv in QUANTIZED_KV and self.flash_attention is False:
            raise RequestError(f"kv {self.kv} needs flash attention")
        rows = min(1 + DRAFT_TOKENS[self.library], self.batch)
        object.__setattr__(self, "outputs", self.outputs or max(self.slots, rows))
        object.__setattr__(self, "prefill_threads", self.prefill_threads or self.threads)
        for name, maximum in _MAXIMA.items():
            check_integer(name, getattr(self, name), 1, maximum)
        check_integer("prefix_bytes", self.prefix_bytes, 0)
        if self.slots > self.batch:
            raise RequestError(f"slots must be at most the {self.batch} tokens of a batch, not {self.slots}")
        if not self.slots <= self.outputs <= self.batch:
            raise RequestError(
                f"outputs must be from slots = {self.slots} to batch = {self.batch}, not {self.outputs}"
            )

    def _check_other_library(self) -> None:
        """Only what the proof compares: flash attention of ik's wheel aborts on some processors."""
        if self.gpu_layers:
            raise RequestError(f"library {self.library}: it computes no GPU layers; leave one of the two out")
        if self.flash_attention is not False or self.kv != DEFAULT_KV:
            raise RequestError(
                f"library {self.library}: it is used with standard attention and a KV cache in {DEFAULT_KV} "
                "alone; leave flash_attention and kv out"
            )

    @property
    def micro_batch(self) -> int:
        """Maximum tokens that are computed at once."""
        standard = self.flash_attention is False
        return min(self.batch, _STANDARD_ATTENTION_TOKENS) if standard else self.batch
