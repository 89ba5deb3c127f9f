"""Hugging Face transformers on the CPU as a peer, with the checkpoint that the file was made from."""

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from ...convert.source.remote_code import refuse_code
from ...errors import RequestError, one_line
from ...files.gguf.header import Header
from .peer import PeerWorkload, RequestPeer

_PACKAGES = ("torch", "transformers")
_SHAPE_KEYS = {  # GGUF's key: that of config.json
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}


def missing_packages() -> tuple[str, ...]:
    """Names of the required packages that are not installed."""
    return tuple(name for name in _PACKAGES if find_spec(name) is None)


class TransformersPeer(RequestPeer):
    """The checkpoint in its own dtype; transformers does not run the file's quantized weights."""

    name = "transformers"

    def __init__(self, model: Header, checkpoint: Path, workload: PeerWorkload) -> None:
        """Import torch and load the checkpoint, which takes seconds.

        Args:
            model: header of the GGUF file that the other peers run.
            checkpoint: folder with config.json and weights.
            workload: the work of one round.

        Raises:
            RequestError: packages are missing, or the folder is not a checkpoint with the file's shape.
        """
        if missing := missing_packages():
            raise RequestError(f"{checkpoint}: to measure it, install {' and '.join(missing)}")
        super().__init__(workload)
        self._model = _load(checkpoint)
        _check_shape(model, self._model.config, checkpoint)
        dtype = str(self._model.dtype).removeprefix("torch.")
        self.version = f"{version('transformers')}, torch {version('torch')}, {dtype}"

    def _answer_s(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        timer = self.generate(seed, (1, prompt_tokens), 1 + decode_tokens)
        return timer.first_s, timer.rest_s

    def _together_s(self, round_number: int) -> float:
        work = self._workload
        timer = self.generate(round_number, (work.sequences, work.short_prompt), 1 + work.short_answer)
        return timer.first_s + timer.rest_s

    def generate(self, seed: int, prompts: tuple[int, int], tokens: int) -> "StreamTimer":
        """Time `tokens` tokens after random prompts of shape `prompts`, (sequences, length)."""
        import torch  # noqa: PLC0415 - only if it is a peer

        torch.set_num_threads(self._workload.threads)
        torch.manual_seed(seed)
        ids = torch.randint(1, self._model.config.vocab_size // 2, prompts)
        timer = StreamTimer()
        self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            streamer=timer,
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
        )
        return timer


class StreamTimer:
    """A streamer for transformers that records the time of the call, of the prompt and of each token."""

    def __init__(self) -> None:
        self.times = [perf_counter()]

    def put(self, _: Any) -> None:
        """Record the prompt or the next token."""
        self.times.append(perf_counter())

    def end(self) -> None:
        """Do nothing at the end of the stream."""

    @property
    def first_s(self) -> float:
        """Seconds from the call to the first token."""
        return self.times[2] - self.times[0]

    @property
    def rest_s(self) -> float:
        """Seconds from the first token to the last."""
        return self.times[-1] - self.times[2]


def _load(checkpoint: Path) -> Any:
    import transformers  # noqa: PLC0415 - only if it is a peer
    from safetensors import SafetensorError  # noqa: PLC0415 - comes with transformers

    if not (checkpoint / "config.json").is_file():
        raise RequestError(f"{checkpoint}: not a checkpoint folder: it has no config.json")
    refuse_code(checkpoint, RequestError)
    load: Callable[..., Any] = transformers.AutoModelForCausalLM.from_pretrained
    try:
        return load(checkpoint, dtype="auto", local_files_only=True).eval()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise RequestError(f"{checkpoint}: transformers cannot load it: {one_line(error)}") from None


def _check_shape(model: Header, config: Any, checkpoint: Path) -> None:
    architecture = model.metadata["general.architecture"]
    for gguf_key, config_key in _SHAPE_KEYS.items():
        expected = model.metadata.get(f"{architecture}.{gguf_key}")
        actual = getattr(config, config_key, None)
        if actual != expected:
            raise RequestError(
                f"{checkpoint}: {config_key} is {actual}, but {expected} in {model.path}: it is another model"
            )
