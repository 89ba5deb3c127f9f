"""Prompts that /v1/completions echoes, with the log-probabilities of their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...runtime.answer import Answer, Piece
from ...runtime.request import StopReason, Timings, TokenLogprob, Usage
from .openai_formatter import CompletionFormatter

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EchoedPrompt:
    """A prompt that the answer begins with.

    Attributes:
        text: its text.
        tokens: its tokens.
        logprobs: log-probabilities of all tokens but the first; None if they are not asked for.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: Sequence[TokenLogprob] | None

    @property
    def empty_answer(self) -> Piece:
        """An answer of no tokens."""
        nothing = Timings(0.0, 0.0, 0.0)
        usage = Usage(len(self.tokens), 0)
        return Piece("", answer=Answer(None, "", StopReason.LENGTH, usage, nothing, (), verified=False))


@dataclass(frozen=True)
class EchoFormatter(CompletionFormatter):
    """Formats text completions that begin with their prompts.

    Attributes:
        prompts: the prompts, each of `choices` answers.
    """

    prompts: Sequence[EchoedPrompt] = ()

    def _choice(self, index: int, piece: Piece) -> Json:
        prompt, logprobs = self.prompts[index // self.choices], piece.logprobs
        if prompt.logprobs is not None:
            logprobs = (TokenLogprob(prompt.tokens[0], 0.0), *prompt.logprobs, *logprobs)
        choice = super()._choice(index, replace(piece, text=prompt.text + piece.text, logprobs=logprobs))
        if prompt.logprobs is not None:  # nothing comes before the first token: it has none
            choice["logprobs"]["token_logprobs"][0] = choice["logprobs"]["top_logprobs"][0] = None
        return choice

    def _chunk_choice(self, index: int, piece: Piece, *, first: bool) -> Json:
        return self._choice(index, piece) if first else super()._choice(index, piece)
