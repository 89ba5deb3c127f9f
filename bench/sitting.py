"""A sitting: one model, one set of questions, and how they are put to it."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..digest import file_sha256
from ..runtime.profile import PROFILES
from .machine import this_build
from .tasks import QuestionSet
from .terms import Terms

PROFILE = "server"


@dataclass(frozen=True)
class Sitting:
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
    terms: Terms

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that the answers depend on, one value of JSON a key: the files are hashed for it."""
        profile, terms = PROFILES[PROFILE], self.terms
        return {
            "model_sha256": file_sha256(self.model),
            "adapter_sha256": None if self.adapter is None else file_sha256(self.adapter),
            "data_sha256": self.asked.sha256,
            "questions": len(self.asked.questions),
            "prompt": terms.prompt,
            "prompt_sha256": terms.worded.sha256,
            "votes": terms.votes,
            **asdict(terms.sampling),
            "calculator": terms.calculator,
            "max_tokens": terms.max_tokens,
            "threads": terms.threads,
            **{
                name: getattr(profile, name)
                for name in ("context", "slots", "batch", "kv", "repack", "lookup")
            },
            "wave": terms.wave,
            **asdict(this_build()),
        }

    @property
    def file_name(self) -> str:
        """The name for its records: readable, and another for every other sitting."""
        digest = sha256(json.dumps(self.identity).encode()).hexdigest()[:12]
        return f"{self.model.stem}-{self.asked.name}-{self.terms.prompt}-{digest}.jsonl"
