"""The command `thirteen`. Each subcommand imports its room when it is called, so that `--help` stays quick.

Results go to standard output, progress and logs to standard error. Exit status 0 is done, 2 bad input (one
line `error: …`), 130 interrupted.
"""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..errors import RequestError, ThirteenError
from .adapter import adapter_app
from .batch import batch_app
from .bench import bench_app
from .console import err, facts_table, json_text, out, printable, progress_bar, show_result
from .convert import convert_app
from .options import BaseArgument, Json, Revision, Threads, with_ray_address
from .serve import serve_app
from .train import train_app
from .tune import tune_app
from .web import web_app

if TYPE_CHECKING:
    from ..runtime.answer import Answer

INTERRUPTED = 130
MESSAGE_MAX = 600  # characters of an error; names out of a damaged file can be endless
_VOTES_AT_ONCE = 8
TEXT_MAX = 1 << 20  # bytes of a schema or grammar that are read; more than those may have

# Typer carries its own copy of click in some versions; these are click's either way.
UsageError: type[Any] = typer.BadParameter.__mro__[1]
ClickError: type[Any] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="The models and adapters known by name.", invoke_without_command=True)
app.add_typer(convert_app)
app.add_typer(train_app)
app.add_typer(tune_app)
app.add_typer(adapter_app, name="adapter")
app.add_typer(bench_app, name="bench")
app.add_typer(web_app)
app.add_typer(batch_app)
app.add_typer(serve_app)
app.add_typer(models_app, name="models")


def main() -> None:
    """Run the command line, turning every error a user can mend into one line and a status."""
    try:
        status = app(with_ray_address(sys.argv[1:]), standalone_mode=False) or 0
        sys.stdout.flush()
        if status == INTERRUPTED:
            raise KeyboardInterrupt  # noqa: TRY301 - some versions of typer turn it into a status
        sys.exit(status)
    except ThirteenError as error:
        _fail(str(error))
    except UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        _fail(error.format_message() + hint)
    except ClickError as error:
        _fail(error.format_message())
    except BrokenPipeError:
        # The reader, such as `head`, has had enough: what is left in the buffers goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (KeyboardInterrupt, typer.Abort):
        err.print("interrupted")
        sys.exit(INTERRUPTED)
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except MemoryError:
        _fail("there is not enough memory")


def _fail(message: str) -> None:
    line = printable(" ".join(message.split()))
    if len(line) > MESSAGE_MAX:
        line = f"{line[: MESSAGE_MAX // 2]} … {line[-MESSAGE_MAX // 2 :]}"
    print("error:", line, file=sys.stderr)
    sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"thirteen {version('thirteen')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """From a trained adapter of a few numbers to an answer on your own hardware."""


@app.command(epilog="Example: thirteen demo")
def demo(as_json: Json = False) -> None:
    """The whole path on the embedded default: convert, ask, compare."""
    from ..workflows.demo import demo_table, run_demo

    with progress_bar("demo") as progress:
        report = run_demo(progress)
    show_result(as_json, asdict(report), lambda: demo_table(report))


@app.command(epilog="Example: thirteen inspect model.gguf --context 4096")
def inspect(
    file: Annotated[Path, typer.Argument(help="A GGUF file.")],
    profile: Annotated[
        str | None, typer.Option(help="Memory for this one only: laptop, server or phone.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Memory for so many tokens.")] = None,
    kv: Annotated[str | None, typer.Option(help="Memory with keys and values in f16 or q8_0.")] = None,
    as_json: Json = False,
) -> None:
    """Show the types, sizes and provenance of a GGUF file, and the memory that it will need."""
    from ..workflows.inspect_gguf import inspect_gguf, memory_profiles

    found = inspect_gguf(file, memory_profiles(profile, context, kv))

    def table() -> Table:
        rows = {
            "file": found.path,
            "size": f"{found.file_bytes:,} bytes, {found.bits_per_weight:.2f} bits a weight",
            "model": f"{found.name or 'unnamed'} ({found.architecture}), {found.weights:,} weights",
        }
        rows |= {
            f"type {name}": f"{share.tensors} tensors, {share.weights:,} weights, {share.nbytes:,} bytes"
            for name, share in found.types.items()
        }
        rows |= {f"memory, {name}": memory.text for name, memory in found.memory.items()}
        rows |= {f"{found.architecture}.{key}": str(value) for key, value in found.metadata.items()}
        rows |= {f"tokenizer.{key}": str(value) for key, value in found.tokenizer.items()}
        rows |= {f"thirteen.{key}": value for key, value in found.provenance.items()}
        return facts_table(rows)

    show_result(as_json, asdict(found), table)


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
    from ..runtime.engine.engine import Engine, Options
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
    options = Options(
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


@models_app.callback(epilog="Example: thirteen models fetch smollm2-135m")
def models(context: typer.Context) -> None:
    """List the models and adapters known by name."""
    if context.invoked_subcommand:
        return
    from ..models.catalogue import catalogue

    table = Table("name", "what", "parameters", "licence", box=None, pad_edge=False)
    table.add_row("embedded", f"{catalogue().embedded.base}, no download", "", "")
    for base in catalogue().bases.values():
        copy = f"; a public copy: {base.public_copy}" if base.public_copy else ""
        what = base.hub_id + (f" (gated{copy})" if base.gated else "")
        table.add_row(base.name, what, f"{base.parameters:,}", base.licence)
    for adapter in catalogue().adapters.values():
        table.add_row(adapter.name, f"adapter for {adapter.base}", "", "")
    out.print(table)


@models_app.command("fetch", epilog="Example: thirteen models fetch smollm2-135m")
def models_fetch(name: BaseArgument, revision: Revision = None) -> None:
    """Download a base and check its hashes; prints where it lies."""
    from ..models.fetch import fetch

    print(fetch(name, revision=revision, what="base"))


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
