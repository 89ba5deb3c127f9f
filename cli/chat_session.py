"""A chat on the console: messages, answers, and the commands that begin with a slash."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError, ThirteenError
from . import options
from .console import note, out, printable, progress_bar, show_text, votes_text

if TYPE_CHECKING:
    from ..runtime.answer import Answer
    from ..runtime.arithmetic.calculator import Step
    from ..runtime.engine.conversation import Conversation, Turn
    from ..runtime.engine.engine import Engine, RequestOptions

_FULL = 0.8  # share of the context from which on the chat says that it is filling up
_VOTES_MAX = 8  # as many answers run at once


class _QuitError(Exception):
    """The user ends the chat."""


@dataclass
class ChatSession:
    """A chat on the console.

    Attributes:
        engine: answers.
        conversation: what was said.
        request: options of the next answer.
        open_engine: opens the model with so many slots.
        adapters: the adapters with which it does; those that the chat loads are added.
        interactive: whether a person reads along; errors then do not end the chat.
        votes: answers to sample for a majority vote.
        answered: answers so far, for /stats.
    """

    engine: "Engine"
    conversation: "Conversation"
    request: "RequestOptions"
    open_engine: Callable[[int], "Engine"]
    adapters: dict[str, Path]
    interactive: bool
    votes: int = 1
    answered: list["Answer"] = field(default_factory=list)

    def run(self, lines: Iterator[str]) -> None:
        """Answer messages and run commands until the lines end."""
        for line in lines:
            try:
                self._take(line.strip())
            except _QuitError:
                return
            except ThirteenError as error:
                if not self.interactive:
                    raise
                note(f"error: {error}")

    def _take(self, line: str) -> None:
        if line.startswith("/"):
            name, _, argument = line[1:].partition(" ")
            if name not in _COMMANDS:
                raise RequestError(f"/{name} is no command; /help lists them")
            _COMMANDS[name](self, argument.strip())
        elif line:
            self._answer(line)

    def _answer(self, text: str) -> None:
        turn = self.conversation.next_turn(text, **self.request)
        self._tell_context(turn)
        try:
            answer = self._vote(turn) if self.votes > 1 else self._stream(turn)
        except KeyboardInterrupt:
            note("\n(stopped; the question is not kept)")
            return
        self.conversation.add(text, answer.text)
        self.answered.append(answer)
        out.print(f"\nanswer: {answer.value if answer.value is not None else 'none found'}\n", markup=False)

    def _tell_context(self, turn: "Turn") -> None:
        if turn.dropped:
            note(f"(the context is full: the oldest {turn.dropped} messages are forgotten)")
        elif turn.context_share > _FULL:
            note(f"({turn.context_share:.0%} of the context is used; the oldest messages will be forgotten)")

    def _stream(self, turn: "Turn") -> "Answer":
        """Print the answer as it comes, with a mark after each equation."""
        from ..runtime.arithmetic.step_stream import StepStream

        steps, marked = StepStream(), 0
        for piece in self.engine.submit(turn.request, wait=True):
            sys.stdout.write(printable(piece.text))
            found = piece.answer.steps[marked:] if piece.answer else steps.feed(piece.text)
            marked += len(found)
            sys.stdout.write("".join(map(_mark, found)))
            sys.stdout.flush()
        assert piece.answer is not None, "the last piece carries the answer"
        return piece.answer

    def _vote(self, turn: "Turn") -> "Answer":
        from ..runtime.engine.majority_vote import MajorityVote, vote_requests

        vote = MajorityVote(self.engine.submit_all(vote_requests(turn.request, self.votes), wait=True))
        try:
            answer = vote.answer()
        finally:
            vote.abort()
        show_text(answer.text)
        assert answer.tally is not None, "a vote has a tally"
        note(f"votes: {votes_text(answer.tally)}")
        return answer

    def help(self, _: str) -> None:
        """List the commands."""
        for name, command in _COMMANDS.items():
            note(f"/{name:12} {command.__doc__}")
        note("Esc Enter begins a new line. Ctrl-C ends an answer.")

    def adapter(self, word: str) -> None:
        """NAME: answer with this adapter, or load [NAME=]ADAPTER; base is the model without one."""
        self.request["adapter"] = word if word in self.engine.adapters else self._load_adapter(word)

    def _load_adapter(self, word: str) -> str:
        """Load an adapter, as --adapter does, and return its name."""
        from ..workflows.adapter_resolver import resolve_runtime_lora

        names = self.engine.adapters
        name, _, source = with_name(word).partition("=")
        if not (name and source) or name in names:
            raise RequestError(
                f"/adapter {word}: must be one of {', '.join(names)}, or [NAME=]ADAPTER with a new name"
            )
        try:
            with progress_bar("preparing") as progress:
                lora = resolve_runtime_lora(source, self.engine.model.header.path, progress=progress)
            self.engine.swap(name, lora)
            self.adapters[name] = lora
        except ThirteenError as error:
            raise RequestError(f"/adapter {word}: {error}; loaded are {', '.join(names)}") from None
        return name

    def vote(self, number: str) -> None:
        """N: sample so many answers and take the value that most of them give."""
        if not (number.isascii() and number.isdigit() and 1 <= int(number) <= _VOTES_MAX):
            raise RequestError(f"/votes {number}: must be from 1 to {_VOTES_MAX}")
        self.votes = int(number)
        if self.votes > (slots := self.engine.profile.slots):
            self.engine.close()
            try:
                self._reopen(self.votes)
            except ThirteenError:  # there is no memory for so many
                self.votes = 1
                self._reopen(slots)
                raise

    def _reopen(self, slots: int) -> None:
        """Open the model anew; each slot has memory for the whole context."""
        self.conversation.engine = self.engine = self.open_engine(slots)

    def calculator(self, switch: str) -> None:
        """On|off: complete sums with their exact results."""
        if switch not in ("on", "off"):
            raise RequestError(f"/calculator {switch}: must be on or off")
        self.request["calculator"] = switch == "on"

    def schema(self, file: str) -> None:
        """FILE: JSON schema that answers must match; without FILE none."""
        self.request["grammar"] = options.answer_grammar(Path(file) if file else None)

    def save(self, file: str) -> None:
        """FILE: write the conversation."""
        self.conversation.save(_path("save", file))

    def load(self, file: str) -> None:
        """FILE: continue a written conversation."""
        self.conversation.load(_path("load", file))

    def reset(self, _: str) -> None:
        """Forget the conversation."""
        self.conversation.messages.clear()

    def stats(self, _: str) -> None:
        """Show tokens and speed of the last answer, and the context in use."""
        if not self.answered:
            raise RequestError("/stats: there is no answer yet")
        last = self.answered[-1]
        note(
            f"{last.usage.completion_tokens} tokens at {last.timings.decode_tokens_per_s(last.usage):.1f}/s, "
            f"first after {last.timings.first_token_s:.2f} s, {last.usage.cached_tokens} of "
            f"{last.usage.prompt_tokens} prompt tokens cached, {len(self.answered)} answers"
        )

    def quit(self, _: str) -> None:
        """End the chat."""
        raise _QuitError


_COMMANDS: dict[str, Callable[[ChatSession, str], None]] = {
    "help": ChatSession.help,
    "adapter": ChatSession.adapter,
    "votes": ChatSession.vote,
    "calculator": ChatSession.calculator,
    "schema": ChatSession.schema,
    "save": ChatSession.save,
    "load": ChatSession.load,
    "reset": ChatSession.reset,
    "stats": ChatSession.stats,
    "quit": ChatSession.quit,
}


def with_name(word: str) -> str:
    """NAME=ADAPTER of [NAME=]ADAPTER, by default with the name of the file."""
    return word if "=" in word else f"{Path(word).name}={word}"


def _path(command: str, file: str) -> Path:
    if not file:
        raise RequestError(f"/{command}: give a file")
    return Path(file)


def _mark(step: "Step") -> str:
    """The mark after an equation; a wrong one gets its right result."""
    return "\u2713 " if step.ok else f"\u2717 ({step.expression} is {step.computed}) "
