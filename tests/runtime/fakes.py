"""A model that says a script, a pause without computing, templates that think, and fixed settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any, ClassVar

from thirteen.runtime import compute
from thirteen.runtime.llama.constraint import Constraint
from thirteen.runtime.llama.context import Context
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.sampler import Sampler
from thirteen.runtime.options import Options

TIMEOUT_S = 60


class ScriptedSampler(Sampler):
    """Says a text and ends, on a model in which each byte is a token.

    Attributes:
        scripts: texts of the next answers, or errors to raise; the last is for all others.
        pause_s: how long each token takes.
    """

    scripts: ClassVar[list[str | Exception]] = []
    pause_s: ClassVar[float] = 0.0

    def __init__(self, model: Model, options: Options, constraint: Constraint | None) -> None:
        super().__init__(model, options)
        self.script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        self.remaining = [] if isinstance(self.script, Exception) else [*self.script.encode(), model.eos or 0]

    def sample(self, context: Context, row: int, *, no_digit: bool = False) -> int:
        sleep(self.pause_s)
        if isinstance(self.script, Exception):
            raise self.script
        while no_digit and chr(self.remaining[0]).isdigit():
            self.remaining.pop(0)
        token: int = self.remaining.pop(0)
        return token


@contextmanager
def halted() -> Iterator[None]:
    """Let nothing be computed in the block: what is submitted waits."""
    resume = Event()
    compute.post(lambda: resume.wait(TIMEOUT_S))
    try:
        yield
    finally:
        resume.set()


# Keywords of an engine whose logits are the same on all machines.
FIXED: dict[str, Any] = {"threads": 1, "flash_attention": True, "kv": "f16"}


# Chat templates of models that think.
_FOLDER = Path(__file__).parents[1] / "data" / "chat_templates"
TEMPLATES = {
    name: (_FOLDER / f"{name.replace(' ', '_')}.jinja").read_text("utf-8")
    for name in ("qwen3", "smollm3", "deepseek-r1", "no switch", "magistral")
}
