"""How an engine will run a model: decided before anything is loaded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...files.gguf.decoder_shape import read_decoder_shape
from ...files.gguf.header import Header
from ...files.gguf.pooling import read_pooling
from ..llama.model import read_model_header
from ..native.settings import PACKAGES, Settings, library_version
from ..trial import try_files
from .decisions import decide_settings
from .memory import MemoryEstimate, estimate_memory
from .options import QUEUE, EngineOptions


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """How an engine will run a model.

    Attributes:
        header: header of the model file, checked.
        settings: what is allocated, and how it is computed.
        context_trained: tokens of the longest context that the model was trained for.
        adapters: files of the adapters by the names that requests give.
        queue: maximum number of waiting requests.
    """

    header: Header = field(repr=False)
    settings: Settings
    context_trained: int
    adapters: Mapping[str, Path] = field(default_factory=dict)
    queue: int = QUEUE

    @classmethod
    def make(cls, model: Path, options: EngineOptions) -> "EnginePlan":
        """Decide how an engine will run a model, of which only the header is read here.

        Args:
            model: a GGUF file.
            options: what is given; see decide_settings() for the rest.

        Raises:
            ThirteenError: the file is not a GGUF, is damaged, cannot be run by this build, ends the process
                that tries it, or does not fit in memory; or decide_settings() raises it.
        """
        adapters = {name: Path(file) for name, file in options.named_adapters.items()}
        header = read_model_header(model)
        settings = decide_settings(options, header)
        try_files(model, adapters.values(), untrusted=options.untrusted, library=settings.library)
        return cls(header, settings, read_decoder_shape(header).context, adapters, options.queue)

    @property
    def memory(self) -> MemoryEstimate:
        """The memory that it takes."""
        return estimate_memory(self.header, self.settings)

    @property
    def embeds(self) -> bool:
        """Whether the model makes embeddings, and nothing else."""
        return read_pooling(self.header) is not None

    @property
    def version(self) -> str:
        """Package and version of the library that computes."""
        return f"{PACKAGES[self.settings.library]} {library_version(self.settings.library)}"

    @property
    def context_hint(self) -> str:
        """What to do about a prompt that is too long."""
        if self.context_trained <= self.settings.context:
            return "the model was trained for no more"
        return f"a context of up to {self.context_trained} tokens is possible"

    @property
    def json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {
            "model": str(self.header.path),
            "library": self.settings.library,
            "version": self.version,
            "settings": asdict(self.settings),
            "memory": asdict(self.memory) | {"total_bytes": self.memory.total_bytes},
            "context_trained": self.context_trained,
            "adapters": {name: str(path) for name, path in self.adapters.items()},
            "queue": self.queue,
        }

    @property
    def rows(self) -> dict[str, str]:
        """The plan in a few rows, by name."""
        one = self.settings
        attention = {True: "flash", False: "standard", None: "the library's choice of"}[one.flash_attention]
        threads = f"{one.threads} threads" + (" or fewer" if one.adaptive_threads else "")
        requests = f"{one.slots} at once, of {one.context:,} tokens, in steps of {one.batch}"
        if self.embeds:
            requests = f"embeddings of up to {one.slots} texts at once, of {one.context:,} tokens together"
        return {
            "model": str(self.header.path),
            **{f"adapter {name}": str(path) for name, path in self.adapters.items()},
            "requests": requests,
            "computed by": f"{attention} attention, KV cache in {one.kv}, {threads}",
            "GPU layers": str(one.gpu_layers),
            "memory needed": self.memory.text,
            "library": f"{one.library} ({self.version})",
        }

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self.rows.items())
