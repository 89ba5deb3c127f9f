"""Configuration of an evaluation run: one model, one question set, and settings of prompt and generation."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...errors import RequestError
from ...runtime.batch.reproducible_batches import PROFILE, BatchJob, GenerationSettings, computed_by
from ...runtime.effort import parse_effort
from ...runtime.engine.engine import Engine
from ...runtime.profile import DEFAULT_KV
from ...runtime.prompt.prompt_encoder import Message
from ...runtime.threads import default_threads
from ..harness.environment import this_build
from .datasets import QuestionSet
from .eval_log import LOGGED_RUN
from .prompts import Prompt, find_prompt

_NAME_BYTES_MAX = 255  # of a file, in most file systems


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
    def prompt_format(self) -> Prompt:
        """The prompt of that name."""
        return find_prompt(self.prompt)

    @property
    def description(self) -> str:
        """How answers are sampled, and whether with the calculator."""
        sampled = "greedy" if self.sampling.greedy else f"temperature {self.sampling.temperature}"
        if self.effort.votes:
            votes, sampling = self.effort.rule.answers, self.sampling.stochastic
            sampled = f"effort {self.effort}: majority of up to {votes}, temperature {sampling.temperature}"
        return f"{sampled}, calculator {'on' if self.calculator else 'off'}"

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop strings of the prompt."""
        return self.prompt_format.stop

    def messages(self, question: str) -> Sequence[Message]:
        """The prompt of a question as a chat."""
        return self.prompt_format.messages(question)

    def prompt_tokens(self, engine: Engine, question: str) -> tuple[int, ...]:
        """Encode the prompt of a question, as a chat if the model has a chat template."""
        if "tokenizer.chat_template" in engine.model.header.metadata:
            return engine.conversation(self.messages(question))
        return engine.encode_text(self.prompt_format.text(question))


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

    def _job(self, **speed: Any) -> BatchJob:
        profile = replace(PROFILE, **speed)
        return BatchJob(self.model, self.adapter, self.settings, self.settings.threads, profile)

    @cached_property
    def job(self) -> BatchJob:
        """The run as a job of the batch runtime, with the speed settings of its log if there is one."""
        return self._job(**computed_by(self.log, LOGGED_RUN))

    @cached_property
    def _asked(self) -> dict[str, Any]:
        """Everything that the answers depend on but for what is chosen for speed. Hashes the files."""
        return {
            "data_sha256": self.question_set.sha256,
            "questions": len(self.question_set.questions),
            "prompt": self.settings.prompt,
            "prompt_sha256": self.settings.prompt_format.sha256,
            **self._job(kv=DEFAULT_KV).asked,
            **asdict(this_build()),
        }

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the answers depend on, as JSON values."""
        return {**self._asked, **self.job.speed_settings}

    @property
    def log(self) -> Path:
        """The log; its name is readable, and unique for what is asked."""
        digest = sha256(json.dumps(self._asked).encode()).hexdigest()[:12]
        name = f"{self.model.stem}-{self.question_set.name}-{self.settings.prompt}"
        ending = f"-{digest}.jsonl"
        while len(os.fsencode(name + ending)) > _NAME_BYTES_MAX:
            name = name[:-1]
        return self.folder / (name + ending)
