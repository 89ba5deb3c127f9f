"""The command `thirteen batch`: a file of questions, answered here or by a cluster."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .console import facts_table, progress_bar, show_result, warn
from .options import (
    CalculatorOption,
    Json,
    MaxTokensOption,
    RayOption,
    SeedOption,
    TemperatureOption,
    Threads,
    VotesOption,
    WorkersOption,
    answer_with,
)

app = typer.Typer()


@app.command(
    epilog="Example: thirteen batch questions.jsonl my-model.gguf --out answers.jsonl "
    "or, on a cluster: … --ray head:6379 --threads 4"
)
def batch(
    questions: Annotated[Path, typer.Argument(help="JSON lines: question and, to be given back, id.")],
    model: Annotated[Path | None, typer.Argument(help="A GGUF; by default the embedded model.")] = None,
    output: Annotated[
        Path, typer.Option("--out", "-o", help="The file to write: a line for each question, in their order.")
    ] = Path("answers.jsonl"),
    adapter: Annotated[
        str | None, typer.Option(help="An adapter at run time: a GGUF LoRA, or as in convert.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What to tell the model beforehand.")] = None,
    votes: VotesOption = 1,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
    calculator: CalculatorOption = True,
    max_tokens: MaxTokensOption = 512,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Tell of bad lines, and go on; by default the first one ends it."),
    ] = False,
    ray: RayOption = None,
    workers: WorkersOption = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Answer a file of questions; a run that was interrupted goes on where it was.

    Answers are kept in OUT.part as they end. With --ray, workers of a Ray cluster answer, each with an engine
    of so many --threads.
    """
    from ..runtime.batch.batch_file import answer_file as run
    from ..runtime.batch.reproducible_batches import BatchJob, GenerationSettings
    from ..runtime.request import Sampling
    from ..runtime.threads import default_threads
    from ..workflows.adapter_resolver import resolve_runtime_lora
    from ..workflows.default_model import default_model

    terms = GenerationSettings(
        system=system,
        votes=votes,
        sampling=Sampling(temperature, seed=seed),
        calculator=calculator,
        max_tokens=max_tokens,
    )
    ask = answer_with(ray, workers)
    with progress_bar("preparing") as progress:
        model = model or default_model(adapted=adapter is None, progress=progress)
        lora = resolve_runtime_lora(adapter, model, progress=progress) if adapter else None
    job = BatchJob(model, lora, terms, threads or default_threads().decode)
    with progress_bar("batch") as progress:
        report = run(questions, job, output, skip_bad=skip_bad, executor=ask, progress=progress)
    warn(report.bad)
    facts = {
        "output": report.output,
        "answered": f"{report.answered} of {report.rows}",
        "without a value": str(report.without_value),
        "answered earlier": str(report.earlier),
        "questions an hour": f"{report.questions_an_hour:.0f}",
        "tokens a second": f"{report.tokens / report.seconds:.1f}",
    }
    result = asdict(report) | {"questions_an_hour": report.questions_an_hour}
    show_result(as_json, result, lambda: facts_table(facts))
