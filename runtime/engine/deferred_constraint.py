"""A grammar that begins behind a thought."""

import numpy as np
from numpy.typing import NDArray

from ..llama.constraint import Constraint
from ..llama.model import Model
from .thought import Thought


class DeferredConstraint(Constraint):
    """A constraint of an answer, which leaves the thought before it free, but for the end of the output."""

    def __init__(self, constraint: Constraint, model: Model, thought: Thought) -> None:
        """Start a sequence whose output stream has the thought."""
        super().__init__(constraint._matcher, model, constraint._numbers)
        self._thought = thought

    @property
    def finished(self) -> bool:
        """Whether nothing but the end may follow."""
        return self._thought.over and super().finished

    def accept(self, token: int) -> bool:
        """Advance past a token if it may come next; see Constraint."""
        if self._thought.takes(token):
            return not self._model.is_eog(token)
        return super().accept(token)

    def allowed(self) -> NDArray[np.int64]:
        """Return the tokens that may come next, in ascending order; see Constraint."""
        if not self._thought.begun:
            return super().allowed()
        ends = [token for token in self._model.control_tokens.values() if self._model.is_eog(token)]
        return np.setdiff1d(np.arange(self._model.vocabulary_size), ends)

    def take_forced(self) -> list[int]:
        """Return the tokens that must come next; see Constraint."""
        return [*super().take_forced()] if self._thought.over else []
