"""Prompts for math questions: bare, zero-shot, refined instructions, eight worked examples; and settings."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from ...errors import RequestError
from ...runtime.batch.reproducible_batches import GenerationSettings
from ...runtime.effort import parse_effort
from ...runtime.engine.engine import Engine
from ...runtime.machine.threads import default_threads
from ...runtime.prompt.prompt_encoder import Message, example_messages
from ...runtime.prompt.thinking import resolve_thinking
from ...runtime.request import Request


@dataclass(frozen=True, slots=True)
class Prompt:
    """Text around a question.

    Attributes:
        name: name by which it is selected.
        before: text before the question.
        after: text after the question.
        shots: examples that come first, each a question and its answer.
        stop: stop strings, because a model without a chat template continues with another question.
    """

    name: str
    before: str = ""
    after: str = ""
    shots: Sequence[tuple[str, str]] = ()
    stop: tuple[str, ...] = ("\nQ:",)

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


def find_prompt(name: str) -> Prompt:
    """Look up a prompt by its name.

    Raises:
        RequestError: no prompt has that name.
    """
    if name not in PROMPTS:
        raise RequestError(f"prompt: {name!r} is not one of {', '.join(PROMPTS)}")
    return PROMPTS[name]


# zero-shot: T. Kojima et al., Large Language Models are Zero-Shot Reasoners, 2022 (arXiv 2205.11916).
# 8-shot: J. Wei et al., Chain-of-Thought Prompting Elicits Reasoning in Large Language Models, 2022
# (arXiv 2201.11903), table 20: the usual ones for results on GSM8K "with 8-shot chain of thought".
_TABLE = json.loads(Path(__file__).with_name("prompts.json").read_text(encoding="utf-8"))
PROMPTS = {name: Prompt(name, **fields) for name, fields in _TABLE.items()}


@dataclass(frozen=True, kw_only=True)
class PromptSettings(GenerationSettings):
    """Generation settings with a named prompt.

    Attributes:
        prompt: a name in PROMPTS; by default "bare" where answers vote, or else "zero-shot".
        threads: threads that compute.
    """

    threads: int = field(default_factory=default_threads)
    prompt: str = ""

    def __post_init__(self) -> None:
        if not self.prompt:
            object.__setattr__(self, "prompt", "bare" if parse_effort(self.effort).votes else "zero-shot")
        find_prompt(self.prompt)
        if self.system is not None:
            raise RequestError("bench: the prompts have no system prompt of the user's")
        super().__post_init__()

    @property
    def description(self) -> str:
        """How answers are sampled, and whether with the calculator."""
        sampled = "greedy" if self.sampling.greedy else f"temperature {self.sampling.temperature}"
        if self.effort.votes:
            votes, sampling = self.effort.rule.answers, self.sampling.stochastic
            sampled = f"effort {self.effort}: majority of up to {votes}, temperature {sampling.temperature}"
        return f"{sampled}, calculator {'on' if self.calculator else 'off'}"

    def request(self, engine: Engine, question: str, number: int = 0) -> Request:
        """Make the request that asks a question, as a chat if the model has a chat template."""
        prompt, effort = find_prompt(self.prompt), self.effort.for_question(question)
        messages = prompt.messages(question)
        is_chat = bool(engine.chat_template)
        think, budget = resolve_thinking(self.think, self.think_budget)
        text = prompt.text(question)
        return Request(
            engine.conversation(messages, think=think) if is_chat else engine.encode_text(text),
            self.max_tokens,
            self.sampling,
            stop=prompt.stop,
            calculator=self.calculator,
            question=question,
            effort=effort,
            examples=engine.after_examples(messages, think) if effort.votes and is_chat else (),
            min_confidence=self.min_confidence,
            think_budget=budget,
        )
