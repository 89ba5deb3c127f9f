"""An answer on the console: its text as it comes, with LaTeX as plain text, and what is known about it."""

# ruff: noqa: RUF001 - signs of mathematics
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.cells import cell_len

from .console import end_wait, printable, wait_for

if TYPE_CHECKING:
    from ..runtime.answer import Answer, Piece

_HELD_MAX = 24  # characters of a word that is held back; scripts without spaces have no ends of words
_NO_LATEX = re.compile(r"(?:[^\\$]|\$(?=[\d ]))*")  # $5 is an amount of money
_SYMBOLS = {
    **{"times": "×", "cdot": "·", "div": "÷", "pm": "±", "mp": "∓", "le": "≤", "leq": "≤", "ge": "≥"},
    **{"geq": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "equiv": "≡", "sim": "~", "infty": "∞", "circ": "°"},
    **{"to": "→", "rightarrow": "→", "Rightarrow": "⇒", "implies": "⇒", "therefore": "∴", "in": "∈"},
    **{"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "theta": "θ", "lambda": "λ", "mu": "μ"},
    **{"pi": "π", "sigma": "σ", "phi": "φ", "omega": "ω", "Delta": "Δ", "sum": "∑", "prod": "∏", "int": "∫"},
    **{"dots": "…", "ldots": "…", "cdots": "…", "quad": " ", "qquad": " ", "left": "", "right": ""},
}
_GROUP = r"\s*\{([^{}]*)\}"
_FORMULA = re.compile(r"\$([^$]*\\[A-Za-z][^$]*)\$")  # an amount of money has no command
_MARKS = re.compile(r"\\[()\[\]]|\$\$|\\(?:begin|end)\{\w+\*?\}|\\\\$|&(?==)")


class WordWrap:
    """Writes to standard output; on a terminal, a word that does not fit the line begins the next one.

    There, the rest of a line from LaTeX on is held back until the line ends, and shown as text.
    """

    def __init__(self) -> None:
        self._wraps = sys.stdout.isatty()
        self._line, self._shown, self._column = "", 0, 0
        self._code = False

    def write(self, text: str) -> None:
        """Write a piece; the last word is held back until it is complete."""
        if self._wraps:
            *lines, rest = (self._line + printable(text)).split("\n")
            for line in lines:
                self._line = line
                self.flush()
                sys.stdout.write("\n")
                self._code ^= line.startswith("```")
                self._shown = self._column = 0
            self._line = rest
            self._show_words()
        else:
            sys.stdout.write(printable(text))
        sys.stdout.flush()

    def flush(self) -> None:
        """Write what is held back."""
        rest, self._shown = self._line[self._shown :], len(self._line)
        self._show(rest if self._code else latex_text(rest))

    def _show_words(self) -> None:
        plain = _NO_LATEX.match(self._line)
        assert plain, "it may be empty"
        ready = len(self._line) if self._code else plain.end()
        word = max(self._shown, self._line.rfind(" ", 0, ready) + 1)
        end = ready if ready - word > _HELD_MAX else word
        self._show(self._line[self._shown : end])
        self._shown = end

    def _show(self, text: str) -> None:
        for word in re.findall(r"\s+|\S+", text):
            width = cell_len(word)
            fits = self._column + width <= shutil.get_terminal_size().columns
            if self._column and not (fits or word.isspace()):
                sys.stdout.write("\n")
                self._column = 0
            sys.stdout.write(word)
            self._column += width
        sys.stdout.flush()


def stream_answer(pieces: "Iterable[Piece]", *, silent: bool = False) -> "Answer":
    """Print the text of an answer as it comes; before that, the votes so far, or that the model thinks."""
    wrap = WordWrap()
    try:
        for piece in pieces:
            if piece.tally and not piece.answer:
                wait_for(f"{piece.tally.agreement}…")
            elif piece.thinking_tokens and not (piece.text or piece.answer):
                wait_for("thinking…")
            else:
                end_wait()
                if not silent:
                    wrap.write(piece.text)
    finally:
        end_wait()
        wrap.flush()
    assert piece.answer is not None, "the last piece carries the answer"
    return piece.answer


def value_text(answer: "Answer") -> str:
    """The value of an answer, or why it is withheld; empty if none is stated."""
    if answer.stop_reason == "length":
        return "none, it was cut off"
    return answer.value or ("" if answer.sure else "not sure")


def answer_findings(answer: "Answer") -> Iterator[str]:
    """Lines on the thought, votes, confidence, checked sums and schema, as far as there are any."""
    if answer.thinking:
        yield f"thought for {answer.usage.thinking_tokens} tokens"
    if tally := answer.tally:
        votes = ", ".join(f"{value}: {count}" for value, count in tally.votes.items()) or "none"
        yield f"votes: {votes} (decided after {tally.ended} of {tally.asked})"
    if answer.confidence is not None:
        yield f"confidence: {answer.confidence:.0%}"
    if checks := checks_text(answer):
        yield checks
    if answer.warning:
        yield f"warning: the schema is not enforced completely: {answer.warning}"


def checks_text(answer: "Answer") -> str:
    """Which sums of an answer were checked. That they are the right sums, nothing can tell."""
    sums, equations = _counted(len(answer.steps), "sum"), _counted(answer.unread, "equation")
    if not answer.steps:
        return f"{equations} not checked" if answer.unread else ""
    wrong = [f"{step.expression} is {step.computed}" for step in answer.steps if not step.ok]
    mistakes = f", {len(wrong)} wrong: {', '.join(wrong)}" if wrong else ""
    source = ", some numbers are not in the question" if answer.verified and not answer.grounded else ""
    rest = f"{equations} and the reasoning were" if answer.unread else "the reasoning was"
    return f"{sums} checked{mistakes}{source}; {rest} not"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


_COMMANDS = [
    (re.compile(rf"\\[dt]?frac{_GROUP}{_GROUP}"), lambda m: f"{_whole(m[1])}/{_whole(m[2])}"),
    (re.compile(rf"\\sqrt{_GROUP}"), lambda m: f"√{_whole(m[1])}"),
    (re.compile(rf"\\(?:boxed|text\w*|math\w+|operatorname){_GROUP}"), lambda m: m[1]),
    (re.compile(rf"([\^_]){_GROUP}"), lambda m: "°" if m[2] == r"\circ" else f"{m[1]}{_whole(m[2])}"),
]


def latex_text(line: str) -> str:
    """A line with the commands, marks and delimiters of LaTeX as text; what is not known stays."""
    line, before = _FORMULA.sub(r"\1", _MARKS.sub("", line)), ""
    while line != before:  # from the innermost group outwards
        before = line
        for pattern, text in _COMMANDS:
            line = pattern.sub(text, line)
    line = re.sub(r"\\([A-Za-z]+)", lambda m: _SYMBOLS.get(m[1], m[0]), line.replace(r"^\circ", "°"))
    return re.sub(r"\\([,;:! %$#&_{}])", lambda m: " " if m[1] in ",;: " else m[1].strip("!"), line)


def _whole(text: str) -> str:
    """A part of a fraction, in parentheses if it is more than one word or number."""
    text = text.strip()
    return text if re.fullmatch(r"-?[\w.,]*|\\[A-Za-z]+", text) else f"({text})"
