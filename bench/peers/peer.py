"""A program to compare with, and the workload of one round."""

from dataclasses import dataclass, field
from typing import Protocol

from ...runtime.threads import physical_cores
from ...runtime.validation import check_integer

SPEED_KINDS = ("prefill", "decode", "together")


@dataclass(frozen=True, slots=True)
class PeerWorkload:
    """The work of one round.

    Attributes:
        threads: compute threads; by default one per physical core.
        prompt_tokens: tokens of the prefill.
        decode_tokens: tokens of the decode.
        sequences: concurrent sequences of "together".
        short_prompt: prompt tokens of each of them.
        short_answer: tokens decoded after the first by each of them.
    """

    threads: int = field(default_factory=physical_cores)
    prompt_tokens: int = 512
    decode_tokens: int = 64
    sequences: int = 8
    short_prompt: int = 64
    short_answer: int = 24

    def __post_init__(self) -> None:
        for name in self.__slots__:
            check_integer(f"bench: {name}", getattr(self, name), 1)

    @property
    def batched_tokens(self) -> int:
        """Tokens of all concurrent sequences, prompts and answers."""
        return self.sequences * (self.short_prompt + self.short_answer)


class Peer(Protocol):
    """A program that does the work of a round."""

    name: str
    version: str

    def speeds(self, round_number: int) -> tuple[float | None, float | None, float | None]:
        """Tokens per second for each of SPEED_KINDS, None where it is not measured; the round is the seed."""
