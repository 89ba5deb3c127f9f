"""Forks of this process, in which nothing that llama.cpp has loaded can be used.

A forked child has none of its parent's threads, neither the engine's nor OpenMP's workers. Whoever waits for
one of them waits for ever.
"""

import os

from ..errors import RequestError

_ADVICE = "load the model in a process that is not forked after that: multiprocessing's start method 'spawn'"

# Ids of the processes that have loaded a model: of this one, or of those that it was forked from.
_LOADED_BY: set[int] = set()


class ForkCheck:
    """Belongs to an object that only the process which made it can use."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this process was forked after the object was made."""
        return os.getpid() != self._process

    def check(self) -> None:
        """Raise RequestError if this process was forked after the object was made."""
        if self.forked:
            raise RequestError(f"the engine belongs to the parent of this forked process: {_ADVICE}")


def begin_loading() -> None:
    """Note that this process loads a model.

    Raises:
        RequestError: this process was forked after one was loaded.
    """
    if _LOADED_BY - {os.getpid()}:
        raise RequestError(f"this process was forked after a model had been loaded: {_ADVICE}")
    _LOADED_BY.add(os.getpid())
