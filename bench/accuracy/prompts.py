"""Prompts for math questions: bare, zero-shot, refined instructions, eight worked examples; and settings."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from ...runtime.batch.reproducible_batches import BatchSettings
from ...runtime.engine.engine import Engine
from ...runtime.machine import default_threads
from ...runtime.options import Request
from ...runtime.prompt.prompt_encoder import Message, example_messages


@dataclass(frozen=True, slots=True)
class Prompt:
    """Text around a question, and examples that come first, each a question and its answer."""

    name: str
    before: str = ""
    after: str = ""
    shots: Sequence[tuple[str, str]] = ()
    stop: tuple[str, ...] = ("\nQ:",)  # a model without a chat template continues with another question

    @property
    def sha256(self) -> str:
        """Hash of all texts, in hexadecimal."""
        return sha256(json.dumps(asdict(self)).encode()).hexdigest()

    def messages(self, question: str) -> Sequence[Message]:
        """Format a question as a chat, in which each example is two messages."""
        return [*example_messages(self.shots), Message("user", self._wrap(question))]

    def text(self, question: str) -> str:
        """Format a question as plain text to continue, for a model without a chat template."""
        examples = "".join(f"Q: {shot}\nA: {answer}\n\n" for shot, answer in self.shots)
        return f"{examples}Q: {self._wrap(question)}\nA:"

    def _wrap(self, question: str) -> str:
        return f"{self.before}{question}{self.after}"


# zero-shot: T. Kojima et al., Large Language Models are Zero-Shot Reasoners, 2022 (arXiv 2205.11916).
# 8-shot: J. Wei et al., Chain-of-Thought Prompting Elicits Reasoning in Large Language Models, 2022
# (arXiv 2201.11903), table 20: the usual ones for results on GSM8K "with 8-shot chain of thought".
_TABLE = json.loads(Path(__file__).with_name("prompts.json").read_text(encoding="utf-8"))
PROMPTS = {name: Prompt(name, **fields) for name, fields in _TABLE.items()}


@dataclass(frozen=True, kw_only=True)
class PromptSettings(BatchSettings):
    """Options with a prompt of PROMPTS, by default "bare" where answers vote, or else "zero-shot"."""

    threads: int = field(default_factory=default_threads)
    prompt: str = ""
    batch_questions: int = 0  # by default those of BatchSettings

    def __post_init__(self) -> None:
        if not self.prompt:
            object.__setattr__(self, "prompt", "bare" if self.options.effort.votes else "zero-shot")
        assert self.options.system is None, "a prompt of this table stands alone"

    @property
    def batch_size(self) -> int:
        """Questions per batch."""
        return self.batch_questions or super().batch_size

    @property
    def description(self) -> str:
        """How answers are sampled, and whether with the calculator."""
        options = self.options
        sampled = "greedy" if options.greedy else f"temperature {options.temperature}"
        if options.effort.votes:
            votes, temperature = options.effort.rule.answers, options.stochastic.temperature
            sampled = f"effort {options.effort}: majority of up to {votes}, temperature {temperature}"
        return f"{sampled}, calculator {'on' if options.calculator else 'off'}"

    def request(self, engine: Engine, question: str, number: int = 0) -> Request:
        """Make the request that asks a question, as a chat if the model has a chat template."""
        prompt = PROMPTS[self.prompt]
        options = replace(self.options, stop=prompt.stop)
        if engine.chat_template:
            return replace(engine.chat(prompt.messages(question), options), question=question)
        options = replace(options, effort=options.effort.for_question(question))
        return Request(engine.encode_text(prompt.text(question)), options, question)
