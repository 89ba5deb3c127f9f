"""Command `thirteen chat`, and the commands within a chat, which begin with a slash."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from ..errors import RequestError, ThirteenError
from ..runtime.options import Effort
from . import options
from .answer_text import answer_findings, stream_answer, value_text
from .application import command
from .console import end_wait, note, show_text, wait_for

if TYPE_CHECKING:
    from ..runtime.engine.engine import Engine
    from ..runtime.options import Options

_QUIT = ("bye", "exit", "quit")  # also without the slash
_FULL = 0.8  # share of the context from which on the chat says that it is filling up


@command(
    "chat qwen2.5-0.5b", "chat llama-3.2-1b --adapter ./my-lora", "chat model.gguf --adapter math=my-lora"
)
def chat(
    ctx: typer.Context,
    model: options.ModelOrAdaptedArgument = None,
    adapter: options.NamedAdapters = None,
    system: options.System = None,
    max_tokens: options.MaxTokensOrDefault = None,
    think: options.Think = None,
    context: options.Context = None,
    temperature: options.Temperature = 0.0,
    effort: options.AnswerEffort = Effort.LOW,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = "0",
) -> None:
    """Talk with a model.

    Sums in its answers are checked. Ctrl-C ends an answer, /help lists the commands, /bye or exit ends the
    chat. Without a terminal, each line of standard input is a message or a command.
    """
    terminal = sys.stdin.isatty()
    if terminal:
        note(f"thirteen chat, with {model or 'the embedded model'}. /help lists the commands.")
    wait_for("loading…")
    from ..models.embedded import is_default_model, limits

    request = options.request_options(ctx)
    engine_options = options.engine_options(ctx, slots=effort.rule.width)
    files = options.resolve_model(model, options.named_adapters(adapter or ()), threads=threads)
    request = replace(request, adapter=next(iter(files.adapters), None))
    with options.open_engine(files, replace(engine_options, adapters=files.adapters)) as engine:
        engine.check_answers()
        end_wait()
        if terminal:
            note(f"{files.model.stem}, context of {engine.context:,} tokens.")
        if is_default_model(files.model):
            note(limits())
        ChatSession(engine, request, system, interactive=terminal).run(
            _typed_lines() if terminal else _piped_lines()
        )


class ChatSession:
    """A conversation, and how its answers are shown.

    Attributes:
        engine: answers.
        options: options of the next answer.
        interactive: whether a person reads along; errors and Ctrl-C then do not end the chat.
    """

    def __init__(
        self, engine: "Engine", options: "Options", system: str | None = None, *, interactive: bool
    ) -> None:
        """Start without messages; the engine must outlive the session."""
        from ..runtime.engine.conversation import Conversation

        self.engine, self.options, self.interactive = engine, options, interactive
        self.conversation = Conversation(engine, system)

    def run(self, lines: Iterator[str]) -> None:
        """Answer messages and run commands until the lines end."""
        for line in map(str.strip, lines):
            name, _, argument = line.removeprefix("/").partition(" ")
            if name in _QUIT and (line.startswith("/") or not argument):
                return
            try:
                if line.startswith("/"):
                    self._run_command(name, argument.strip())
                elif line:
                    self._answer(line)
            except (ThirteenError, KeyboardInterrupt) as error:
                if not self.interactive:
                    raise
                stopped = isinstance(error, KeyboardInterrupt)
                note("\n(stopped; an unfinished answer is not kept)" if stopped else f"error: {error}")

    def _answer(self, text: str) -> None:
        turn = self.conversation.next_turn(text, self.options)
        if turn.dropped:
            note(f"(the context is full: the oldest {turn.dropped} messages are forgotten)")
        elif (share := len(turn.request.tokens) / self.engine.context) > _FULL:
            note(f"({share:.0%} of the context is used; the oldest messages will be forgotten)")
        wait_for(f"reading {len(turn.request.tokens):,} tokens…")
        answer = stream_answer(self.engine.submit(turn.request, wait=True))
        self.conversation.add(text, answer.text)
        if findings := [*answer_findings(answer)]:
            note(f"\n({'; '.join(findings)})")
        value = value_text(answer)
        show_text(f"\nanswer: {value}\n" if value else "")

    def _run_command(self, name: str, argument: str) -> None:
        if name not in _COMMANDS:
            raise RequestError(f"/{name} is no command; /help lists them")
        note(_COMMANDS[name](self, argument))

    def _help(self, _: str) -> str:
        """List the commands."""
        lines = [f"/{name:12} {command.__doc__}" for name, command in _COMMANDS.items()]
        return "\n".join((*lines, "/bye          End the chat. Ctrl-C ends an answer."))

    def _adapter(self, name: str) -> str:
        """NAME: answer with one of the adapters given by --adapter; base is the model without one."""
        if name not in self.engine.adapters:
            known = ", ".join(self.engine.adapters)
            raise RequestError(f"adapter {name!r}: the chat was started with {known}; see --adapter")
        self.options = replace(self.options, adapter=name)
        return f"adapter: {name}"

    def _system(self, text: str) -> str:
        """TEXT: system prompt from now on; without TEXT the model's own."""
        self.conversation.system = text or None
        return f"system prompt: {text or 'that of the model'}"

    def _effort(self, name: str) -> str:
        """NAME: low for one answer; medium or high for the majority of up to 8 or 10."""
        self.options = replace(self.options, effort=name)  # type: ignore[arg-type]
        return f"effort: {name}"

    def _reset(self, _: str) -> str:
        """Forget the conversation."""
        self.conversation.messages.clear()
        return "the conversation is forgotten"


_COMMANDS: dict[str, Callable[[ChatSession, str], str]] = {
    name.removeprefix("_"): getattr(ChatSession, name)
    for name in ("_help", "_adapter", "_system", "_effort", "_reset")
}


def _typed_lines() -> Iterator[str]:
    """Lines that are edited in the terminal."""
    from prompt_toolkit import PromptSession

    session: PromptSession[str] = PromptSession("> ", prompt_continuation="  ")
    while True:
        try:
            yield session.prompt()
        except KeyboardInterrupt:  # clears the line
            continue
        except EOFError:
            return


def _piped_lines() -> Iterator[str]:
    """The lines of standard input; bytes that are not UTF-8 are replaced."""
    return (line.decode(errors="replace") for line in sys.stdin.buffer)
