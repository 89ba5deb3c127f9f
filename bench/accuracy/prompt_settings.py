"""How questions are put."""

from dataclasses import dataclass

from ...runtime.batch import reproducible_batches
from ...runtime.engine.engine import Engine
from .prompts import Prompt, prompt_named


@dataclass(frozen=True, kw_only=True)
class PromptSettings(reproducible_batches.GenerationSettings):
    """What is the same for all questions of a run; see wave.Terms.

    Attributes:
        prompt: the name of one of prompts.PROMPTS.
        threads: that compute.
    """

    threads: int
    prompt: str = "zero-shot"

    def __post_init__(self) -> None:
        prompt_named(self.prompt)
        super().__post_init__()

    @property
    def worded(self) -> Prompt:
        """The prompt itself."""
        return prompt_named(self.prompt)

    @property
    def stop(self) -> tuple[str, ...]:
        """See wave.Terms."""
        return self.worded.stop

    def prompt_tokens(self, engine: Engine, question: str) -> tuple[int, ...]:
        """See wave.Terms."""
        if "tokenizer.chat_template" in engine.model.header.metadata:
            return engine.conversation(self.worded.messages(question))
        return engine.encode_text(self.worded.text(question))
