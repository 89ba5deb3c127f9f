"""Command `thirteen ask`."""

import sys
from dataclasses import asdict, replace
from typing import Annotated

import typer
from typer import Argument

from ..errors import RequestError
from ..runtime.options import Effort
from . import options
from .answer_text import answer_findings, stream_answer, value_text
from .application import command
from .console import note, show, show_text, wait_for


@command(
    "ask 'Tom has 12 eggs and buys 6 more. How many eggs does he have?'",
    "ask qwen2.5-0.5b 'What is the capital of France?'",
    "ask model.gguf - < question.txt",
)
def ask(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        Argument(
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
    effort: options.AnswerEffort = Effort.LOW,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = "0",
    as_json: options.Json = False,
) -> None:
    """Ask a question and print the answer."""
    name, question = _model_and_question(words or [])
    wait_for("loading…")
    from ..models.embedded import is_default_model, is_short_sum, limits

    request = options.request_options(ctx, schema)
    engine_options = options.engine_options(ctx, slots=effort.rule.width)
    files = options.resolve_model(name, adapter, threads=threads)
    with options.open_engine(files, replace(engine_options, adapter=files.adapter)) as engine:
        plan = engine.plan
        wait_for("reading the question…")
        answer = stream_answer(engine.stream(question, request), silent=as_json)
    rates = answer.timings.token_rates(answer.usage)
    if as_json:
        show(True, asdict(answer) | rates | {"model": files.model, "plan": plan.json})
    else:
        value = value_text(answer)
        show_text(f"\n\nanswer: {value}" if value else "")
        usage, speed = answer.usage, rates["decode_tokens_per_s"]
        for line in answer_findings(answer):
            note(line)
        note(
            f"{usage.completion_tokens} tokens at {speed:.1f}/s, "
            f"first after {answer.timings.first_token_s:.2f} s ({usage.prompt_tokens} tokens of prompt), "
            f"stop reason {answer.stop_reason}"
        )
    if is_default_model(files.model) and not adapter and not (answer.steps and is_short_sum(question)):
        note(limits())


def _model_and_question(words: list[str]) -> tuple[str | None, str]:
    """Tell [MODEL] and [QUESTION] apart; a question that is missing or `-` comes from standard input."""
    from ..files.json_file import decode_utf8
    from ..models.resolve import is_model_name

    if len(words) > 2:
        raise RequestError(f"expected [MODEL] QUESTION, not {len(words)} arguments: quote the question")
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
