"""Command `thirteen batch`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from ..runtime.options import Effort
from . import options
from .application import advanced_option, command
from .console import note, run_bars, show, warn


@command(
    "batch questions.jsonl my-model.gguf --out answers.jsonl",
    "batch questions.jsonl my-model.gguf --schema invoice.json",
    "batch questions.txt my-model.gguf --effort medium",
    "batch questions.jsonl my-model.gguf --ray head:6379 --threads 4",
)
def batch(
    ctx: typer.Context,
    questions: Annotated[
        Path,
        Argument(
            metavar="QUESTIONS", help="JSON lines with question and optional id; or a question in each line."
        ),
    ],
    model: options.ModelOrAdaptedArgument = None,
    output: Annotated[Path, Option("--out", "-o", help="File to write: a line per question.")] = Path(
        "answers.jsonl"
    ),
    adapter: options.RuntimeAdapter = None,
    system: options.System = None,
    effort: options.AnswerEffort = Effort.LOW,
    min_confidence: Annotated[
        float,
        advanced_option(help="Withhold values that are less probably right, or of unknown probability."),
    ] = 0.0,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = 0,
    calculator: options.Calculator = True,
    max_tokens: options.MaxTokens = 512,
    think: options.Think = None,
    schema: options.Schema = None,
    skip_bad: Annotated[bool, advanced_option("--skip-bad", help="Warn of bad lines and continue.")] = False,
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
    from ..runtime.machine import default_threads

    settings = BatchSettings(options=options.request_options(ctx, schema))
    engine = replace(ENGINE, gpu_layers=gpu_layers)

    def find() -> tuple[Path, Path | None]:
        files = options.resolve_model(model, adapter, threads=threads)
        return files.model, files.adapter

    executor = options.batch_executor(ctx, find)
    questions.stat()  # a missing file is refused before anything is downloaded, as is an output
    batch_file = BatchFile(questions, output, skip_bad)
    batch_file.check_output()
    job = BatchJob(*find(), settings, threads or default_threads(), engine)
    try:
        with run_bars() as run:
            report = batch_file.answer(job, executor=executor, progress=run.stage("batch"))
    except BaseException as error:
        if not isinstance(error, Exception) and (part := batch_file.part).exists():  # Ctrl-C, or a signal
            note(f"answers so far are in {part}: the same command resumes")
        raise
    warn(report.bad)
    rate = report.questions_an_hour
    rows = {
        "output": report.output,
        "answered": f"{report.answered} of {report.rows}",
        "without a value": f"{report.without_value}, {report.cut_off} of them cut off",
        "answered earlier": report.earlier,
        "questions per hour": f"{rate:.0f}",
        "tokens per second": f"{report.tokens / report.seconds:.1f}",
    }
    show(as_json, asdict(report) | {"questions_an_hour": rate}, rows)
