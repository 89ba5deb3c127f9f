"""A program to compare with, and the work of one round."""

import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import sleep
from typing import Protocol

import numpy as np

from ...files.gguf.header import Header
from ...runtime.machine.threads import default_threads
from ...runtime.validation import check_integer

SPEED_KINDS = ("prefill", "decode", "together", "busy")
BUSY_TOKENS = 16  # of a prompt, and decoded after it, beside another busy process

Speeds = tuple[float | None, ...]  # tokens per second for each of SPEED_KINDS, None where not measured
_SETTLE_S = 0.3
TIMEOUT_S = 1800  # of a round, or of loading


@dataclass(frozen=True, slots=True)
class PeerWorkload:
    """The work of one round: by default a question and its answer, and eight of them at once.

    Attributes:
        threads: compute threads; by default one per physical core.
        prompt_tokens: tokens of the prefill.
        decode_tokens: tokens of the decode.
        sequences: concurrent sequences of "together".
        short_prompt: prompt tokens of each of them.
        short_answer: tokens decoded after the first by each of them.
        busy: whether there is also a decode beside a busy process.
    """

    threads: int = field(default_factory=default_threads)
    prompt_tokens: int = 200
    decode_tokens: int = 64
    sequences: int = 8
    short_prompt: int = 200
    short_answer: int = 24
    busy: bool = True

    def __post_init__(self) -> None:
        for name in self.__slots__[:-1]:
            check_integer(f"bench: {name}", getattr(self, name), 1)

    @property
    def context(self) -> int:
        """Tokens that the longest sequence needs."""
        single = max(self.prompt_tokens + self.decode_tokens, 2 * BUSY_TOKENS)
        return max(single, self.short_prompt + self.short_answer) + 8


class Peer(Protocol):
    """A program that does the work of a round."""

    version: str

    def speeds(self, round_number: int) -> Speeds:
        """Measure a round; its number is the seed."""


class RequestPeer(ABC):
    """A peer that answers requests: the work of a round is the same for all of them."""

    def __init__(self, workload: PeerWorkload) -> None:
        self._workload = workload

    @abstractmethod
    def _answer_s(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        """Seconds to the first token after a random prompt, and from there for `decode_tokens` more."""

    @abstractmethod
    def _together_s(self, round_number: int) -> float:
        """Seconds for the concurrent sequences."""

    def speeds(self, round_number: int) -> Speeds:
        """Measure a round."""
        work = self._workload
        prefill_s, decode_s = self._answer_s(round_number, work.prompt_tokens, work.decode_tokens)
        together_s = self._together_s(round_number)
        return (
            work.prompt_tokens / prefill_s,
            work.decode_tokens / decode_s,
            work.sequences * (work.short_prompt + work.short_answer) / together_s,
            self._busy_tokens_per_s(round_number) if work.busy else None,
        )

    def _busy_tokens_per_s(self, seed: int) -> float:
        with busy_process():
            _, busy_s = self._answer_s(seed, BUSY_TOKENS, BUSY_TOKENS)
        sleep(_SETTLE_S)
        self._answer_s(seed, 1, 1)  # the next round begins as on a quiet machine
        return BUSY_TOKENS / busy_s

    def _sequence_seeds(self, round_number: int) -> range:
        """A seed for each of the concurrent sequences."""
        first = round_number * self._workload.sequences
        return range(first, first + self._workload.sequences)


def vocabulary_size(model: Header) -> int:
    """Number of tokens of the file's vocabulary."""
    return len(model.metadata["tokenizer.ggml.tokens"])


def random_tokens(seed: int, count: int, vocabulary: int) -> list[int]:
    """Draw tokens from the lower half of a vocabulary, which has few control tokens."""
    tokens: list[int] = np.random.default_rng(seed).integers(1, vocabulary // 2, count).tolist()
    return tokens


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep a processor busy meanwhile, by a process of its own."""
    command = [sys.executable, "-S", "-E", "-c", "print(flush=True)\nwhile True: pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - own program
        try:
            assert process.stdout, "it is a pipe"
            process.stdout.readline()  # now it is busy
            yield
        finally:
            process.kill()
