"""An engine that is slowed down on purpose, to test whether a benchmark detects it."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from ...runtime.engine.engine import Engine
from ...runtime.llama.context import Context, Span


class SlowedContext(Context):
    """A context in which each batch, with the engine's work before it, takes `slowdown` times as long."""

    slowdown = 1.0
    _last_end: float | None = None  # of the last batch, while its sequence continues

    def decode(self, spans: Sequence[Span]) -> list[int]:
        """Compute the batch, then busy-wait: a sleep is not exact enough for times this short."""
        start = self._last_end or perf_counter()
        rows = super().decode(spans)
        until = start + self.slowdown * (perf_counter() - start)
        while (now := perf_counter()) < until:
            pass
        self._last_end = now
        return rows

    def clear(self, slot: int, start: int = 0) -> None:
        """Clear the slot; the time until the next batch is no part of the engine's work."""
        super().clear(slot, start)
        self._last_end = None


class SlowedEngine(Engine):
    """An engine that computes in a SlowedContext."""

    def __init__(self, path: str | Path, *, slowdown: float, **options: Any) -> None:
        """Load a model.

        Args:
            path: a GGUF file.
            slowdown: factor on the time of each batch, at least 1.
            options: options of Engine.

        Raises:
            ThirteenError: Engine() raises it.
        """
        self._slowdown = slowdown
        super().__init__(path, **options)

    def _make_context(self) -> Context:
        context = SlowedContext(self.model, self._params)
        context.slowdown = self._slowdown
        return context
