"""The commands of a chat, which begin with a slash. Each returns the line that confirms it."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ...errors import RequestError, ThirteenError
from .. import options
from .chat_session import ChatSession

_SHOWN = 60  # characters of a system prompt


class QuitError(Exception):
    """The user ends the chat."""


def _help(_: ChatSession, __: str) -> str:
    """List the commands."""
    lines = [f"/{name:12} {command.__doc__}" for name, command in COMMANDS.items() if command is not _quit]
    quits = ", ".join(f"/{name}" for name, command in COMMANDS.items() if command is _quit)
    return "\n".join(
        (*lines, f"{quits}: {_quit.__doc__}", "Esc Enter begins a new line. Ctrl-C ends an answer.")
    )


def _adapter(session: ChatSession, word: str) -> str:
    """NAME: answer with this adapter, or load [NAME=]ADAPTER; base is the model without one."""
    name = word if word in session.engine.adapters else _load_adapter(session, word)
    session.request["adapter"] = name
    return f"adapter: {name}"


def _load_adapter(session: ChatSession, word: str) -> str:
    """Load an adapter, as --adapter does, and return its name."""
    from ...workflows.default_model import is_default_model
    from ...workflows.model_files import ModelFiles

    names = session.engine.adapters
    name, _, source = with_name(word).partition("=")
    if not (name and source) or name in names:
        raise RequestError(
            f"/adapter {word}: must be one of {', '.join(names)}, or [NAME=]ADAPTER with a new name"
        )
    try:
        model = session.files.model
        files = options.resolve_model(
            None if is_default_model(model) else model, {name: source}, threads=session.threads
        )
        if files.model == model:
            session.engine.swap(name, files.adapters[name])
            session.files = ModelFiles(model, {**session.files.adapters, **files.adapters})
        else:  # without the merged adapter
            session.reopen(files, session.engine.plan.settings.slots)
    except ThirteenError as error:
        raise RequestError(f"/adapter {word}: {error}; loaded are {', '.join(names)}") from None
    return name


def _model(session: ChatSession, word: str) -> str:
    """NAME: go on with another model, without adapters."""
    if not word:
        return f"model: {session.files.model.stem}"
    files = options.resolve_model(word, threads=session.threads)
    session.reopen(files, session.engine.plan.settings.slots)
    session.request.pop("adapter", None)
    return f"model: {files.model.stem}, context of {session.engine.context:,} tokens"


def _system(session: ChatSession, text: str) -> str:
    """TEXT: system prompt from now on; without TEXT the model's own."""
    session.conversation.system = text or None
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return f"system prompt: {shown or 'that of the model'}"


def _temperature(session: ChatSession, number: str) -> str:
    """N: sampling temperature; 0 is greedy."""
    try:
        temperature = float(number)
    except ValueError:
        raise RequestError(f"/temperature {number}: must be a number") from None
    session.request["sampling"] = replace(session.request["sampling"], temperature=temperature)
    return f"temperature: {temperature:g}"


def _retry(session: ChatSession, _: str) -> str:
    """Answer the last message again, with other random numbers; if greedy, at temperature 0.7."""
    from ...runtime.effort import parse_effort

    messages = session.conversation.messages
    if not messages:
        raise RequestError("/retry: there is no answer yet")
    replaced, kept = messages[-2:], False
    del messages[-2:]
    sampling = session.request["sampling"].stochastic
    try:
        answers = 1 + len(session.answered)  # and one that was loaded
        used = answers * parse_effort(session.request["effort"]).rule.answers
        kept = session.answer(replaced[0].content, sampling.with_seeds(used + 1)[-1])
    finally:
        if not kept:
            messages.extend(replaced)
    return ""


def _effort(session: ChatSession, name: str) -> str:
    """NAME: low for one answer; medium or high for the majority of up to 8 or 10; without NAME shows it."""
    from ...runtime.effort import Effort, parse_effort

    if not name:
        return f"effort: {session.request['effort']}"
    effort, session.request["effort"] = parse_effort(name), Effort.LOW  # low, if there is no memory for more
    if effort.rule.width > session.engine.plan.settings.slots:
        session.reopen(session.files, effort.rule.width)
    session.request["effort"] = effort
    return f"effort: {effort}"


def _think(session: ChatSession, switch: str) -> str:
    """Think before the answer, if the model can: on or off."""
    session.request["think"] = _is_on("think", switch)
    return f"think: {switch}"


def _thought(session: ChatSession, _: str) -> str:
    """Show the thought before the last answer."""
    if not (session.answered and session.answered[-1].thinking):
        raise RequestError("/thought: the last answer has none")
    return session.answered[-1].thinking


def _calculator(session: ChatSession, switch: str) -> str:
    """Complete sums with their exact results: on or off."""
    session.request["calculator"] = _is_on("calculator", switch)
    return f"calculator: {switch}"


def _is_on(command: str, switch: str) -> bool:
    if switch not in ("on", "off"):
        raise RequestError(f"/{command} {switch}: must be on or off")
    return switch == "on"


def _schema(session: ChatSession, file: str) -> str:
    """FILE: JSON schema that answers must match; without FILE none."""
    session.request["grammar"] = options.answer_grammar(_path("schema", file) if file else None)
    return f"schema: {file or 'none'}"


def _save(session: ChatSession, file: str) -> str:
    """FILE: write the conversation."""
    session.conversation.save(_path("save", file))
    return f"saved: {len(session.conversation.messages)} messages in {file}"


def _load(session: ChatSession, file: str) -> str:
    """FILE: continue a written conversation."""
    session.conversation.load(_path("load", file))
    return f"loaded: {len(session.conversation.messages)} messages of {file}"


def _path(command: str, file: str) -> Path:
    if not file:
        raise RequestError(f"/{command}: give a file")
    return Path(os.path.expanduser(file))  # noqa: PTH111 - Path.expanduser() raises for an unknown user


def _reset(session: ChatSession, _: str) -> str:
    """Forget the conversation."""
    session.conversation.messages.clear()
    return "the conversation is forgotten"


def _stats(session: ChatSession, _: str) -> str:
    """Show tokens and speed of the last answer, and the context in use."""
    if not session.answered:
        raise RequestError("/stats: there is no answer yet")
    last = session.answered[-1]
    return (
        f"{last.usage.completion_tokens} tokens at {last.timings.decode_tokens_per_s(last.usage):.1f}/s, "
        f"first after {last.timings.first_token_s:.2f} s, {last.usage.cached_tokens} of "
        f"{last.usage.prompt_tokens} prompt tokens cached, {len(session.answered)} answers"
    )


def _quit(_: ChatSession, __: str) -> str:
    """End the chat."""
    raise QuitError


_ALL = (
    *(_help, _model, _adapter, _system, _temperature, _retry, _effort, _think, _thought, _calculator),
    *(_schema, _save, _load, _reset, _stats),
)
COMMANDS: dict[str, Callable[[ChatSession, str], str]] = {
    **{command.__name__[1:]: command for command in _ALL},
    **dict.fromkeys(("bye", "exit", "quit"), _quit),
}


def with_name(word: str) -> str:
    """NAME=ADAPTER of [NAME=]ADAPTER, by default with the name of the file."""
    is_named = "=" in word and not os.path.exists(word)  # noqa: PTH110 - the name may be too long for a file
    return word if is_named else f"{Path(word).name.replace('=', '-')}={word}"
