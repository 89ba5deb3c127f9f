"""Hugging Face's transformers on the CPU as a peer, with the checkpoint that the file was made of."""

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from ...errors import RequestError
from ...files.gguf_header import Header
from ...runtime.llama.compute_thread import COMPUTE_THREAD
from .peer import PeerWorkload

_PACKAGES = ("torch", "transformers")
_SHAPE = {  # what the checkpoint has to have in common with the file: GGUF's key and config.json's
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}


def missing_packages() -> tuple[str, ...]:
    """The packages that it takes and that are not installed."""
    return tuple(name for name in _PACKAGES if find_spec(name) is None)


class Transformers:
    """The checkpoint in its own type of numbers: a file's quantized weights are nothing that it runs."""

    name = "transformers"

    def __init__(self, model: Header, checkpoint: Path, work: PeerWorkload) -> None:
        """Load the checkpoint; import of torch included, that takes seconds.

        Args:
            model: the file that the others run.
            checkpoint: a folder with config.json and weights.
            work: of a round.

        Raises:
            RequestError: packages are missing, or the folder is no checkpoint of a model of that shape.
        """
        if absent := missing_packages():
            raise RequestError(f"{checkpoint}: to measure it, install {' and '.join(absent)}")
        self._work, self._model = work, _load(checkpoint)
        _check_shape(model, self._model.config, checkpoint)
        dtype = str(self._model.dtype).removeprefix("torch.")
        self.version = f"{version('transformers')}, torch {version('torch')}, {dtype}"

    def speeds(self, number: int) -> tuple[float, float, float]:
        """See Peer."""
        return COMPUTE_THREAD.call(lambda: self._speeds(number))  # where this engine computes as well

    def _speeds(self, number: int) -> tuple[float, float, float]:
        import torch  # noqa: PLC0415 - only where it is a peer

        work = self._work
        torch.set_num_threads(work.threads)
        torch.manual_seed(number)
        read = self.generate((1, work.prompt_tokens), 1)
        wrote = self.generate((1, 1), 1 + work.decode_tokens)
        both = self.generate((work.sequences, work.short_prompt), 1 + work.short_answer)
        return (
            work.prompt_tokens / read.first_s,
            work.decode_tokens / wrote.rest_s,
            work.together / (both.first_s + both.rest_s),
        )

    def generate(self, prompts: tuple[int, int], tokens: int) -> "StreamTimer":
        """The times of so many tokens after random prompts (sequences, length)."""
        import torch  # noqa: PLC0415 - likewise

        ids = torch.randint(1, self._model.config.vocab_size // 2, prompts)
        clock = StreamTimer()
        self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            streamer=clock,
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
        )
        return clock


class StreamTimer:
    """Told of the prompt and then of every token, as a streamer of transformers is; notes when."""

    def __init__(self) -> None:
        self.times = [perf_counter()]

    def put(self, _: Any) -> None:
        """Something more is there."""
        self.times.append(perf_counter())

    def end(self) -> None:
        """All is there."""

    @property
    def first_s(self) -> float:
        """Seconds from the call to the first token: the times are of the call, the prompt and the tokens."""
        return self.times[2] - self.times[0]

    @property
    def rest_s(self) -> float:
        """Seconds from there to the last."""
        return self.times[-1] - self.times[2]


def _load(checkpoint: Path) -> Any:
    import transformers  # noqa: PLC0415 - likewise

    if not (checkpoint / "config.json").is_file():
        raise RequestError(f"{checkpoint}: not the folder of a checkpoint: it has no config.json")
    load: Callable[..., Any] = transformers.AutoModelForCausalLM.from_pretrained
    try:
        return load(checkpoint, dtype="auto", local_files_only=True).eval()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as failure:
        said = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
        raise RequestError(f"{checkpoint}: transformers cannot load it: {said}") from None


def _check_shape(model: Header, config: Any, checkpoint: Path) -> None:
    architecture = model.metadata["general.architecture"]
    for ours, theirs in _SHAPE.items():
        wanted, found = model.metadata.get(f"{architecture}.{ours}"), getattr(config, theirs, None)
        if wanted != found:
            raise RequestError(
                f"{checkpoint}: {theirs} is {found}, but {wanted} in {model.path}: it is another model"
            )
