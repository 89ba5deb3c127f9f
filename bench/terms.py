"""How questions are put."""

from dataclasses import dataclass, field

from ..runtime.poll import check_votes
from ..runtime.request import Sampling, check_whole
from .prompts import Prompt, prompt_named

_TOGETHER = 40  # requests of a wave: five times what runs at once, so that few slots are idle at its end


@dataclass(frozen=True, slots=True)
class Terms:
    """What is the same for all questions of a run.

    Attributes:
        prompt: the name of one of prompts.PROMPTS.
        votes: answers to each question; of several, the value that most give is taken.
        sampling: how tokens are chosen; several answers are never greedy, but at a temperature of 0.7.
        calculator: whether sums in answers get their exact results.
        max_tokens: the most tokens of an answer.
        threads: that compute.
    """

    threads: int
    prompt: str = "zero-shot"
    votes: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    calculator: bool = True
    max_tokens: int = 512

    def __post_init__(self) -> None:
        prompt_named(self.prompt)
        check_whole("bench: max_tokens", self.max_tokens, 1)
        check_votes(self.votes)
        if self.votes > 1:
            object.__setattr__(self, "sampling", self.sampling.varied)

    @property
    def worded(self) -> Prompt:
        """The prompt itself."""
        return prompt_named(self.prompt)

    @property
    def wave(self) -> int:
        """How many questions are asked together."""
        return max(_TOGETHER // self.votes, 1)

    @property
    def samplings(self) -> list[Sampling]:
        """That of each answer to a question, with a seed of its own."""
        return self.sampling.seeded(self.votes)
