"""Forks of this process, in which nothing that llama.cpp has loaded can be used.

A forked child has none of its parent's threads, neither the engine's nor OpenMP's workers. Whoever waits for
one of them waits for ever.
"""

import os

from ..errors import RequestError

_ADVICE = "load the model in a process that is not forked after that: multiprocessing's start method 'spawn'"


class _Forks:
    """How often this process is the child of a fork, and what was loaded before the last one."""

    def __init__(self) -> None:
        self.generation = 0
        self.loaded = self.loaded_before = False
        if hasattr(os, "register_at_fork"):  # Windows has no fork
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self.generation += 1
        self.loaded_before = self.loaded_before or self.loaded


_FORKS = _Forks()


class ForkCheck:
    """Belongs to an object that only the process which made it can use."""

    def __init__(self) -> None:
        self._generation = _FORKS.generation

    @property
    def forked(self) -> bool:
        """Whether this process was forked after the object was made."""
        return self._generation != _FORKS.generation

    def check(self) -> None:
        """Raise RequestError if this process was forked after the object was made."""
        if self.forked:
            raise RequestError(f"the engine belongs to the parent of this forked process: {_ADVICE}")


def begin_loading() -> None:
    """Note that this process loads a model.

    Raises:
        RequestError: this process was forked after one was loaded.
    """
    if _FORKS.loaded_before:
        raise RequestError(f"this process was forked after a model had been loaded: {_ADVICE}")
    _FORKS.loaded = True
