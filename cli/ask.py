"""The command `thirteen ask`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RequestError
from .console import err, json_text, out, printable, progress_bar
from .options import Json, Threads

if TYPE_CHECKING:
    from ..runtime.answer import Answer


_VOTES_AT_ONCE = 8


TEXT_MAX = 1 << 20  # bytes of a schema or grammar that are read; more than those may have


app = typer.Typer()


@app.command(
    epilog='Example: thirteen ask "A pen costs $1.20. What do 3 pens cost?" '
    "or: thirteen ask model.gguf - < question.txt"
)
def ask(
    words: Annotated[
        list[str], typer.Argument(metavar="[MODEL] QUESTION", help="A GGUF and a question (- reads it).")
    ],
    adapter: Annotated[
        str | None, typer.Option(help="An adapter at run time: a GGUF LoRA, or as in convert.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What to tell the model beforehand.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 512,
    context: Annotated[int, typer.Option(min=1, help="The most tokens of question and answer.")] = 2048,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Keep so many of the likeliest tokens; 0 keeps all.")] = 40,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest up to this probability.")] = 0.95,
    min_p: Annotated[float, typer.Option(help="Keep those at least so likely beside the likeliest.")] = 0.05,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answer.")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(help="A text that ends the answer; may be repeated.")
    ] = None,
    calculator: Annotated[
        bool, typer.Option(help="Complete sums in the answer by their exact results.")
    ] = True,
    schema: Annotated[Path | None, typer.Option(help="A JSON schema that the answer must follow.")] = None,
    grammar: Annotated[Path | None, typer.Option(help="The same by a grammar in GBNF.")] = None,
    votes: Annotated[
        int, typer.Option(min=1, help="Answer so many times, and take the value that most give.")
    ] = 1,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Ask a question; without MODEL, the embedded default answers."""
    from ..runtime.engine.engine import Engine, RequestOptions
    from ..runtime.grammar.grammar import from_gbnf, from_schema
    from ..runtime.request import Sampling

    if len(words) > 2:
        raise typer.BadParameter(
            f"ask takes a MODEL and a QUESTION, not {len(words)} arguments: put quotes around them"
        )
    question = _standard_input() if words[-1] == "-" else words[-1]
    if not question.strip():
        raise RequestError("the question is empty")
    if schema and grammar:
        raise typer.BadParameter("--schema and --grammar: give one of them")
    options = RequestOptions(
        system=system,
        sampling=Sampling(temperature, top_k, top_p, min_p, seed),
        max_tokens=max_tokens,
        stop=stop or (),
        calculator=calculator,
        grammar=from_schema(_text_of(schema))
        if schema
        else from_gbnf(_text_of(grammar))
        if grammar
        else None,
    )
    model = Path(words[0]) if len(words) == 2 else _default_model(adapted=adapter is None)
    slots = min(votes, _VOTES_AT_ONCE)
    lora = _run_time_file(adapter, model) if adapter else None
    with Engine(model, adapter=lora, context=context, slots=slots, threads=threads) as engine:
        if votes > 1:
            answer: Answer | None = engine.poll(question, votes, **options).answer()
        else:
            for piece in engine.stream(question, **options):
                if not as_json:
                    sys.stdout.write(printable(piece.text))
                    sys.stdout.flush()
                answer = piece.answer
    assert answer is not None, "the last piece carries the answer"
    if as_json:
        print(json_text(asdict(answer) | _speed(answer) | {"model": str(model)}))
        return
    if votes > 1:
        out.print(printable(answer.text), markup=False)
    _show_answer(answer)


def _run_time_file(adapter: str, model: Path) -> Path:
    from ..workflows.adapter_resolver import resolve_runtime_lora

    with progress_bar("basis") as progress:
        return resolve_runtime_lora(adapter, model, progress=progress)


def _speed(answer: "Answer") -> dict[str, float]:
    return {
        "prefill_tokens_per_s": answer.timings.prefill_tokens_per_s(answer.usage),
        "decode_tokens_per_s": answer.timings.decode_tokens_per_s(answer.usage),
    }


def _show_answer(answer: "Answer") -> None:
    """The final value on stdout, below the text; how it came about on stderr."""
    usage = answer.usage
    out.print(f"\n\nanswer: {answer.value if answer.value is not None else 'none found'}", markup=False)
    if answer.tally:
        votes = ", ".join(f"{value}: {count}" for value, count in answer.tally.votes.items()) or "none"
        err.print(
            f"votes: {votes} (decided after {answer.tally.ended} of {answer.tally.asked})", markup=False
        )
    if answer.steps:
        wrong = [f"{step.expression} is {step.computed}" for step in answer.steps if not step.ok]
        err.print(f"equations: {len(answer.steps)}, wrong: {'; '.join(wrong) or 'none'}", markup=False)
    err.print(
        f"{usage.completion_tokens} tokens at {_speed(answer)['decode_tokens_per_s']:.1f}/s, "
        f"first after {answer.timings.first_token_s:.2f} s ({usage.prompt_tokens} tokens of prompt), "
        f"stop reason {answer.stop_reason}"
    )


def _default_model(*, adapted: bool = True) -> Path:
    from ..workflows.default_model import default_model

    with progress_bar("preparing the default model") as progress:
        return default_model(adapted=adapted, progress=progress)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"the question from standard input is not UTF-8 at byte {error.start}") from None


def _text_of(path: Path) -> str:
    """A small text file; what is in it is bounded by those who read it."""
    try:
        with path.open("rb") as file:
            return file.read(TEXT_MAX).decode("utf-8")
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 at byte {error.start}") from None
