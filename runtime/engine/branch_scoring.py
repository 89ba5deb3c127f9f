"""Scoring of next tokens after texts that branch: what the texts of a tree share is computed once."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from ...errors import RequestError
from ..llama.context import Context, Span
from ..llama.logits import Logits, sampling_logprobs
from ..llama.model import LoraAdapter
from ..request import Sampling
from .prefix_cache import common_length
from .scoring import SharedPrefix

Tokens = Sequence[int]
Branch = tuple[Tokens, Tokens]  # tokens of a text, and the next tokens to score
Tree = Sequence[Branch]
Logprobs = tuple[float, ...]


@dataclass(frozen=True)
class _Round:
    """Texts of a tree, each the beginning of the next one, that are computed together.

    Attributes:
        start: length of the beginning that the slot already holds.
        pieces: for each text its index in the tree, and the tokens that it adds to the text before.
    """

    start: int
    pieces: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Number of tokens to compute."""
        return sum(len(tokens) for _, tokens in self.pieces)

    def spans(self, slot: int) -> Iterator[Span]:
        """The pieces in a slot, each with the logits after its last token."""
        start = self.start
        for _, tokens in self.pieces:
            yield Span(slot, start, tokens, 1)
            start += len(tokens)


class BranchScorer:
    """Computes log-probabilities of next tokens, several trees at once."""

    def __init__(self, context: Context) -> None:
        """Use a context, which must have nothing else in it between calls."""
        self._context, self._params = context, context.params
        self._prefix = SharedPrefix(context)  # that all trees begin with

    def score(
        self, trees: Sequence[Tree], adapter: LoraAdapter | None, sampling: Sampling
    ) -> list[list[Logprobs]]:
        """Compute the log-probability of sampling each next token after each text, in nats.

        A text that begins with the one before it costs only the tokens that it adds. Otherwise the tokens
        after the beginning that both share are computed.

        Args:
            trees: texts and their next tokens; neither may be empty.
            adapter: applied to all of them.
            sampling: temperature, above 0, and cut-offs; see sampling_logprobs().

        Raises:
            RequestError: a text is longer than the context, or a part is empty or has an unknown token.
            ModelFileError: the computation failed.
        """
        for branch in (branch for tree in trees for branch in tree):
            self._check(*branch)
        self._context.set_adapter(adapter)
        scores: list[list[Logprobs]] = [[()] * len(tree) for tree in trees]
        try:
            # A tree's own texts share their beginning anyway.
            self._prefix.compute([text for tree in trees for text, _ in tree] if len(trees) > 1 else [])
            rounds = {index: list(self._rounds(tree)) for index, tree in enumerate(trees) if tree}
            for batch in self._batches(rounds):
                self._score_batch(batch, trees, rounds, scores, sampling)
        finally:
            self._context.set_adapter(None)  # the caller may now close the adapter
        return scores

    def _check(self, text: Tokens, tokens: Tokens) -> None:
        if not text or not tokens or len(text) > self._params.context:
            raise RequestError(
                f"a text of {len(text)} tokens and {len(tokens)} next ones: neither may be empty, and the "
                f"context holds {self._params.context}"
            )
        self._context.model.check_tokens(text)
        self._context.model.check_tokens(tokens)

    def _rounds(self, tree: Tree) -> Iterator[_Round]:
        round_, held = _Round(self._prefix.length), tuple(tree[0][0][: self._prefix.length])
        for index, (text, _) in enumerate(tree):
            start = min(common_length(held, text), len(text) - 1)
            if start < len(held):
                if round_.pieces:
                    yield round_
                round_ = _Round(start)
            round_.pieces.append((index, tuple(text[start:])))
            held = tuple(text)
        yield round_

    def _batches(self, rounds: dict[int, list[_Round]]) -> Iterator[list[int]]:
        """Yield indices of trees of similar size, whose first rounds fill a batch."""
        batch, tokens = list[int](), 0
        for index in sorted(rounds, key=lambda index: rounds[index][0].tokens):
            length = rounds[index][0].tokens
            if batch and (len(batch) == self._params.slots or tokens + length > self._params.batch):
                yield batch
                batch, tokens = [], 0
            batch.append(index)
            tokens += length
        if batch:
            yield batch

    def _score_batch(
        self,
        batch: Sequence[int],
        trees: Sequence[Tree],
        rounds: dict[int, list[_Round]],
        scores: list[list[Logprobs]],
        sampling: Sampling,
    ) -> None:
        """Compute each tree in a slot of its own: the first rounds of all together, then the second ones."""
        with ExitStack() as slots:
            for slot in range(len(batch)):
                slots.callback(self._context.clear, slot)
                self._prefix.restore(slot)
            for number in range(max(len(rounds[index]) for index in batch)):
                found = {slot: index for slot, index in enumerate(batch) if number < len(rounds[index])}
                for slot, index in found.items():
                    self._context.clear(slot, rounds[index][number].start)
                spans = [span for slot, index in found.items() for span in rounds[index][number].spans(slot)]
                rows = self._rows(spans)
                for index in found.values():
                    for text, _ in rounds[index][number].pieces:
                        tokens = trees[index][text][1]
                        scores[index][text] = tuple(sampling_logprobs(next(rows), tokens, sampling))

    def _rows(self, spans: Sequence[Span]) -> Iterator[Logits]:
        """Compute spans in as few batches as they need; yields the row of logits of each span's last token.

        A row is a view until the next one is asked for.
        """
        batch, tokens, rows = list[Span](), 0, 0
        for span in self._parts(spans):
            length = len(span.tokens)
            if batch and (tokens + length > self._params.batch or rows + span.rows > self._params.outputs):
                yield from map(self._context.logits_row, self._context.decode(batch))
                batch, tokens, rows = [], 0, 0
            batch.append(span)
            tokens, rows = tokens + length, rows + span.rows
        yield from map(self._context.logits_row, self._context.decode(batch))

    def _parts(self, spans: Sequence[Span]) -> Iterator[Span]:
        """Cut what is longer than a batch; only the last part has a row of logits."""
        step = self._params.batch
        for span in spans:
            for begin in range(0, len(span.tokens), step):
                part = span.tokens[begin : begin + step]
                is_last = begin + step >= len(span.tokens)
                yield Span(span.slot, span.start + begin, part, int(is_last))
