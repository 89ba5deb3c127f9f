"""A chat on the console: an engine, a conversation, and how answers are shown."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import ThirteenError
from .console import checks_text, confidence_text, note, show_text, value_text, votes_text
from .spinner import spinner, text_pieces
from .word_wrap import WordWrap

if TYPE_CHECKING:
    from ..runtime.answer import Answer
    from ..runtime.engine.conversation import Turn
    from ..runtime.engine.engine import Engine
    from ..runtime.options import Options
    from ..workflows.model_files import ModelFiles

_FULL = 0.8  # share of the context from which on the chat says that it is filling up


class ChatSession:
    """A chat on the console.

    Attributes:
        open_engine: opens a model with so many slots.
        options: options of the next answer.
        files: the model and its adapters; those that the chat loads are added.
        conversation: what was said, and the engine that answers.
        interactive: whether a person reads along; errors and Ctrl-C then do not end the chat.
    """

    def __init__(
        self,
        open_engine: "Callable[[ModelFiles, int], Engine]",
        files: "ModelFiles",
        options: "Options",
        system: str | None = None,
        *,
        interactive: bool,
    ) -> None:
        """Open the engine; close() frees it."""
        from ..runtime.engine.conversation import Conversation

        self.open_engine, self.files, self.options, self.interactive = (
            open_engine,
            files,
            options,
            interactive,
        )
        self.conversation: Conversation = Conversation(open_engine(files, options.effort.rule.width), system)
        self._limits_told = False

    @property
    def engine(self) -> "Engine":
        """The engine that answers."""
        return self.conversation.engine

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()

    def answer(self, text: str) -> None:
        """Answer a message; if a person reads along, Ctrl-C ends the answer only."""
        turn = self.conversation.next_turn(text, self.options)
        if turn.dropped:
            note(f"(the context is full: the oldest {turn.dropped} messages are forgotten)")
        elif turn.context_share > _FULL:
            note(f"({turn.context_share:.0%} of the context is used; the oldest messages will be forgotten)")
        try:
            answer = self._stream(turn)
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            note("\n(stopped; the question is not kept)")
            return
        self.conversation.add(text, answer.text)
        self._show_findings(answer)
        self._tell_limits(text)

    def _stream(self, turn: "Turn") -> "Answer":
        """Print the answer as it comes."""
        spinner.begin(f"reading {len(turn.request.tokens):,} tokens…")
        wrap = WordWrap()
        try:
            for piece in text_pieces(self.engine.submit(turn.request, wait=True)):
                wrap.write(piece.text)
        finally:
            spinner.end()
            wrap.flush()
        assert piece.answer is not None, "the last piece carries the answer"
        return piece.answer

    def _show_findings(self, answer: "Answer") -> None:
        if answer.thinking:
            note(f"\n(thought for {answer.usage.thinking_tokens} tokens)")
        if answer.tally:
            note(f"\nvotes: {votes_text(answer.tally)}{confidence_text(answer, '; confidence: {:.0%}')}")
        if checks := checks_text(answer):
            note(f"\n({checks})")
        value = value_text(answer)
        show_text(f"\nanswer: {value}\n" if value else "")

    def _tell_limits(self, question: str) -> None:
        from ..workflows.default_model import is_default_model, is_short_sum, limits

        if not self._limits_told and is_default_model(self.files.model) and not is_short_sum(question):
            self._limits_told = True
            note(f"({limits()})")

    def reopen(self, files: "ModelFiles", slots: int | None = None) -> None:
        """Replace the engine; if the new one cannot be opened, the old one is opened again."""
        old = self.files, self.engine.plan.settings.slots
        slots = slots or old[1]
        self.engine.close()
        spinner.begin(f"loading {files.model.name}…")
        try:
            self._open(files, slots)
        except (ThirteenError, KeyboardInterrupt):
            self._open(*old)
            raise
        finally:
            spinner.end()

    def _open(self, files: "ModelFiles", slots: int) -> None:
        self.conversation.engine = self.open_engine(files, slots)
        self.files = files
