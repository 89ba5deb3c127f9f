"""What each peer of a comparison does in a round, and what it has to offer for that."""

from dataclasses import dataclass
from typing import Protocol

from ...runtime.request import check_integer

SPEED_KINDS = ("prefill", "decode", "together")


@dataclass(frozen=True, slots=True)
class PeerWorkload:
    """The work of a round.

    Attributes:
        threads: that compute.
        prompt_tokens: read in a prefill.
        decode_tokens: written in a decode.
        sequences: together.
        short_prompt: tokens of prompt of each of these.
        short_answer: tokens that each of them writes after its first.
    """

    threads: int
    prompt_tokens: int = 512
    decode_tokens: int = 64
    sequences: int = 8
    short_prompt: int = 64
    short_answer: int = 24

    def __post_init__(self) -> None:
        for name in self.__slots__:
            check_integer(f"bench: {name}", getattr(self, name), 1)

    @property
    def together(self) -> int:
        """All tokens of the sequences."""
        return self.sequences * (self.short_prompt + self.short_answer)


class Peer(Protocol):
    """Something that does it."""

    name: str
    version: str

    def speeds(self, number: int) -> tuple[float | None, float | None, float | None]:
        """Tokens a second of each of KINDS, in the round of that number; None where it has none."""
