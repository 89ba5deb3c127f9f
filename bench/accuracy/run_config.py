"""A sitting: one model, one set of questions, and how they are put to it."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...runtime.batch.reproducible_batches import BatchJob
from ..harness.environment import this_build
from .datasets import QuestionSet
from .prompt_settings import PromptSettings


@dataclass(frozen=True)
class RunConfig:
    """What is asked of whom, and how.

    Attributes:
        model: a GGUF file.
        adapter: a LoRA in a GGUF file, applied at run time; None if nothing is.
        asked: the questions.
        terms: how they are put.
    """

    model: Path
    adapter: Path | None
    asked: QuestionSet
    terms: PromptSettings

    @property
    def job(self) -> BatchJob:
        """Who is asked, and how."""
        return BatchJob(self.model, self.adapter, self.terms, self.terms.threads)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that the records depend on, one value of JSON a key: the files are hashed for it."""
        return {
            "data_sha256": self.asked.sha256,
            "questions": len(self.asked.questions),
            "prompt": self.terms.prompt,
            "prompt_sha256": self.terms.worded.sha256,
            **self.job.identity,
            **asdict(this_build()),
        }

    @property
    def file_name(self) -> str:
        """The name for its records: readable, and another for every other sitting."""
        digest = sha256(json.dumps(self.identity).encode()).hexdigest()[:12]
        return f"{self.model.stem}-{self.asked.name}-{self.terms.prompt}-{digest}.jsonl"
