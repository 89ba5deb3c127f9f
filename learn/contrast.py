"""The score `contrast`: how a candidate moves right against wrong solutions at the tokens where they part.

Reinforcement learning with few parameters changes few positions: those where right and wrong solutions part,
and there it promotes tokens that the base already finds likely (arXiv 2605.06241). The solutions of a
question are a tree of tokens. At a branch, whose solutions differ in outcome and in the next token, a token's
credit is the fraction of right solutions after it less that of the branch: the advantage of GRPO (arXiv
2402.03300) with the tree's own estimate of the value (as in VinePPO, arXiv 2410.01679). Tokens elsewhere have
no credit. A candidate is scored by prefill of these branches alone; nothing is generated. All probabilities
are those at the temperature, and with the cut-offs, at which the solutions were sampled.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import ThirteenError
from ..runtime.engine.branch_scoring import Branch, Logprobs
from ..runtime.engine.prefix_cache import common_length
from .rollouts import QuestionRollouts

_WORST = 3.0  # ratio that bounds the loss by a wrong token, as in dual-clip PPO (arXiv 1912.09729)
_LOG_RATIO_MAX = 20.0  # nats, so that no ratio overflows

Floats = NDArray[np.float64]
Mask = Callable[[Sequence[int]], Sequence[bool]]  # which tokens of a solution the model samples


@dataclass(frozen=True)
class ContrastSettings:
    """How a contrast is scored.

    Attributes:
        clip: change of a token's probability, as a fraction, beyond which it gains no more.
        kl: weight of the divergence from the base, in units of the score per nat.
        branch_tokens: maximum tokens computed for each question beyond its prompt; the branches with the most
            credit are taken first, and at least one.
    """

    clip: float = 0.2
    kl: float = 0.1
    branch_tokens: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.clip < 1:
            raise ThirteenError(f"--clip {self.clip!r}: must be above 0 and below 1")
        if not 0 <= self.kl < 1e3:
            raise ThirteenError(f"--kl {self.kl!r}: must be from 0 to 1000")
        if self.branch_tokens < 1:
            raise ThirteenError(f"--branch-tokens {self.branch_tokens!r}: must be at least 1")


@dataclass(frozen=True)
class Contrast:
    """What is scored of one question; the arrays are over the next tokens of all branches, (tokens,).

    Attributes:
        branches: texts, each with its next tokens; see Engine.next_logprobs(). Beside those where solutions
            part there are as many where they do not, to measure the divergence.
        credit: advantage of each token, in standard deviations of the question's outcomes.
        weight: number of solutions with that token; 0 where the solutions do not part.
        share: fraction of the branch's solutions with that token.
    """

    branches: Sequence[Branch]
    credit: Floats
    weight: Floats
    share: Floats

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        texts = [text for text, _ in self.branches]
        shared = (common_length(one, other) for one, other in pairwise(texts))
        return sum(map(len, texts)) - sum(shared)

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(len(text) for text, _ in self.branches)

    def score(self, logprobs: Floats, old: Floats, base: Floats, settings: ContrastSettings) -> float:
        """The clipped gain over the weights, less the weighted divergence; 0 without a change.

        Args:
            logprobs: log-probabilities of the next tokens by the candidate, (tokens,).
            old: by the model that sampled the solutions.
            base: by the base.
            settings: clip and weight of the divergence.
        """
        ratio = np.exp(np.clip(logprobs - old, -_LOG_RATIO_MAX, _LOG_RATIO_MAX))  # (tokens,)
        clipped = np.clip(ratio, 1 - settings.clip, 1 + settings.clip)
        gain = np.minimum(ratio * self.credit, clipped * self.credit)
        gain = np.where(self.credit < 0, np.maximum(gain, _WORST * self.credit), gain) - self.credit
        moved = np.clip(logprobs - base, -_LOG_RATIO_MAX, _LOG_RATIO_MAX)
        divergence = float((self.share * moved**2).sum() / (2 * self.share.sum()))
        return float((self.weight * gain).sum() / self.weight.sum()) - settings.kl * divergence


@dataclass(frozen=True)
class _Point:
    """A place in the tree of solutions where right and wrong ones part.

    Attributes:
        text: tokens of the solutions up to there.
        solution: all tokens of one of them.
        counts: right and all solutions by their next token; of those that end there without one, by None.
    """

    text: tuple[int, ...]
    solution: Sequence[int]
    counts: dict[int | None, tuple[int, int]]

    @property
    def credits(self) -> dict[int, float]:
        """For each next token the fraction of right solutions after it, less that of all."""
        right, total = (sum(column) for column in zip(*self.counts.values(), strict=True))
        return {
            token: here / all_ - right / total
            for token, (here, all_) in self.counts.items()
            if token is not None
        }

    @property
    def gain(self) -> float:
        """Sum of the sizes of the credits of all solutions."""
        return sum(abs(credit) * self.counts[token][1] for token, credit in self.credits.items())


def make_contrast(
    prompt: Sequence[int], rollouts: QuestionRollouts, end: Sequence[int], mask: Mask, branch_tokens: int
) -> Contrast | None:
    """Find what to score of a question; None if no token tells its right from its wrong solutions.

    Args:
        prompt: tokens of the prompt.
        rollouts: the question's solutions.
        end: the end-of-generation token; empty if the model has none.
        mask: tells which tokens of a solution the model samples; the calculator inserts the others.
        branch_tokens: see ContrastSettings.
    """
    solutions = [(*one.tokens, *end) if one.ended else one.tokens for one in rollouts.solutions]
    right = [one.right for one in rollouts.solutions]
    points = [point for point in _points(solutions, right, range(len(right)), 0) if point.gain]
    if not points:
        return None
    spread, points = float(np.std(right)), _choose(points, branch_tokens)
    branches: list[Branch] = []
    values: list[tuple[float, float, float]] = []  # credit, weight and share of each next token
    anchors = _anchors(points, mask)
    for number, point in enumerate(points):
        for text, token in anchors[number]:
            branches.append(((*prompt, *text), (token,)))
            values.append((0.0, 0.0, 1.0))
        total = sum(all_ for _, all_ in point.counts.values())
        branches.append(((*prompt, *point.text), tuple(point.credits)))
        values += [
            (credit / spread, point.counts[token][1], point.counts[token][1] / total)
            for token, credit in point.credits.items()
        ]
    return Contrast(branches, *np.array(values).T)


def _points(
    solutions: Sequence[Sequence[int]], right: Sequence[bool], members: Sequence[int], depth: int
) -> Iterator[_Point]:
    """The points of the tree below a text that the members share, each before those that continue it."""
    while len({right[one] for one in members}) > 1:
        groups: dict[int | None, list[int]] = {}
        for one in members:
            token = solutions[one][depth] if depth < len(solutions[one]) else None
            groups.setdefault(token, []).append(one)
        if len(groups) > 1:
            first = solutions[members[0]]
            counts = {
                token: (sum(right[one] for one in group), len(group)) for token, group in groups.items()
            }
            yield _Point(tuple(first[:depth]), first, counts)
            for token, group in groups.items():
                if token is not None:
                    yield from _points(solutions, right, group, depth + 1)
            return
        if None in groups:
            return
        depth += 1


def _choose(points: Sequence[_Point], branch_tokens: int) -> list[_Point]:
    """Take the points with the most credit whose texts together have at most `branch_tokens` tokens."""
    chosen: set[int] = set()
    computed: set[tuple[int, ...]] = set()
    for index in sorted(range(len(points)), key=lambda index: -points[index].gain):
        text = points[index].text
        added = {text[:length] for length in range(1, len(text) + 1)} - computed
        if not chosen or len(computed) + len(added) <= branch_tokens:
            chosen.add(index)
            computed |= added
    return [points[index] for index in sorted(chosen)]


def _anchors(points: Sequence[_Point], mask: Mask) -> list[list[tuple[tuple[int, ...], int]]]:
    """For each point, texts on the way to it and their next tokens: evenly spaced, as many as points in all.

    The next token is that on the way, and one that the model samples.
    """
    parting = {point.text for point in points}
    places: list[tuple[int, int]] = []  # point, and length of the text
    before: tuple[int, ...] = ()
    for number, point in enumerate(points):
        shared, sampled = common_length(before, point.text), mask(point.solution)
        places += [
            (number, length)
            for length in range(shared + 1, len(point.text))
            if sampled[length] and point.text[:length] not in parting
        ]
        before = point.text
    count = min(len(points), len(places))
    anchors: list[list[tuple[tuple[int, ...], int]]] = [[] for _ in points]
    for number, length in (places[n * len(places) // count] for n in range(count)):
        text = points[number].text
        anchors[number].append((text[:length], text[length]))
    return anchors


def flatten(logprobs: Sequence[Logprobs]) -> Floats:
    """The log-probabilities of all next tokens of a tree, in order, (tokens,)."""
    return np.array([value for of_text in logprobs for value in of_text])
