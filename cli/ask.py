"""Command `thirteen ask`."""

import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RequestError
from . import options
from .console import checks_text, confidence_text, json_text, note, show_text, value_text, votes_text
from .spinner import LOADING_DELAY_S, spinner, text_pieces
from .word_wrap import WordWrap

if TYPE_CHECKING:
    from ..runtime.answer import Answer
    from ..runtime.engine.engine import Engine
    from ..runtime.options import Options

app = typer.Typer()


@app.command(
    epilog=options.example(
        "ask 'Tom has 12 eggs and buys 6 more. How many eggs does he have?'",
        "ask qwen2.5-0.5b 'What is the capital of France?'",
        "ask model.gguf - < question.txt",
    )
)
def ask(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] [QUESTION]",
            help=f"{options.OR_ADAPTED} Then the question; without one, it is a line of standard input, and "
            "with `-` all of it.",
        ),
    ] = None,
    adapter: options.RuntimeAdapter = None,
    system: options.System = None,
    max_tokens: options.MaxTokensOrDefault = None,
    think: options.Think = None,
    context: options.Context = None,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = 0,
    calculator: options.Calculator = True,
    schema: options.Schema = None,
    effort: options.AnswerEffort = options.LOW,
    min_confidence: options.MinConfidence = 0.0,
    threads: options.Threads = None,
    library: options.Library = None,
    kv: options.Kv = None,
    gpu_layers: options.GpuLayers = "0",
    as_json: options.Json = False,
) -> None:
    """Ask a question and print the answer."""
    name, question = _model_and_question(words or [])
    spinner.begin("loading…", LOADING_DELAY_S)
    from ..runtime.effort import parse_effort
    from ..runtime.engine.engine import Engine
    from ..runtime.options import Options
    from ..runtime.plan.plan import EnginePlan
    from ..workflows.default_model import is_default_model, is_short_sum, limits

    request = Options(
        system=system,
        temperature=temperature,
        seed=seed,
        max_tokens=max_tokens,
        think=think,
        calculator=calculator,
        grammar=options.answer_grammar(schema),
        effort=(chosen := parse_effort(effort)),
        min_confidence=min_confidence,
    )
    engine_options = options.engine_options(
        gpu_layers, threads=threads, library=library, kv=kv, context=context, slots=chosen.rule.width
    )
    files = options.resolve_model(name, adapter, threads=threads)
    spinner.begin(f"loading {files.model.name}…")
    plan = EnginePlan.make(files.model, replace(engine_options, adapter=files.adapter))
    with Engine(plan) as engine:
        if engine.notice:
            note(engine.notice)
        answer = _stream(engine, question, request, silent=as_json)
    spinner.end()
    if as_json:
        print(json_text(asdict(answer) | answer.token_rates | {"model": str(files.model), "plan": plan.json}))
    else:
        _show_answer(answer)
    if is_default_model(files.model) and not adapter and not (answer.steps and is_short_sum(question)):
        note(limits())


def _model_and_question(words: list[str]) -> tuple[str | None, str]:
    """Tell [MODEL] and [QUESTION] apart; a question that is missing or `-` comes from standard input."""
    from ..files.json_file import decode_utf8
    from ..workflows.model_files import is_model_name

    if len(words) > 2:
        raise typer.BadParameter(f"expected [MODEL] QUESTION, not {len(words)} arguments: quote the question")
    model = words[0] if len(words) == 2 or (words and is_model_name(words[0])) else None
    question = words[-1] if len(words) == 2 or (words and model is None) else None
    if question in (None, "-"):
        piped, typed = question is None, question is None and sys.stdin.isatty()
        question = "" if typed else decode_utf8(sys.stdin.buffer.read(), "standard input")
        if piped and (lines := sum(map(bool, map(str.strip, question.splitlines())))) > 1:
            raise RequestError(
                f"standard input has {lines} lines: `thirteen batch FILE` answers each line of a file, and "
                f"`thirteen ask {model + ' ' if model else ''}-` takes all of them as one question"
            )
    if not question.strip():
        raise RequestError(f"ask {model or ''}".rstrip() + ": the question is missing")
    return model, question


def _stream(engine: "Engine", question: str, request: "Options", *, silent: bool) -> "Answer":
    """Print the answer as it is generated."""
    wrap = WordWrap()
    spinner.begin("reading the question…")
    for piece in text_pieces(engine.stream(question, request)):
        if not silent:
            wrap.write(piece.text)
    wrap.flush()
    assert piece.answer is not None, "the last piece carries the answer"
    return piece.answer


def _show_answer(answer: "Answer") -> None:
    """Print the final value on standard output, and votes, equations and timings on standard error."""
    usage = answer.usage
    value = value_text(answer)
    show_text(f"\n\nanswer: {value}" if value else "")
    if answer.tally:
        decided = f"decided after {answer.tally.ended} of {answer.tally.asked}"
        note(f"votes: {votes_text(answer.tally)} ({decided})")
    if confidence := confidence_text(answer, "confidence: {:.0%}"):
        note(confidence)
    if checks := checks_text(answer):
        note(checks)
    if answer.violation:
        note(f"warning: the answer violates the schema: {answer.violation}")
    thought = f", {usage.thinking_tokens} of them a thought," if usage.thinking_tokens else ""
    note(
        f"{usage.completion_tokens} tokens{thought} at {answer.token_rates['decode_tokens_per_s']:.1f}/s, "
        f"first after {answer.timings.first_token_s:.2f} s ({usage.prompt_tokens} tokens of prompt), "
        f"stop reason {answer.stop_reason}"
    )
