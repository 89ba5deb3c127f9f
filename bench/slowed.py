"""An engine that is made slower by as much as it is told: to see whether a benchmark finds it."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from ..runtime.engine import Engine
from ..runtime.llama import Context, Span


class SlowedContext(Context):
    """A context whose every batch takes so many times as long."""

    slowdown = 1.0

    def decode(self, spans: Sequence[Span]) -> list[int]:
        """See Context. The wait is one of computing: to sleep takes longer than such short times."""
        began = perf_counter()
        rows = super().decode(spans)
        until = began + self.slowdown * (perf_counter() - began)
        while perf_counter() < until:
            pass
        return rows


class SlowedEngine(Engine):
    """An engine that computes in such a context; all else is as with any other."""

    def __init__(self, path: str | Path, *, slowdown: float, **options: Any) -> None:
        """Load a model.

        Args:
            path: a GGUF file.
            slowdown: how many times as long each batch is to take, from 1.
            options: as of Engine.

        Raises:
            ThirteenError: as Engine does.
        """
        self._slowdown = slowdown
        super().__init__(path, **options)

    def _context(self) -> Context:
        context = SlowedContext(self.model, self._room)
        context.slowdown = self._slowdown
        return context
