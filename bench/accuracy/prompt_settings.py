"""Settings of an evaluation run: prompt, generation and threads."""

from dataclasses import dataclass

from ...errors import RequestError
from ...runtime.batch.reproducible_batches import GenerationSettings
from ...runtime.engine.engine import Engine
from .prompts import Prompt, find_prompt


@dataclass(frozen=True, kw_only=True)
class PromptSettings(GenerationSettings):
    """Generation settings with a named prompt.

    Attributes:
        prompt: a name in PROMPTS.
        threads: threads that compute.
    """

    threads: int
    prompt: str = "zero-shot"

    def __post_init__(self) -> None:
        find_prompt(self.prompt)
        if self.system is not None:
            raise RequestError("bench: the prompts have no system prompt of the user's")
        super().__post_init__()

    @property
    def prompt_format(self) -> Prompt:
        """The prompt of that name."""
        return find_prompt(self.prompt)

    @property
    def description(self) -> str:
        """How answers are sampled, and whether with the calculator."""
        temperature = f"temperature {self.sampling.temperature}"
        votes = f"majority of {self.votes}, {temperature}" if self.votes > 1 else temperature
        sampled = "greedy" if self.sampling.greedy else votes
        return f"{sampled}, calculator {'on' if self.calculator else 'off'}"

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop strings of the prompt."""
        return self.prompt_format.stop

    def prompt_tokens(self, engine: Engine, question: str) -> tuple[int, ...]:
        """Encode the prompt of a question, as a chat if the model has a chat template."""
        if "tokenizer.chat_template" in engine.model.header.metadata:
            return engine.conversation(self.prompt_format.messages(question))
        return engine.encode_text(self.prompt_format.text(question))
