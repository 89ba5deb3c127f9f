"""The command `thirteen`. Each subcommand imports its room when it is called, so that `--help` stays quick.

Results go to standard output, progress and logs to standard error. Exit status 0 is done, 2 bad input (one
line `error: …`), 130 interrupted.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .errors import RequestError, ThirteenError

if TYPE_CHECKING:
    from .bench.fidelity import FidelityReport
    from .convert.pipeline import Report
    from .proof import Proof
    from .runtime.answer import Answer

INTERRUPTED = 130
MESSAGE_MAX = 600  # characters of an error; names out of a damaged file can be endless
STAGES_SHOWN = 4  # of a long run, the last ones
_VOTES_AT_ONCE = 8
TEXT_MAX = 1 << 20  # bytes of a schema or grammar that are read; more than those may have


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to main(), where rich would end the program with status 1."""
        raise BrokenPipeError


out = _Output(highlight=False, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False)

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
adapter_app = typer.Typer(
    help="Look at an adapter, or write it for use at run time.",
    epilog="Example: thirteen adapter show smollm2-135m-gsm8k-13",
    no_args_is_help=True,
)
bench_app = typer.Typer(
    help="Measure an adapted model beside its base.",
    epilog="Example: thirteen bench latency base.gguf adapted.gguf",
    no_args_is_help=True,
)
models_app = typer.Typer(help="The models and adapters known by name.", invoke_without_command=True)
app.add_typer(adapter_app, name="adapter")
app.add_typer(bench_app, name="bench")
app.add_typer(models_app, name="models")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
BaseArgument = Annotated[
    str, typer.Argument(help="A catalogue name, a hub id, a folder of safetensors, or a GGUF.")
]
AdapterArgument = Annotated[str, typer.Argument(help="A PEFT folder, a hub id, or a catalogue name.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The GGUF to write.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=512, help="Threads; by default all that can be of use.")
]
AdapterOption = Annotated[str | None, typer.Option(help="A PEFT folder, a hub id, or a catalogue name.")]
SizeOption = Annotated[
    str | None,
    typer.Option(help="The most the file may have: 600MB, 572MiB, 0.6GB, 3.9bpw; plans its types."),
]
ImportanceOption = Annotated[
    Path | None, typer.Option(help="An importance file; with --size, measured and cached unless given.")
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(help="Texts to measure importance on: JSON lines with text, or question and answer."),
]
TogetherOption = Annotated[
    bool, typer.Option("--together", help="Price types by decoding 8 sequences at once, as a server does.")
]
TargetOption = Annotated[
    str | None, typer.Option(help="x86, x86-avx512, arm or any; by default this machine's kind.")
]
PreferOption = Annotated[str, typer.Option(help="quality, balanced or speed.")]
CostsOption = Annotated[Path | None, typer.Option(help="What types cost here, by: thirteen bench types.")]
LengthsOption = Annotated[
    str, typer.Option(help="Also prompts of these tokens, and decode after them: 128,512,1024.")
]
Revision = Annotated[str | None, typer.Option(help="The base's branch, tag or commit on the hub.")]


def main() -> None:
    """Run the command line, turning every error a user can mend into one line and a status."""
    try:
        status = app(standalone_mode=False) or 0
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
    line = _printable(" ".join(message.split()))
    if len(line) > MESSAGE_MAX:
        line = f"{line[: MESSAGE_MAX // 2]} … {line[-MESSAGE_MAX // 2 :]}"
    print("error:", line, file=sys.stderr)
    sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

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
    from .demo import run, table  # noqa: PLC0415

    with _bar("demo") as progress:
        report = run(progress)
    _show(as_json, asdict(report), lambda: table(report))


@app.command(
    epilog="Example: thirteen convert llama-3.2-1b --adapter ./my-lora --type Q4_K --output my-model.gguf"
)
def convert(
    base: BaseArgument,
    output: Output,
    adapter: AdapterOption = None,
    type_: Annotated[
        str | None, typer.Option("--type", help="Any ggml type: Q4_K (the default), Q8_0, IQ4_NL, F16, …")
    ] = None,
    size: SizeOption = None,
    importance: ImportanceOption = None,
    calibration: CalibrationOption = None,
    target: TargetOption = None,
    prefer: PreferOption = "balanced",
    costs: CostsOption = None,
    together: TogetherOption = False,
    fidelity: Annotated[
        bool | None,
        typer.Option(
            "--fidelity/--no-fidelity",
            help="Measure what the file kept, beside F16, over 1,024 positions of held-out text; "
            "by default where there is an adapter.",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write the report to this JSON file.")] = None,
    revision: Revision = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Merge an adapter into a base, write one quantized GGUF of a type or a size, and tell what it kept."""
    from .convert.pipeline import convert as run  # noqa: PLC0415
    from .convert.write import check_target  # noqa: PLC0415

    if report and report.absolute() == output.absolute():
        raise typer.BadParameter(f"--report and --output are both {output}")
    if type_ and size:
        raise typer.BadParameter(f"--type {type_} and --size {size}: give one of them")
    wish = _wish(size, target, prefer, costs, together=together) if size else None
    base_path, adapter_path = _fetch(base, adapter, revision)
    for file in (output, report):
        if file:
            check_target(file, base_path, *([adapter_path] if adapter_path else []))
    if importance is None and (size or calibration):
        importance = _importance(base_path, adapter_path, calibration, threads)
    with _bar("convert") as progress:
        done = run(
            base_path,
            output,
            type_=type_,
            wish=wish,
            importance=importance,
            adapter=adapter_path,
            base_id=_name(base),
            adapter_id=_name(adapter or ""),
            threads=threads,
            progress=progress,
        )
    wanted = adapter_path is not None if fidelity is None else fidelity
    proof = _prove(done, base_path, adapter_path, importance, threads) if wanted else None
    _show_conversion(done, proof, report, as_json)


@app.command(epilog="Example: thirteen plan smollm2-135m --size 4.5bpw --prefer quality")
def plan(
    base: BaseArgument,
    size: Annotated[str, typer.Option(help="As in convert.")],
    adapter: AdapterOption = None,
    importance: ImportanceOption = None,
    calibration: CalibrationOption = None,
    target: TargetOption = None,
    prefer: PreferOption = "balanced",
    costs: CostsOption = None,
    together: TogetherOption = False,
    revision: Revision = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Show what a file of a size would be made of and what it is predicted to come to, without writing it."""
    from .convert.pipeline import outline  # noqa: PLC0415

    wish = _wish(size, target, prefer, costs, together=together)
    base_path, adapter_path = _fetch(base, adapter, revision)
    if importance is None:
        importance = _importance(base_path, adapter_path, calibration, threads)
    with _bar("plan") as progress:
        done = outline(base_path, wish, importance, adapter=adapter_path, threads=threads, progress=progress)
    _warn(done.warnings)
    result = asdict(done)
    for tensor, of in zip(result["tensors"], done.tensors, strict=True):
        tensor["type"] = of.type.name
    rows = {p.target: f"{p.type.name}, {p.nbytes:,} bytes" for p in done.tensors if len(p.shape) > 1}
    counted = ", ".join(f"{count} {name}" for name, count in done.types.items())
    _show(as_json, result, lambda: _facts(rows | {"tensors": counted} | _predicted(done.prediction)))


@app.command(epilog="Example: thirteen importance smollm2-135m --output importance.gguf")
def importance(
    base: BaseArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The importance file to write.")],
    adapter: AdapterOption = None,
    calibration: CalibrationOption = None,
    revision: Revision = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure what matters in a model: activations, their covariances, and each matrix' sensitivity.

    The file is in llama.cpp's importance-matrix format: llama-quantize takes it, and convert takes its.
    """
    from .calibration import measure_importance  # noqa: PLC0415
    from .convert.write import check_target  # noqa: PLC0415

    base_path, adapter_path = _fetch(base, adapter, revision)
    check_target(output, base_path, *(path for path in (adapter_path, calibration) if path))
    with _stages() as stage:
        sha256 = measure_importance(
            base_path, adapter_path, output, calibration=calibration, threads=threads, stage=stage
        )
    _show_file(output, sha256, as_json)


@adapter_app.command("show", epilog="Example: thirteen adapter show smollm2-135m-gsm8k-13")
def adapter_show(adapter: AdapterArgument, as_json: Json = False) -> None:
    """Show what an adapter is: its kind, rank, trained numbers, and norm by layer."""
    from .convert.adapter import load_adapter, norms_by_layer  # noqa: PLC0415
    from .models.fetch import fetch  # noqa: PLC0415

    loaded = load_adapter(fetch(adapter, what="adapter"), _name(adapter))
    norms = norms_by_layer(loaded)
    facts = {
        "adapter": loaded.id,
        "kind": loaded.kind,
        "rank": loaded.rank,
        "trained numbers": loaded.trained,
        "trained on": loaded.trained_on,
        "tensors": len(loaded.deltas),
        "sha256": loaded.sha256,
    }
    result = {key.replace(" ", "_"): value for key, value in facts.items()} | {"norm_by_layer": norms}

    def table() -> Table:
        rows = {key: str(value) for key, value in facts.items()}
        return _facts(rows | {f"norm, {layer}": f"{norm:.4g}" for layer, norm in norms.items()})

    _show(as_json, result, table)


@adapter_app.command(
    "export", epilog="Example: thirteen adapter export ./my-lora --base llama-3.2-1b --output my-lora.gguf"
)
def adapter_export(
    adapter: AdapterArgument,
    base: Annotated[str, typer.Option(help="The base it is for: see convert.")],
    output: Output,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Write an adapter as a GGUF LoRA, for use at run time beside the unmerged base."""
    from .convert.export import export_adapter  # noqa: PLC0415
    from .models.fetch import fetch  # noqa: PLC0415

    sha256 = export_adapter(
        fetch(adapter, what="adapter"),
        fetch(base, revision=revision, what="base"),
        output,
        adapter_id=_name(adapter),
        base_id=_name(base),
    )
    _show_file(output, sha256, as_json)


@app.command(epilog="Example: thirteen inspect model.gguf")
def inspect(file: Annotated[Path, typer.Argument(help="A GGUF file.")], as_json: Json = False) -> None:
    """Show the types, sizes and provenance of a GGUF file."""
    from .inspection import inspect as run  # noqa: PLC0415

    found = run(file)

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
        rows |= {f"{found.architecture}.{key}": str(value) for key, value in found.metadata.items()}
        rows |= {f"tokenizer.{key}": str(value) for key, value in found.tokenizer.items()}
        rows |= {f"thirteen.{key}": value for key, value in found.provenance.items()}
        return _facts(rows)

    _show(as_json, asdict(found), table)


@app.command(
    epilog='Example: thirteen ask "A pen costs $1.20. What do 3 pens cost?" '
    "or: thirteen ask model.gguf - < question.txt"
)
def ask(
    words: Annotated[
        list[str], typer.Argument(metavar="[MODEL] QUESTION", help="A GGUF and a question (- reads it).")
    ],
    adapter: Annotated[Path | None, typer.Option(help="A run-time adapter: a GGUF LoRA.")] = None,
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
    from .runtime.engine import Engine, Options  # noqa: PLC0415
    from .runtime.grammar import from_gbnf, from_schema  # noqa: PLC0415
    from .runtime.request import Sampling  # noqa: PLC0415

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
    model = Path(words[0]) if len(words) == 2 else _default_model()
    slots = min(votes, _VOTES_AT_ONCE)
    with Engine(model, adapter=adapter, context=context, slots=slots, threads=threads) as engine:
        if votes > 1:
            answer: Answer | None = engine.poll(question, votes, **options).answer()
        else:
            for piece in engine.stream(question, **options):
                if not as_json:
                    sys.stdout.write(_printable(piece.text))
                    sys.stdout.flush()
                answer = piece.answer
    assert answer is not None, "the last piece carries the answer"
    if as_json:
        print(_json(asdict(answer) | _speed(answer) | {"model": str(model)}))
        return
    if votes > 1:
        out.print(_printable(answer.text), markup=False)
    _show_answer(answer)


@app.command(epilog="Example: thirteen serve my-model.gguf --adapter math=math-lora.gguf --port 8080")
def serve(
    model: Annotated[Path | None, typer.Argument(help="A GGUF; by default the embedded model.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; by default that of its file.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="A GGUF LoRA, served as a model NAME; may be repeated."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    api_key_file: Annotated[
        Path | None, typer.Option(help="API keys, one on a line: only who has one may ask.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines ask without a key.")
    ] = False,
    origin: Annotated[
        list[str] | None, typer.Option(help="A web origin whose pages may ask; may be repeated.")
    ] = None,
    profile: Annotated[str, typer.Option(help="What to set aside: laptop, server or phone.")] = "laptop",
    context: Annotated[int | None, typer.Option(min=1, help="The most tokens of prompt and answer.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Answers that run at once.")] = None,
    queue: Annotated[int, typer.Option(min=0, help="Answers that may wait; more get 429.")] = 64,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="The longest answer; by default the context.")
    ] = None,
    votes: Annotated[int, typer.Option(min=1, max=64, help="The most answers of one request.")] = 16,
    body_bytes: Annotated[int, typer.Option(min=1, help="The largest body of a request.")] = 1 << 20,
    idle_seconds: Annotated[
        int, typer.Option(min=1, help="How long a request may take to arrive, and a connection be idle.")
    ] = 30,
    drain_seconds: Annotated[
        int, typer.Option(min=0, help="How long running answers may take when the server is ended.")
    ] = 30,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Log questions and answers; by default neither is.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Serve a model over HTTP, as OpenAI's clients know it, until a signal ends it."""
    from .runtime.bounds import Bounds  # noqa: PLC0415
    from .runtime.desk import Desk  # noqa: PLC0415
    from .runtime.engine import Engine  # noqa: PLC0415
    from .runtime.keys import Keys  # noqa: PLC0415
    from .runtime.serve import Doorway, model_names  # noqa: PLC0415
    from .runtime.serve import serve as run  # noqa: PLC0415

    keys = Keys.from_file(api_key_file) if api_key_file else None
    doorway = Doorway(host, port, keys, insecure, tuple(origin or ()))
    adapters = _named_files(adapter or ())
    model = model or _default_model()
    models = model_names(name or model.stem, adapters)
    limits = {} if max_tokens is None else {"max_tokens": max_tokens}
    bounds = Bounds(body_bytes, votes=votes, idle_s=idle_seconds, drain_s=drain_seconds, **limits)
    with Engine(
        model,
        profile=profile,
        adapters=adapters,
        context=context,
        slots=slots,
        threads=threads,
        queue=queue,
    ) as engine:

        def listening(address: str) -> None:
            err.print(f"serving {_printable(', '.join(models))} at {address}", markup=False, soft_wrap=True)

        ended_by = run(Desk(engine, models, log_prompts=log_prompts), doorway, bounds, listening)
    if ended_by == signal.SIGINT:
        raise KeyboardInterrupt


def _named_files(words: Iterable[str]) -> dict[str, Path]:
    """Files by the names that are given to them, each as NAME=FILE."""
    files: dict[str, Path] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not (name and equals and file) or name in files:
            raise typer.BadParameter(f"--adapter {word}: give NAME=FILE, each name once")
        files[name] = Path(file)
    return files


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


@bench_app.command("latency", epilog="Example: thirteen bench latency base.gguf adapted.gguf --json")
def bench_latency(
    base: Annotated[Path, typer.Argument(help="The unadapted GGUF.")],
    adapted: Annotated[Path, typer.Argument(help="The adapted GGUF, or the base again with --adapter.")],
    adapter: Annotated[Path | None, typer.Option(help="A run-time adapter for the adapted side.")] = None,
    rounds: Annotated[int, typer.Option(min=5, help="Rounds of four turns, two of each.")] = 12,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of prompt.")] = 128,
    decode_tokens: Annotated[int, typer.Option(min=2, help="Tokens decoded after it.")] = 64,
    lengths: LengthsOption = "",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare latency, load time, memory and size, base and adapted in turns."""
    from .bench.latency import run, table  # noqa: PLC0415

    with _bar("latency") as progress:
        report = run(
            base,
            adapted,
            adapter=adapter,
            threads=threads,
            prompt_tokens=prompt_tokens,
            decode_tokens=decode_tokens,
            rounds=rounds,
            lengths=_lengths(lengths),
            progress=progress,
        )
    _show(as_json, asdict(report), lambda: table(report))


def _lengths(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(","))) if text else ()
    except ValueError:
        raise RequestError(f"--lengths {text!r}: write it like 128,512,1024") from None


@bench_app.command(
    "shape", epilog="Example: thirteen bench shape llama-3.2-1b --types Q4_K/Q6_K --output 1b.gguf"
)
def bench_shape(
    name: Annotated[str, typer.Argument(help="A base's catalogue name.")],
    output: Output,
    types: Annotated[
        str,
        typer.Option(
            help="A type, LAYERS/EMBEDDING, a plan (of thirteen plan --json), or a GGUF of that shape."
        ),
    ] = "Q4_K",
    as_json: Json = False,
) -> None:
    """Write a model of a base's exact shapes with random weights, to measure before any download."""
    from .bench.shape import write_shape  # noqa: PLC0415

    _show_file(output, write_shape(name, types, output), as_json)


@bench_app.command("size", epilog="Example: thirteen bench size my-model.gguf")
def bench_size(
    model: Annotated[Path, typer.Argument(help="A GGUF file.")],
    as_json: Json = False,
) -> None:
    """Account for a file's bytes by tensor and type, beside llama.cpp's own files and the size asked for."""
    from .bench.size import run, table  # noqa: PLC0415

    report = run(model)
    _show(as_json, asdict(report), lambda: table(report))


@bench_app.command("memory", epilog="Example: thirteen bench memory my-model.gguf")
def bench_memory(
    model: Annotated[Path, typer.Argument(help="A GGUF file.")],
    adapter: Annotated[Path | None, typer.Option(help="A run-time adapter, as a GGUF LoRA.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of prompt.")] = 128,
    decode_tokens: Annotated[int, typer.Option(min=2, help="Tokens decoded after it.")] = 64,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure what a model takes: memory by what it is for, cold and warm starts, energy for a token."""
    from .bench.memory import measure, table  # noqa: PLC0415
    from .bench.settings import Settings  # noqa: PLC0415
    from .runtime.cores import physical_cores  # noqa: PLC0415

    settings = Settings(prompt_tokens, decode_tokens, physical_cores() if threads is None else threads)
    memory = measure(model, adapter, settings)
    _show(as_json, asdict(memory), lambda: table(memory, model))


@bench_app.command("fidelity", epilog="Example: thirteen bench fidelity reference-F16.gguf my-model.gguf")
def bench_fidelity(
    reference: Annotated[Path, typer.Argument(help="The adapted model in high precision: --type F16.")],
    shipped: Annotated[Path, typer.Argument(help="The same, quantized.")],
    base: Annotated[Path | None, typer.Option(help="The unadapted model in high precision.")] = None,
    shipped_base: Annotated[Path | None, typer.Option(help="The unadapted model, quantized alike.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="The adapter as a GGUF LoRA, to compare.")] = None,
    data: Annotated[Path | None, typer.Option(help="Texts as JSON lines, instead of those built in.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="The most positions compared.")] = 4096,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare a quantized file with full precision, and tell how much of the adapter's effect survives."""
    from .bench.fidelity import run, table  # noqa: PLC0415

    with _bar("fidelity") as progress:
        report = run(
            reference,
            shipped,
            base=base,
            shipped_base=shipped_base,
            adapter=adapter,
            data=data,
            tokens=tokens,
            threads=threads,
            progress=progress,
        )
    _show(as_json, asdict(report), lambda: table(report))


@bench_app.command(
    "accuracy", epilog="Example: thirteen bench accuracy adapted.gguf --base base.gguf --data gsm8k"
)
def bench_accuracy(
    model: Annotated[Path, typer.Argument(help="A GGUF file.")],
    data: Annotated[
        str,
        typer.Option(
            help="gsm8k, svamp, asdiv, gsm-symbolic, or a file of JSON lines with question and answer."
        ),
    ],
    base: Annotated[
        Path | None, typer.Option(help="The unadapted GGUF, which is asked the same; with --adapter, MODEL.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="A run-time adapter for MODEL: a GGUF LoRA.")] = None,
    prompt: Annotated[str, typer.Option(help="zero-shot, refined or 8-shot.")] = "zero-shot",
    votes: Annotated[
        int, typer.Option(min=1, max=64, help="Answers to each question; what most of them give counts.")
    ] = 1,
    temperature: Annotated[
        float, typer.Option(help="0 always takes the likeliest token; with --votes, 0.7 instead.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the first answer; the next ones count up from it.")] = 0,
    calculator: Annotated[bool, typer.Option(help="Complete sums in answers by their exact results.")] = True,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 512,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The most questions, spread evenly over the set.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="The folder of each question's records; by default in the cache.")
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Count right answers, of a model and its base; a run that was interrupted goes on where it was."""
    from .bench.accuracy import run, table  # noqa: PLC0415
    from .bench.terms import Terms  # noqa: PLC0415
    from .runtime.cores import default_threads  # noqa: PLC0415
    from .runtime.request import Sampling  # noqa: PLC0415

    terms = Terms(
        threads=default_threads().decode if threads is None else threads,
        prompt=prompt,
        votes=votes,
        sampling=Sampling(temperature, seed=seed),
        calculator=calculator,
        max_tokens=max_tokens,
    )
    with _scores() as progress:
        report = run(
            model,
            data,
            terms,
            base=base,
            adapter=adapter,
            limit=limit,
            folder=records,
            progress=progress,
        )
    _show(as_json, asdict(report), lambda: table(report))


@bench_app.command("report", epilog="Example: thirteen bench report base.gguf adapted.gguf --out report")
def bench_report(
    base: Annotated[Path | None, typer.Argument(help="The unadapted GGUF.")] = None,
    adapted: Annotated[Path | None, typer.Argument(help="The adapted GGUF.")] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="The folder to write to.")] = Path("report"),
    adapter: Annotated[Path | None, typer.Option(help="A run-time adapter for the adapted side.")] = None,
    latency: Annotated[Path | None, typer.Option(help="JSON of bench latency, instead of measuring.")] = None,
    size: Annotated[Path | None, typer.Option(help="JSON of bench size of the adapted file.")] = None,
    accuracy: Annotated[Path | None, typer.Option(help="JSON of bench accuracy.")] = None,
    fidelity: Annotated[Path | None, typer.Option(help="JSON of bench fidelity.")] = None,
    rounds: Annotated[int, typer.Option(min=5, help="Rounds of four turns, two of each.")] = 12,
    lengths: LengthsOption = "32,128,512,1024",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write one page of it all: speed, accuracy, size, memory, and what was published beside it.

    Without models and without JSON, the embedded default is measured, with its adapter and without.
    """
    from .bench.report import Files, check_folder, gather, write  # noqa: PLC0415

    files = Files(latency, size, accuracy, fidelity)
    if (base is None) != (adapted is None):
        raise RequestError("bench report: give both models, base and adapted, or none")
    check_folder(out_dir)
    models = (base, adapted) if base and adapted else None
    if models is None and files == Files():
        models = _default_models()
    with _bar("report") as progress:
        measured = gather(
            files,
            models,
            adapter=adapter,
            rounds=rounds,
            lengths=_lengths(lengths),
            threads=threads,
            progress=progress,
        )
    path = write(measured, out_dir)
    _show(as_json, {"report": str(path)}, lambda: _facts({"report": str(path)}))


def _default_models() -> tuple[Path, Path]:
    from .default import default_model  # noqa: PLC0415

    with _bar("preparing the default models") as progress:
        return default_model(adapted=False, progress=progress), default_model(progress=progress)


@bench_app.command("peers", epilog="Example: thirteen bench peers model.gguf --llama-bench ./llama-bench")
def bench_peers(
    model: Annotated[Path, typer.Argument(help="A GGUF file.")],
    rounds: Annotated[int, typer.Option(min=1, help="In each, everyone does the work once.")] = 5,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prefill.")] = 512,
    decode_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a decode.")] = 64,
    sequences: Annotated[int, typer.Option(min=1, max=64, help="How many at once.")] = 8,
    llama_bench: Annotated[str | None, typer.Option(help="The program; else the one on the path.")] = None,
    llama_batched_bench: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure the same file and threads through whatever else is installed, in turns with this engine."""
    from .bench.peers import Work, run, table  # noqa: PLC0415
    from .runtime.cores import physical_cores  # noqa: PLC0415

    work = Work(
        physical_cores() if threads is None else threads,
        prompt_tokens=prompt_tokens,
        decode_tokens=decode_tokens,
        sequences=sequences,
    )
    with _bar("peers") as progress:
        report = run(
            model,
            work=work,
            rounds=rounds,
            llama_bench=llama_bench,
            llama_batched_bench=llama_batched_bench,
            progress=progress,
        )
    _show(as_json, asdict(report), lambda: table(report))


@bench_app.command(
    "clients", epilog="Example: thirteen bench clients http://127.0.0.1:8080 http://127.0.0.1:8081"
)
def bench_clients(
    urls: Annotated[list[str], typer.Argument(help="Servers that are running; the first is compared.")],
    clients: Annotated[int, typer.Option(min=1, max=256, help="At once.")] = 8,
    questions: Annotated[int, typer.Option(min=1, help="Of each client in a round.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="In each, every server has a turn.")] = 5,
    as_json: Json = False,
) -> None:
    """Compare servers of OpenAI's chat completions under several clients, in turns."""
    from .bench.clients import Load, run, table  # noqa: PLC0415

    with _bar("clients") as progress:
        report = run(urls, load=Load(clients, questions, max_tokens), rounds=rounds, progress=progress)
    _show(as_json, asdict(report), lambda: table(report))


@bench_app.command("tune-threads", epilog="Example: thirteen bench tune-threads model.gguf")
def bench_tune_threads(
    model: Annotated[Path, typer.Argument(help="A GGUF file of the size that will be used.")],
    rounds: Annotated[int, typer.Option(min=1, help="In each, every number has a turn.")] = 8,
    keep: Annotated[bool, typer.Option(help="Have engines use what is best here from now on.")] = True,
    as_json: Json = False,
) -> None:
    """Find how many threads are quickest on this machine, and use so many from now on."""
    from .bench.threads import run, table  # noqa: PLC0415
    from .runtime.cores import keep_threads  # noqa: PLC0415

    with _bar("threads") as progress:
        report = run(model, rounds=rounds, progress=progress)
    if keep:
        err.print(f"kept in {keep_threads(report.best)}", markup=False)
    _show(as_json, asdict(report), lambda: table(report))


@bench_app.command("types", epilog="Example: thirteen bench types --output costs.json")
def bench_types(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write the costs, for plan and convert --costs."),
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure what a weight of each type costs on this machine; three to six minutes."""
    from .bench.types import run, table, write_costs  # noqa: PLC0415
    from .convert.write import check_target  # noqa: PLC0415

    if output:
        check_target(output)
    with _bar("types") as progress:
        report = run(threads=threads, progress=progress)
    if output:
        write_costs(report, output)
    _show(as_json, asdict(report), lambda: table(report))


@bench_app.command("curve", epilog="Example: thirteen bench curve embedded --sizes 4.3bpw,4.5bpw,5bpw")
def bench_curve(
    base: BaseArgument,
    sizes: Annotated[
        str, typer.Option(help="The planned files' sizes, each as convert's --size, with commas.")
    ] = "4.3bpw,4.5bpw,4.75bpw,5bpw,5.25bpw,5.5bpw,6bpw",
    adapter: AdapterOption = None,
    importance: ImportanceOption = None,
    calibration: CalibrationOption = None,
    target: TargetOption = None,
    prefer: PreferOption = "quality",
    costs: CostsOption = None,
    together: TogetherOption = False,
    data: Annotated[Path | None, typer.Option(help="Texts as JSON lines, instead of those built in.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="The most positions compared.")] = 4096,
    output_dir: Annotated[Path, typer.Option(help="The folder for the results.")] = Path("bench/results"),
    keep: Annotated[
        Path | None, typer.Option(help="A folder where the files stay; else each is deleted once measured.")
    ] = None,
    revision: Revision = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Plot KL divergence against size: planned files beside llama.cpp's own types and mixes."""
    from .bench.curve import table  # noqa: PLC0415
    from .frontier import check_results, run, write_results  # noqa: PLC0415
    from .models.fetch import fetch  # noqa: PLC0415

    check_results(output_dir)
    wishes = [_wish(size, target, prefer, costs, together=together) for size in sizes.split(",")]
    base_path = fetch(base, revision=revision, what="base")
    adapter_path = fetch(adapter, what="adapter") if adapter else None
    with _stages() as stage:
        report = run(
            base_path,
            wishes,
            adapter=adapter_path,
            importance=importance,
            calibration=calibration,
            base_id=_name(str(base_path) if base == "embedded" else base),
            adapter_id=_name(adapter or ""),
            data=data,
            tokens=tokens,
            threads=threads,
            keep=keep,
            stage=stage,
        )
    for warning in report.warnings:
        err.print(f"warning: {_printable(warning)}", markup=False)
    for path in write_results(report, output_dir):
        err.print(f"written: {path}", markup=False, soft_wrap=True)
    _show(as_json, asdict(report), lambda: table(report.curve))


@models_app.callback(epilog="Example: thirteen models fetch smollm2-135m")
def models(context: typer.Context) -> None:
    """List the models and adapters known by name."""
    if context.invoked_subcommand:
        return
    from .models.catalogue import catalogue  # noqa: PLC0415

    table = Table("name", "what", "parameters", "licence", box=None, pad_edge=False)
    table.add_row("embedded", f"{catalogue().embedded.base}, no download", "", "")
    for base in catalogue().bases.values():
        what = base.hub_id + (" (gated)" if base.gated else "")
        table.add_row(base.name, what, f"{base.parameters:,}", base.licence)
    for adapter in catalogue().adapters.values():
        table.add_row(adapter.name, f"adapter for {adapter.base}", "", "")
    out.print(table)


@models_app.command("fetch", epilog="Example: thirteen models fetch smollm2-135m")
def models_fetch(name: BaseArgument, revision: Revision = None) -> None:
    """Download a base and check its hashes; prints where it lies."""
    from .models.fetch import fetch  # noqa: PLC0415

    print(fetch(name, revision=revision, what="base"))


def _wish(size: str, target: str | None, prefer: str, costs: Path | None, *, together: bool) -> Any:
    from .convert.budget import PREFERENCES, Wish  # noqa: PLC0415
    from .convert.costs import costs_for, read_costs, this_target  # noqa: PLC0415
    from .convert.size import parse_size  # noqa: PLC0415

    if prefer not in PREFERENCES:
        raise typer.BadParameter(f"--prefer {prefer!r}: there are {', '.join(PREFERENCES)}")
    if costs and target:
        raise typer.BadParameter(f"--costs {costs} and --target {target}: give one of them")
    table = read_costs(costs) if costs else costs_for(target or this_target())
    return Wish(parse_size(size), prefer, table.together() if together else table)


def _fetch(base: str, adapter: str | None, revision: str | None) -> tuple[Path, Path | None]:
    from .models.fetch import fetch  # noqa: PLC0415

    found = fetch(base, revision=revision, what="base")
    return found, fetch(adapter, what="adapter") if adapter else None


def _importance(base: Path, adapter: Path | None, calibration: Path | None, threads: int | None) -> Path:
    from .calibration import cached_importance  # noqa: PLC0415

    with _stages() as stage:
        return cached_importance(base, adapter, calibration=calibration, threads=threads, stage=stage)


def _prove(
    done: "Report", base: Path, adapter: Path | None, importance: Path | None, threads: int | None
) -> "Proof":
    from .proof import prove  # noqa: PLC0415

    with _stages() as stage:
        return prove(done, base, adapter=adapter, importance=importance, threads=threads, stage=stage)


def _show_conversion(done: "Report", proof: "Proof | None", report: Path | None, as_json: bool) -> None:
    """Print what was made and what it kept, and write it to the file `report`, if that is given."""
    measured = proof.fidelity if proof else None
    warnings = [*done.warnings, *(proof.warnings if proof else ())]
    result = asdict(done) | {"warnings": warnings, "fidelity": asdict(measured) if measured else None}
    if report:
        report.write_text(_json(result, indent=2) + "\n", "utf-8")
    _warn(warnings)
    _show(as_json, result, lambda: _facts({
        "file": done.output,
        "size": f"{done.file_bytes:,} bytes, {done.bits_per_weight:.2f} bits a weight",
        "tensors": ", ".join(f"{count} {name}" for name, count in done.types.items()),
        "base": done.base.id,
        "adapter": _adapter_line(done.adapter) if done.adapter else "none",
        **(_predicted(done.prediction) if done.prediction else {}),
        "sha256": done.sha256,
        "time": f"{done.seconds:.1f} s",
        **(_kept(measured) if measured else {}),
    }))  # fmt: skip


def _kept(measured: "FidelityReport") -> dict[str, str]:
    from .bench.fidelity import summary  # noqa: PLC0415

    return summary(measured)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        err.print(f"warning: {_printable(warning)}", markup=False)


def _predicted(prediction: Any) -> dict[str, str]:
    divergence = prediction.divergence
    return {
        "predicted KL": "not in nats" if divergence is None else f"{divergence:.4f} nats",
        "predicted decode": f"{prediction.decode_speed:.2f} of uniform Q4_K's speed ({prediction.target})",
        "planned size": f"{prediction.file_bytes:,} of {prediction.budget_bytes:,} bytes",
    }


def _default_model() -> Path:
    from .default import default_model  # noqa: PLC0415

    with _bar("preparing the default model") as progress:
        return default_model(progress=progress)


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


def _name(source: str) -> str:
    """A source's name for the provenance: a name or hub id as it is, of a path the last part."""
    return Path(source).resolve().name if source and Path(source).exists() else source


def _printable(text: str) -> str:
    """Model text without control characters, which could command a terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


def _adapter_line(adapter: Any) -> str:
    trained = f", {adapter.trained:,} trained numbers" if adapter.trained is not None else ""
    return f"{adapter.id} ({adapter.kind}{trained}), merged by {adapter.merged_by}"


def _facts(rows: dict[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(Text(_printable(key)), Text(_printable(value)))  # a file's own text is no markup
    return table


def _show(as_json: bool, result: dict[str, Any], table: Callable[[], RenderableType]) -> None:
    """Print a result: one JSON object, or a table."""
    if as_json:
        print(_json(result))
    else:
        out.print(table())


def _show_file(output: Path, sha256: str, as_json: bool) -> None:
    """Print what was written."""
    facts = {"output": str(output), "file_bytes": output.stat().st_size, "sha256": sha256}
    _show(as_json, facts, lambda: _facts({key: str(value) for key, value in facts.items()}))


def _json(value: dict[str, Any], indent: int | None = None) -> str:
    """As JSON, which has no NaN and no infinity: they become null."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(value), indent=indent, default=str, allow_nan=False)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, where that is a terminal; yields what moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def _scores() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar with a label that changes, and the time left by the pace of minutes, not of seconds."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=err, transient=True, disable=not err.is_terminal, speed_estimate_period=600
    ) as progress:
        task = progress.add_task("", total=None)

        def show(label: str, done: int, total: int) -> None:
            nonlocal task
            if done < progress.tasks[-1].completed:  # the next side begins: its pace is another
                progress.remove_task(task)
                task = progress.add_task(label, total=total)
            progress.update(task, description=label, completed=done, total=total)

        yield show


@contextmanager
def _stages() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Progress bars of several stages, one below the other; yields what starts one by its name."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:

        def start(name: str) -> Callable[[int, int], None]:
            for old in progress.task_ids[: 1 - STAGES_SHOWN]:
                progress.remove_task(old)
            task = progress.add_task(name, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield start
