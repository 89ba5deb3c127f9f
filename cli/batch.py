"""Command `thirteen batch`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .console import note, progress_bar, show_fields, warn
from .help_sections import advanced_option

app = typer.Typer()


@app.command(
    epilog=options.example(
        "batch questions.jsonl my-model.gguf --out answers.jsonl",
        "batch questions.jsonl my-model.gguf --schema invoice.json",
        "batch questions.txt my-model.gguf --effort medium",
        "batch questions.jsonl my-model.gguf --ray head:6379 --threads 4",
    )
)
def batch(
    questions: Annotated[
        Path,
        typer.Argument(
            metavar="QUESTIONS",
            help="JSON lines with question and, optionally, id; or a text file with a question in each line.",
        ),
    ],
    model: options.ModelOrAdaptedArgument = None,
    output: Annotated[
        Path, typer.Option("--out", "-o", help="File to write: one line per question, in the same order.")
    ] = Path("answers.jsonl"),
    adapter: options.RuntimeAdapter = None,
    system: options.System = None,
    effort: options.AnswerEffort = options.LOW,
    min_confidence: options.MinConfidence = 0.0,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = 0,
    calculator: options.Calculator = True,
    max_tokens: options.MaxTokens = 512,
    think: options.Think = None,
    schema: options.Schema = None,
    skip_bad: Annotated[
        bool, advanced_option("--skip-bad", help="Warn about bad lines and continue.")
    ] = False,
    ray: options.Ray = None,
    workers: options.Workers = None,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = "0",
    as_json: options.Json = False,
) -> None:
    """Answer a file of questions; an interrupted run resumes.

    Finished answers are saved in OUT.part, from which the same command resumes. With --ray, workers of a Ray
    cluster answer the questions, each with its own engine of --threads threads.
    """
    from ..runtime.batch.batch_file import BatchFile
    from ..runtime.batch.reproducible_batches import ENGINE, BatchJob, BatchSettings
    from ..runtime.effort import parse_effort
    from ..runtime.machine import default_threads
    from ..runtime.options import Options

    if questions.suffix == ".gguf":
        raise typer.BadParameter("the questions come first: thirteen batch QUESTIONS MODEL")
    asked = Options(
        system=system,
        effort=parse_effort(effort),
        min_confidence=min_confidence,
        temperature=temperature,
        seed=seed,
        calculator=calculator,
        max_tokens=max_tokens,
        think=think,
        grammar=options.answer_grammar(schema),
    )
    settings = BatchSettings(options=asked)
    engine = options.engine_options(gpu_layers, ray, ENGINE)

    def find() -> tuple[Path, Path | None]:
        files = options.resolve_model(model, adapter, threads=threads)
        return files.model, files.adapter

    executor = options.batch_executor(ray, workers, find)
    questions.stat()  # a missing file is refused before anything is downloaded, as is an output
    batch_file = BatchFile(questions, output, skip_bad)
    batch_file.check_output()
    job = BatchJob(*find(), settings, threads or default_threads(), engine)
    try:
        with progress_bar("batch", settings.batch_size) as progress:
            report = batch_file.answer(job, executor=executor, progress=progress)
    except BaseException as error:
        if not isinstance(error, Exception) and (part := batch_file.part).exists():  # Ctrl-C, or a signal
            note(f"answers so far are in {part}: the same command resumes")
        raise
    warn(report.bad)
    rows = {
        "output": report.output,
        "answered": f"{report.answered} of {report.rows}",
        "without a value": f"{report.without_value}, {report.cut_off} of them cut off",
        "answered earlier": str(report.earlier),
        "questions per hour": f"{report.questions_an_hour:.0f}",
        "tokens per second": f"{report.tokens / report.seconds:.1f}",
    }
    show_fields(as_json, asdict(report) | {"questions_an_hour": report.questions_an_hour}, rows)
