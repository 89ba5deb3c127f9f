"""How questions are put."""

from dataclasses import dataclass, field, replace

from ..errors import RequestError
from ..runtime.engine import VOTING
from ..runtime.poll import VOTES_MAX
from ..runtime.request import LARGEST_SEED, Sampling, check_whole
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
        check_whole("bench: votes", self.votes, 1)
        if self.votes > VOTES_MAX:
            raise RequestError(f"bench: votes must be at most {VOTES_MAX}, not {self.votes}")
        if self.votes > 1 and self.sampling.greedy:
            object.__setattr__(self, "sampling", replace(self.sampling, temperature=VOTING))

    @property
    def worded(self) -> Prompt:
        """The prompt itself."""
        return prompt_named(self.prompt)

    @property
    def wave(self) -> int:
        """How many questions are asked together."""
        return max(_TOGETHER // self.votes, 1)

    @property
    def samplings(self) -> tuple[Sampling, ...]:
        """That of each answer to a question, with a seed of its own."""
        seeds = ((self.sampling.seed + vote) % (LARGEST_SEED + 1) for vote in range(self.votes))
        return tuple(replace(self.sampling, seed=seed) for seed in seeds)
