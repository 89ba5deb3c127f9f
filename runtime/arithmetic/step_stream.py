r"""Equations of a text that is still being written, each as soon as further text cannot change it.

Within open braces it may: markup that is closed later, such as \text{…}, changes what it encloses.
"""

from . import Step
from .calculator import WINDOW, check_relations
from .notation import NOTATION

# Nothing after it belongs to the clause before it.
_EQUATION_END = NOTATION.patterns["equation_end"]
_END_CHARS = 2  # at most, with the space
# Characters around a relation sign that matter: a side, and the longest markup beside it.
_REACH = WINDOW + 32
_BRACES_MAX = 4 * WINDOW  # characters of a pair of braces that is never cut


class StepStream:
    """Finds the equations of check_steps() in pieces of a text, in time linear in its length.

    The text is forgotten up to the last relation sign whose equation is finished, because no sum reaches
    across a sign, and beyond the reach of the next one.
    """

    def __init__(self) -> None:
        self._text = ""
        self._searched = 0  # characters of the text that end no equation
        self._finished = 0  # relation signs at its start whose equations were returned

    def feed(self, piece: str) -> tuple[Step, ...]:
        """Add text; return the equations that it completes, in order."""
        start = max(self._searched - _END_CHARS, 0)
        self._text += piece
        self._searched = len(self._text)
        ends = [match.end() for match in _EQUATION_END.finditer(self._text, start)]
        return self._finish(ends[-1]) if ends else ()

    def _finish(self, end: int) -> tuple[Step, ...]:
        """Return the equations up to a position, and forget what no other equation needs."""
        relations = check_relations(self._text[:end])
        finished, limit = relations, end
        if relations and relations[-1][1] is None and end - relations[-1][0] < _REACH:
            finished, limit = relations[:-1], relations[-1][0]  # its right side may be on the next line
        steps = tuple(step for _, step in finished[self._finished :] if step)
        self._finished = len(finished)
        self._forget(finished[-1][0] if finished else 0, max(limit - _REACH, 0))
        return steps

    def _forget(self, sign: int, limit: int) -> None:
        """Drop the text before a sign, and before a limit that may be beyond it."""
        cut = max(sign, limit)
        opened = self._text.rfind("{", max(cut - _BRACES_MAX, 0), cut)
        if cut and opened <= self._text.rfind("}", 0, cut):
            self._finished = int(self._finished > 0 and sign >= limit)
            self._text = self._text[cut:]
            self._searched -= cut
