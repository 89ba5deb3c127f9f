"""Thoughts: what a model writes between two markers before its answer, as its chat template says.

Not read are <response> of Granite 3 behind the thought, and the channels of gpt-oss and Gemma 4, which also
name who a message is for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from ..llama.vocabulary import Vocabulary

# Qwen3, SmolLM3, DeepSeek-R1 and its distillations, QwQ, GLM; Magistral.
MARKERS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
SWITCH = "enable_thinking"  # the variable of chat templates
MAX_TOKENS = 2048  # of a thought and its answer, where no other number is asked for
_MARKER_TOKENS = 16  # of a prompt, in which a marker at its end begins


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
    vocabulary: "Vocabulary"

    @classmethod
    def of(cls, template: str, vocabulary: "Vocabulary") -> Self | None:
        """How the model of a chat template thinks; None if the template names no markers of the table."""
        for opening, closing in MARKERS:
            if opening in template or closing in template:
                begin, end = (
                    tuple(vocabulary.tokenize(text, special=True, bos=False))
                    for text in (opening, f"\n{closing}\n\n")
                )
                names = vocabulary.control_tokens
                control = {names[name]: name.encode() for name in (opening, closing) if name in names}
                return cls(opening, closing, begin, end, control, vocabulary)
        return None

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
