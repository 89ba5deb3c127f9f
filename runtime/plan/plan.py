"""How an engine will run a model: decided before anything is loaded."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Unpack

from ...errors import ThirteenError
from ...files.gguf.decoder_shape import read_decoder_shape
from ...files.gguf.header import Header
from ...files.gguf.pooling import read_pooling
from ..llama.gguf_checks import read_model_header
from ..llama.load_probe import probe_model_files
from ..llama.model import Model
from ..native.settings import LIBRARIES, PACKAGES, Settings, library_version
from .candidates import Candidates, find_candidates
from .memory import MemoryEstimate, check_memory, estimate_memory
from .options import QUEUE, EngineOptions, default_settings, named_adapters
from .tuning import Tuning, find_tuning, join_tunings, save_tuning


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """How an engine will run a model.

    Attributes:
        header: header of the model file, checked.
        settings: what is allocated, and how it is computed.
        memory: what that takes.
        context_trained: tokens of the longest context that the model was trained for.
        adapters: files of the adapters by the names that requests give.
        queue: maximum number of waiting requests.
        parallel_cost: seconds of a token that all slots decode at once / of one alone; None if unknown.
    """

    header: Header = field(repr=False)
    settings: Settings
    memory: MemoryEstimate
    context_trained: int
    adapters: Mapping[str, Path] = field(default_factory=dict)
    queue: int = QUEUE
    parallel_cost: float | None = None

    @classmethod
    def make(cls, model: Path, **options: Unpack[EngineOptions]) -> "EnginePlan":
        """Decide how an engine will run a model.

        The first plan for a processor, build, model shape and profile loads the model and measures, in about
        three seconds. The choice is saved in the cache folder.

        Args:
            model: a GGUF file.
            options: see EngineOptions.

        Raises:
            FileError: a file is not a GGUF, is damaged, or cannot be run by this build, or it ended the
                other process.
            InsufficientMemoryError: the model does not fit in memory.
            RequestError: a number is out of range, a name is unknown or reserved, or there is no GPU for
                gpu_layers.
            TypeError: there is no such keyword.
        """
        usual = default_settings(options)
        adapters = {name: Path(file) for name, file in named_adapters(options).items()}
        header = read_model_header(model)
        candidates = find_candidates(usual, options, header)
        check_memory(header, candidates.ways[0])
        probe_model_files(model, adapters.values(), untrusted=options.get("untrusted"))
        tuning = _tuned(candidates, header, tuple(adapters.values()))
        settings = tuning.settings if tuning else candidates.ways[0]
        return cls(
            header,
            settings,
            estimate_memory(header, settings),
            read_decoder_shape(header).context,
            adapters,
            options.get("queue", QUEUE),
            tuning.parallel_cost if tuning else None,
        )

    @property
    def embeds(self) -> bool:
        """Whether the model makes embeddings, and nothing else."""
        return read_pooling(self.header) is not None

    @property
    def library(self) -> str:
        """Name of the library that computes."""
        return self.settings.library

    @property
    def version(self) -> str:
        """Package and version of the library."""
        return f"{PACKAGES[self.library]} {library_version(self.library)}"

    @property
    def context_hint(self) -> str:
        """What to do about a prompt that is too long."""
        if self.context_trained <= self.settings.context:
            return "the model was trained for no more"
        return f"a context of up to {self.context_trained} tokens is possible"

    @property
    def json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        others = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "header"}
        return {
            "model": str(self.header.path),
            **others,
            "library": self.library,
            "version": self.version,
            "settings": asdict(self.settings),
            "memory": asdict(self.memory) | {"total_bytes": self.memory.total_bytes},
            "adapters": {name: str(path) for name, path in self.adapters.items()},
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
            "computed by": f"{attention} attention, KV cache in {one.kv}, {threads} "
            f"({one.prefill_threads} for prompts), GPU layers: {one.gpu_layers}",
            "memory needed": self.memory.text,
            "library": f"{self.library} ({self.version})",
        }

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self.rows.items())


def _tuned(candidates: Candidates, header: Header, adapters: Sequence[Path]) -> Tuning | None:
    """The saved measurement of the candidates; without one, the model is loaded and measured.

    Before another library computes anything here, it is proven on the files.
    """
    tuning = None if candidates.decided else find_tuning(candidates, header)
    if not tuning or tuning.settings.library != LIBRARIES[0]:
        proven = proven_candidates(candidates, header, adapters)
        if proven is not candidates:
            return _tuned(proven, header, adapters)
    if candidates.decided or tuning:
        return tuning
    tuning = _measured(candidates, header)
    with suppress(ThirteenError):  # else the next process measures again
        save_tuning(tuning, candidates, header)
    return tuning


def proven_candidates(candidates: Candidates, header: Header, adapters: Sequence[Path] = ()) -> Candidates:
    """The candidates, without another library that does not compute the files as llama.cpp does.

    Raises:
        FileError: the library is given, or a file cannot be examined.
    """
    default, *others = candidates.libraries
    way = candidates.ways[-1]
    if way.library != LIBRARIES[0]:
        from ..llama.library_proof import prove_library, require_proof  # noqa: PLC0415 - few machines have one

        if not others:
            require_proof(way, header.path, adapters)
        elif prove_library(way, header.path, adapters):
            return default
    return candidates


def _measured(candidates: Candidates, header: Header) -> Tuning:
    from .measurement import measure_settings  # noqa: PLC0415 - once for a processor and a model's shape

    usual = candidates.ways[0]
    tunings = []
    for part in candidates.libraries:
        with Model(header, repack=usual.repack, library=part.ways[0].library) as model:
            tunings.append(measure_settings(part, model))
    return join_tunings(tunings, usual)
