"""A chat on the console: lines that a person types, and answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...errors import ThirteenError
from ..console import confidence_text, note, show_text, value_text, votes_text
from ..spinner import spinner, text_pieces
from ..word_wrap import WordWrap

if TYPE_CHECKING:
    from ...runtime.answer import Answer
    from ...runtime.arithmetic import Step
    from ...runtime.engine.conversation import Conversation, Turn
    from ...runtime.engine.engine import Engine, RequestOptions
    from ...runtime.request import Sampling
    from ...workflows.model_files import ModelFiles

_FULL = 0.8  # share of the context from which on the chat says that it is filling up


@dataclass
class ChatSession:
    """A chat on the console.

    Attributes:
        engine: answers.
        conversation: what was said.
        request: options of the next answer.
        open_engine: opens a model with so many slots.
        files: the model and its adapters; those that the chat loads are added.
        threads: number of threads that compute; by default chosen for this machine.
        interactive: whether a person reads along; errors and Ctrl-C then do not end the chat.
        answered: answers so far, for /stats.
    """

    engine: "Engine"
    conversation: "Conversation"
    request: "RequestOptions"
    open_engine: "Callable[[ModelFiles, int], Engine]"
    files: "ModelFiles"
    threads: int | None
    interactive: bool
    answered: list["Answer"] = field(default_factory=list)
    _limits_told: bool = False

    def answer(self, text: str, sampling: "Sampling | None" = None) -> bool:
        """Answer a message, and return whether it was kept; on a terminal, Ctrl-C ends the answer only."""
        options = self.request if sampling is None else {**self.request, "sampling": sampling}
        turn = self.conversation.next_turn(text, **options)
        self._tell_context(turn)
        try:
            answer = self._stream(turn)
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            note("\n(stopped; the question is not kept)")
            return False
        self.conversation.add(text, answer.text)
        self.answered.append(answer)
        if answer.thinking:
            note(f"\n(thought for {answer.usage.thinking_tokens} tokens; /thought shows it)")
        if answer.tally:
            note(f"\nvotes: {votes_text(answer.tally)}{confidence_text(answer, '; confidence: {:.0%}')}")
        value = value_text(answer)
        show_text(f"\nanswer: {value}\n" if value else "")
        self._tell_limits(text)
        return True

    def _tell_context(self, turn: "Turn") -> None:
        if turn.dropped:
            note(f"(the context is full: the oldest {turn.dropped} messages are forgotten)")
        elif turn.context_share > _FULL:
            note(f"({turn.context_share:.0%} of the context is used; the oldest messages will be forgotten)")

    def _tell_limits(self, question: str) -> None:
        from ...workflows.default_model import is_default_model, is_short_sum, limits

        if not self._limits_told and is_default_model(self.files.model) and not is_short_sum(question):
            self._limits_told = True
            note(f"({limits()})")

    def _stream(self, turn: "Turn") -> "Answer":
        """Print the answer as it comes, with a mark after each equation."""
        from ...runtime.arithmetic.equations import StepStream

        spinner.begin("reading…")
        steps, marked, written, wrap = StepStream(turn.request.question), 0, 0, WordWrap()
        try:
            for piece in text_pieces(self.engine.submit(turn.request, wait=True)):
                found = piece.answer.steps[marked:] if piece.answer else steps.feed(piece.text)
                marked += len(found)
                wrap.write(_marked(piece.text, written, found))
                written += len(piece.text)
        finally:
            spinner.end()
            wrap.flush()
        assert piece.answer is not None, "the last piece carries the answer"
        return piece.answer

    def reopen(self, files: "ModelFiles", slots: int) -> None:
        """Replace the engine; if the new one cannot be opened, the old one is opened again."""
        old = self.files, self.engine.plan.settings.slots
        self.engine.close()
        spinner.begin("loading…")
        try:
            self._open(files, slots)
        except (ThirteenError, KeyboardInterrupt):
            self._open(*old)
            raise
        finally:
            spinner.end()

    def _open(self, files: "ModelFiles", slots: int) -> None:
        self.conversation.engine = self.engine = self.open_engine(files, slots)
        self.files = files


def _marked(text: str, start: int, steps: "Sequence[Step]") -> str:
    """A piece of an answer, from a position on, with a mark after each equation that has ended."""
    for step in reversed(steps):
        mark = "(ok)" if step.ok else f"(wrong: {step.expression} is {step.computed})"
        end = step.end - start
        text = f"{text[:end]} {mark}{text[end:]}" if end > 0 else f" {mark} {text}"
    return text
