"""Configuration of an evaluation run: one model, one question set, and settings of prompt and generation."""

import json
import os
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Unpack

from ...errors import RequestError
from ...quality.environment import this_build
from ...runtime.batch.reproducible_batches import ENGINE, BatchJob, GenerationSettings
from ...runtime.effort import parse_effort
from ...runtime.engine.engine import Engine
from ...runtime.llama.settings import DEFAULT_KV
from ...runtime.machine.threads import default_threads
from ...runtime.plan.options import EngineOptions
from ...runtime.request import Request
from .datasets import QuestionSet
from .eval_log import LOGGED_RUN
from .prompts import find_prompt

_NAME_BYTES_MAX = 255  # of a file, in most file systems
_FIXED = EngineOptions(kv=DEFAULT_KV, flash_attention=True)  # in the name of a log, whatever is chosen


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

    def request(self, engine: Engine, question: str) -> Request:
        """Make the request that asks a question, as a chat if the model has a chat template."""
        prompt, effort = find_prompt(self.prompt), self.effort.for_question(question)
        messages = prompt.messages(question)
        is_chat = bool(engine.chat_template)
        return Request(
            engine.conversation(messages) if is_chat else engine.encode_text(prompt.text(question)),
            self.max_tokens,
            self.sampling,
            stop=prompt.stop,
            calculator=self.calculator,
            question=question,
            effort=effort,
            examples=engine.after_examples(messages) if effort.votes and is_chat else (),
            min_confidence=self.min_confidence,
        )


@dataclass(frozen=True)
class RunConfig:
    """Configuration of an evaluation run.

    Attributes:
        model: a GGUF file.
        adapter: a LoRA in a GGUF file, applied at run time; None for none.
        question_set: the questions.
        settings: prompt and generation settings.
        folder: where the log is.
    """

    model: Path
    adapter: Path | None
    question_set: QuestionSet
    settings: PromptSettings

    folder: Path

    def _job(self, **chosen: Unpack[EngineOptions]) -> BatchJob:
        return BatchJob(self.model, self.adapter, self.settings, self.settings.threads, ENGINE | chosen)

    @cached_property
    def job(self) -> BatchJob:
        """The run as a job of the batch runtime, with the speed settings of its log if there is one.

        Only without one are they chosen, for which the model may be loaded.
        """
        return self._job().decided(self.log, LOGGED_RUN)

    @cached_property
    def _new_identity(self) -> dict[str, Any]:
        """The identity of a run without a log. Hashes the files."""
        return {
            "data_sha256": self.question_set.sha256,
            "questions": len(self.question_set.questions),
            "prompt": self.settings.prompt,
            "prompt_sha256": find_prompt(self.settings.prompt).sha256,
            **self._job(**_FIXED).identity,
            **asdict(this_build()),
        }

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the answers depend on, as JSON values."""
        return {**self._new_identity, **self.job.allocation}

    @property
    def log(self) -> Path:
        """The log; its name is readable, and unique for what is asked."""
        asked = {name: value for name, value in self._new_identity.items() if name not in _FIXED}
        digest = sha256(json.dumps(asked).encode()).hexdigest()[:12]
        name = f"{self.model.stem}-{self.question_set.name}-{self.settings.prompt}"
        ending = f"-{digest}.jsonl"
        while len(os.fsencode(name + ending)) > _NAME_BYTES_MAX:
            name = name[:-1]
        return self.folder / (name + ending)
