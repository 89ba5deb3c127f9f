"""Command `thirteen chat`, and the commands within a chat, which begin with a slash."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import typer

from ..errors import RequestError, ThirteenError
from . import options
from .chat_session import ChatSession
from .console import note
from .spinner import LOADING_DELAY_S, spinner

_QUIT = ("bye", "exit", "quit")  # also without the slash

app = typer.Typer()


@app.command(
    epilog=options.example(
        "chat qwen2.5-0.5b", "chat llama-3.2-1b --adapter ./my-lora", "chat model.gguf --adapter math=my-lora"
    )
)
def chat(
    model: options.ModelOrAdaptedArgument = None,
    adapter: options.NamedAdapters = None,
    system: options.System = None,
    max_tokens: options.MaxTokensOrDefault = None,
    think: options.Think = None,
    context: options.Context = None,
    temperature: options.Temperature = 0.0,
    effort: options.AnswerEffort = options.LOW,
    calculator: options.Calculator = True,
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
    spinner.begin("loading…", LOADING_DELAY_S)
    from ..runtime.effort import parse_effort
    from ..runtime.engine.engine import Engine
    from ..runtime.options import Options
    from ..runtime.plan.plan import EnginePlan
    from ..workflows.model_files import ModelFiles

    files = options.resolve_model(model, options.named_adapters(adapter or ()), threads=threads)
    shared = options.engine_options(gpu_layers, threads=threads, context=context)
    request = Options(
        adapter=next(iter(files.adapters), None),
        temperature=temperature,
        max_tokens=max_tokens,
        think=think,
        calculator=calculator,
        effort=parse_effort(effort),
    )

    def open_engine(files: ModelFiles, slots: int) -> Engine:
        return Engine(EnginePlan.make(files.model, replace(shared, adapters=files.adapters, slots=slots)))

    spinner.begin(f"loading {files.model.name}…")
    session = ChatSession(open_engine, files, request, system, interactive=terminal)
    try:
        session.engine.check_answers()
        spinner.end()
        if terminal:
            note(f"{files.model.stem}, context of {session.engine.context:,} tokens.")
        if session.engine.notice:
            note(session.engine.notice)
        run_chat(session, _typed_lines() if terminal else _piped_lines())
    finally:
        session.close()


def run_chat(session: ChatSession, lines: Iterator[str]) -> None:
    """Answer messages and run commands until the lines end; if a person reads along, errors do not end it."""
    for line in map(str.strip, lines):
        name, _, argument = line.removeprefix("/").partition(" ")
        if name in _QUIT and (line.startswith("/") or not argument):
            return
        try:
            if line.startswith("/"):
                _run_command(session, name, argument.strip())
            elif line:
                session.answer(line)
        except (ThirteenError, KeyboardInterrupt) as error:
            if not session.interactive:
                raise
            note(f"error: {error}" if isinstance(error, ThirteenError) else "(stopped)")


def _run_command(session: ChatSession, name: str, argument: str) -> None:
    if name not in _COMMANDS:
        raise RequestError(f"/{name} is no command; /help lists them")
    note(_COMMANDS[name](session, argument))


def _help(_: ChatSession, __: str) -> str:
    """List the commands."""
    lines = [f"/{name:12} {command.__doc__}" for name, command in _COMMANDS.items()]
    return "\n".join((*lines, "/bye          End the chat. Ctrl-C ends an answer."))


def _model(session: ChatSession, word: str) -> str:
    """NAME: go on with another model, without adapters."""
    files = options.resolve_model(word)
    session.reopen(files)
    session.options = replace(session.options, adapter=None)
    return f"model: {files.model.stem}, context of {session.engine.context:,} tokens"


def _adapter(session: ChatSession, word: str) -> str:
    """NAME: answer with this adapter, or load [NAME=]ADAPTER; base is the model without one."""
    from ..workflows.default_model import is_default_model
    from ..workflows.model_files import ModelFiles

    name, model = word, session.files.model
    if word not in session.engine.adapters:
        added = options.named_adapters([word])
        (name,) = added
        files = options.resolve_model(None if is_default_model(model) else model, added)
        # The embedded model with its merged adapter gives way to its base.
        loaded = session.files.adapters if files.model == model else {}
        session.reopen(ModelFiles(files.model, {**loaded, **files.adapters}))
    session.options = replace(session.options, adapter=name)
    return f"adapter: {name}"


def _system(session: ChatSession, text: str) -> str:
    """TEXT: system prompt from now on; without TEXT the model's own."""
    session.conversation.system = text or None
    return f"system prompt: {text or 'that of the model'}"


def _effort(session: ChatSession, name: str) -> str:
    """NAME: low for one answer; medium or high for the majority of up to 8 or 10."""
    from ..runtime.effort import parse_effort

    effort = parse_effort(name)
    if effort.rule.width > session.engine.plan.settings.slots:
        session.reopen(session.files, effort.rule.width)
    session.options = replace(session.options, effort=effort)
    return f"effort: {effort}"


def _reset(session: ChatSession, _: str) -> str:
    """Forget the conversation."""
    session.conversation.messages.clear()
    return "the conversation is forgotten"


_COMMANDS: dict[str, Callable[[ChatSession, str], str]] = {
    command.__name__[1:]: command for command in (_help, _model, _adapter, _system, _effort, _reset)
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
