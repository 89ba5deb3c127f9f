"""Configuration of an evaluation run: one model, one question set, and the settings."""

import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...runtime.batch.reproducible_batches import BatchJob
from ..harness.environment import this_build
from .datasets import QuestionSet
from .prompt_settings import PromptSettings

_NAME_BYTES_MAX = 255  # of a file, in most file systems


@dataclass(frozen=True)
class RunConfig:
    """Configuration of an evaluation run.

    Attributes:
        model: a GGUF file.
        adapter: a LoRA in a GGUF file, applied at run time; None for none.
        question_set: the questions.
        settings: prompt and generation settings.
    """

    model: Path
    adapter: Path | None
    question_set: QuestionSet
    settings: PromptSettings

    @cached_property
    def job(self) -> BatchJob:
        """The run as a job of the batch runtime. It is made once, as its attention depends on free memory."""
        return BatchJob(self.model, self.adapter, self.settings, self.settings.threads)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the answers depend on, as JSON values. Hashes the files."""
        return {
            "data_sha256": self.question_set.sha256,
            "questions": len(self.question_set.questions),
            "prompt": self.settings.prompt,
            "prompt_sha256": self.settings.prompt_format.sha256,
            **self.job.identity,
            **asdict(this_build()),
        }

    @property
    def file_name(self) -> str:
        """Name of the log: readable, and unique for each identity."""
        digest = sha256(json.dumps(self.identity).encode()).hexdigest()[:12]
        name = f"{self.model.stem}-{self.question_set.name}-{self.settings.prompt}"
        ending = f"-{digest}.jsonl"
        while len(os.fsencode(name + ending)) > _NAME_BYTES_MAX:
            name = name[:-1]
        return name + ending
