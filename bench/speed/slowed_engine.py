"""An engine that is made slower by as much as it is told: to see whether a benchmark finds it."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from ...runtime.engine.engine import Engine
from ...runtime.llama.context import Context, Span


class SlowedContext(Context):
    """A context where every batch takes so many times as long, and what the engine did before it as well."""

    slowdown = 1.0
    _ended: float | None = None  # when the last batch did, of a sequence that goes on

    def decode(self, spans: Sequence[Span]) -> list[int]:
        """See Context. It waits computing: a sleep would not be as exact as these times are short."""
        began = self._ended or perf_counter()
        rows = super().decode(spans)
        until = began + self.slowdown * (perf_counter() - began)
        while (now := perf_counter()) < until:
            pass
        self._ended = now
        return rows

    def clear(self, slot: int, start: int = 0) -> None:
        """See Context. Until the next batch, nobody waits for this one."""
        super().clear(slot, start)
        self._ended = None


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
