"""Thoughts: what a model writes between two markers before its answer, as its chat template says.

Not read are <response> of Granite 3 behind the thought, and the channels of gpt-oss and Gemma 4, which also
name who a message is for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from ..validation import check_type

# Qwen3, SmolLM3, DeepSeek-R1 and its distillations, QwQ, GLM; Magistral.
MARKERS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
SWITCH = "enable_thinking"  # the variable of chat templates
MAX_TOKENS = 2048  # of a thought and its answer, where no other number is asked for
_MARKER_TOKENS = 16  # of a prompt, in which a marker at its end begins


class PromptVocabulary(Protocol):
    """The part of llama.model.Model that turns prompts into tokens, and back."""

    @property
    def control_tokens(self) -> dict[str, int]:
        """Control tokens by name."""

    @property
    def stripping_tokens(self) -> frozenset[str]:
        """Names of the control tokens that take the white space after them."""

    def token_to_piece(self, token: int) -> bytes:
        """Return the bytes of a token."""

    def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        """Split a text into tokens."""


def resolve_thinking(think: bool | None, budget: int | None) -> tuple[bool | None, int | None]:
    """Whether to think, and the budget of tokens; None leaves it to the template, and 0 is not to think.

    Raises:
        RequestError: `think` is neither a bool nor None.
    """
    if think is not None:
        check_type("think", think, bool)
    if think is False or budget == 0:
        return False, 0
    return True if budget else think, budget


@dataclass(frozen=True, slots=True)
class Thinking:
    """How a model thinks.

    Attributes:
        opening: marker of a thought's beginning.
        closing: marker of its end.
        opening_tokens: tokens of the former; one, if the model was made to think.
        ending_tokens: tokens that end a thought.
        control: the markers that are control tokens, whose text a model does not give.
        vocabulary: the model's.
    """

    opening: str
    closing: str
    opening_tokens: tuple[int, ...]
    ending_tokens: tuple[int, ...]
    control: Mapping[int, bytes]
    vocabulary: PromptVocabulary

    @classmethod
    def of(cls, template: str, vocabulary: PromptVocabulary) -> Self | None:
        """How the model of a chat template thinks; None if the template names no markers of the table."""
        named = (pair for pair in MARKERS if any(marker in template for marker in pair))
        if (markers := next(named, None)) is None:
            return None
        opening, closing = markers
        begin, end = (
            tuple(vocabulary.tokenize(text, special=True, bos=False))
            for text in (opening, f"\n{closing}\n\n")
        )
        names = vocabulary.control_tokens
        control = {names[marker]: marker.encode() for marker in markers if marker in names}
        return cls(opening, closing, begin, end, control, vocabulary)

    def piece(self, token: int) -> bytes:
        """The bytes of a token, also of a marker."""
        return self.control.get(token) or self.vocabulary.token_to_piece(token)

    def begun(self, prompt: Sequence[int]) -> bool | None:
        """Whether a thought has begun at the end of a prompt, or False if one has ended; None if neither."""
        end = b"".join(map(self.piece, prompt[-_MARKER_TOKENS:])).decode("utf-8", "replace")
        return self._begun(end)

    def _begun(self, prompt: str) -> bool | None:
        text = prompt.rstrip()
        return True if text.endswith(self.opening) else False if text.endswith(self.closing) else None

    def without_thought(self, prompt: str) -> str:
        """The rest of an empty thought, to be written behind a prompt so that no other follows."""
        begun = self._begun(prompt)
        if begun is False:
            return ""
        return f"{self.closing}\n\n" if begun else f"{self.opening}\n\n{self.closing}\n\n"

    def answer(self, text: str) -> str:
        """An earlier answer without its thought, which a client may have sent back."""
        _, marker, rest = text.rpartition(self.closing)
        return rest.lstrip() if marker else text
