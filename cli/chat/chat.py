"""Command `thirteen chat`."""

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from ...errors import RequestError, ThirteenError
from .. import options
from ..console import note
from ..spinner import LOADING_DELAY_S, spinner
from .chat_commands import COMMANDS, QuitError, with_name
from .chat_session import ChatSession

_QUIT = ("exit", "quit")  # also without the slash

app = typer.Typer()


@app.command(
    epilog=options.example(
        "chat qwen2.5-0.5b", "chat llama-3.2-1b --adapter ./my-lora", "chat model.gguf --adapter math=my-lora"
    )
)
def chat(
    model: options.ModelOrAdaptedArgument = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]ADAPTER",
            help="Adapter to apply at run time: GGUF LoRA, PEFT folder, hub id, catalogue name, or short "
            "code; repeatable, /adapter chooses. With the default model, it replaces the merged one.",
        ),
    ] = None,
    system: options.System = None,
    max_tokens: options.MaxTokensOrDefault = None,
    think: options.Think = None,
    think_budget: options.ThinkBudget = None,
    context: options.Context = None,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = 0,
    effort: options.AnswerEffort = options.LOW,
    min_confidence: options.MinConfidence = 0.0,
    calculator: options.Calculator = True,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = "0",
    library: options.Library = None,
) -> None:
    """Talk with a model.

    Sums in its answers are marked as right or wrong. Ctrl-C ends an answer, /help lists the commands, /bye or
    exit ends the chat. Without a terminal, each line of standard input is a message or a command.
    """
    terminal = sys.stdin.isatty()
    if terminal:
        note(f"thirteen chat, with {model or 'the embedded model'}. /help lists the commands.")
    spinner.begin("loading…", LOADING_DELAY_S)
    from ...runtime.prompt.template_process import TemplateWorker

    worker = TemplateWorker()
    from ...runtime.effort import parse_effort
    from ...runtime.engine.conversation import Conversation
    from ...runtime.engine.engine import Engine, RequestOptions
    from ...runtime.plan.options import EngineOptions
    from ...runtime.request import Sampling
    from ...workflows.model_files import ModelFiles

    request = RequestOptions(
        sampling=Sampling(temperature, seed=seed),
        max_tokens=max_tokens,
        think=think,
        think_budget=think_budget,
        calculator=calculator,
        effort=(chosen := parse_effort(effort)),
        min_confidence=min_confidence,
    )
    shared = options.machine(threads, gpu_layers, library) | EngineOptions(context=context)
    named = options.named_adapters(map(with_name, adapter or ()))
    files = options.resolve_model(model, named, threads=threads)

    def open_engine(files: ModelFiles, slots: int, worker: TemplateWorker | None = None) -> Engine:
        own = EngineOptions(adapters=files.adapters, slots=slots)
        return Engine(files.model, template_worker=worker, **shared | own)

    engine = open_engine(files, chosen.rule.width, worker)
    spinner.end()
    conversation = Conversation(engine, system)
    session = ChatSession(engine, conversation, request, open_engine, files, threads, terminal)
    try:
        engine.check_answers()
        if files.adapters:
            request["adapter"] = next(iter(files.adapters))
        if terminal:
            note(f"{files.model.stem}, context of {engine.context:,} tokens.")
        if engine.notice:
            note(engine.notice)
        run_chat(session, _typed_lines() if terminal else _piped_lines())
    finally:
        session.engine.close()


def run_chat(session: ChatSession, lines: Iterator[str]) -> None:
    """Answer messages and run commands until the lines end; if a person reads along, errors do not end it."""
    for line in lines:
        try:
            _take(session, line.strip())
        except QuitError:
            return
        except (ThirteenError, KeyboardInterrupt) as error:
            if not session.interactive:
                raise
            note(f"error: {error}" if isinstance(error, ThirteenError) else "(stopped)")


def _take(session: ChatSession, line: str) -> None:
    if line.startswith("/") or line in _QUIT:
        name, _, argument = line.removeprefix("/").partition(" ")
        if name not in COMMANDS:
            raise RequestError(f"/{name} is no command; /help lists them")
        if done := COMMANDS[name](session, argument.strip()):
            note(done)
    elif line:
        session.answer(line)


def _typed_lines() -> Iterator[str]:
    """Lines that are edited in the terminal; Esc Enter begins a new line within one."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession("> ", key_bindings=keys, prompt_continuation="  ")
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
