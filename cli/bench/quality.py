"""Commands `thirteen bench …` on the quality of predictions and answers: fidelity, accuracy."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .. import options
from ..console import labelled_progress_bar, progress_bar, show_report
from ..help_sections import advanced_option
from .speed import model_source

app = typer.Typer()


@app.command("fidelity", epilog=options.example("bench fidelity reference-F16.gguf my-model.gguf"))
def bench_fidelity(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="Adapted model in high precision, such as F16.")
    ],
    shipped: Annotated[str, typer.Argument(metavar="SHIPPED", help="Adapted model, quantized.")],
    adapter: Annotated[
        str | None, typer.Option(help="Adapter to apply to SHIPPED at run time, if it is not merged.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Unadapted model in high precision.")] = None,
    shipped_base: Annotated[str | None, typer.Option(help="Unadapted model, quantized.")] = None,
    data: options.Texts = None,
    tokens: options.Positions = 4096,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure what quantization changes.

    That is the KL divergence from the reference and, with --base and --shipped-base, how much of the
    adapter's effect remains.
    """
    from ...bench.environment import ModelSource
    from ...bench.fidelity.fidelity import Role, run_fidelity
    from ...bench.fidelity.fidelity_report import fidelity_table
    from ...bench.table import findings
    from ...models.texts import HELD_OUT

    if (base is None) != (shipped_base is None):
        raise typer.BadParameter("--base and --shipped-base require each other")
    if data is not None:
        data.stat()  # a missing file is refused before anything is downloaded
    models: dict[Role, ModelSource] = {
        "reference": model_source(reference, None, threads),
        "shipped": model_source(shipped, adapter, threads),
    }
    if base is not None and shipped_base is not None:
        models["base"] = model_source(base, None, threads)
        models["shipped_base"] = model_source(shipped_base, None, threads)
    with progress_bar("fidelity") as progress:
        report = run_fidelity(
            models, data=data or HELD_OUT, tokens=tokens, threads=threads, progress=progress
        )
    show_report(as_json, report, lambda report: findings(report.verdict, fidelity_table(report)))


@app.command("accuracy", epilog=options.example("bench accuracy adapted.gguf --base base.gguf --data gsm8k"))
def bench_accuracy(
    ctx: typer.Context,
    model: options.ModelArgument,
    data: Annotated[str, typer.Option(help="Questions: gsm8k, svamp, or JSON lines with question, answer.")],
    base: Annotated[
        str | None,
        typer.Option(
            help="Unadapted model to compare with. To measure the effect of --adapter, give MODEL again."
        ),
    ] = None,
    adapter: options.ModelAdapter = None,
    limit: options.Limit = None,
    prompt: Annotated[
        Literal["zero-shot", "bare", "refined", "8-shot"] | None,
        advanced_option(help="Text around a question. Default: zero-shot, or bare for votes."),
    ] = None,
    effort: options.AnswerEffort = options.LOW,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = 0,
    calculator: options.Calculator = True,
    max_tokens: options.MaxTokens = 512,
    think: options.Think = None,
    think_budget: options.ThinkBudget = None,
    timed: options.Timed = 16,
    records: Annotated[
        Path | None, advanced_option(help="Folder for the record of each question. Default: in the cache.")
    ] = None,
    ray: options.Ray = None,
    workers: options.Workers = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure right answers, paired with a base's.

    An interrupted run resumes. Some of the questions are then asked one at a time, for the seconds that a
    user waits.
    """
    from ...bench.accuracy.accuracy import AccuracyRequest, accuracy_table, run_accuracy
    from ...bench.accuracy.datasets import load_question_set
    from ...bench.accuracy.prompts import PromptSettings
    from ...bench.table import findings
    from ...runtime.effort import parse_effort
    from ...runtime.options import Options

    asked = Options(
        effort=parse_effort(effort),
        temperature=temperature,
        seed=seed,
        calculator=calculator,
        max_tokens=max_tokens,
        think=think,
        think_budget=think_budget,
    )
    settings = PromptSettings(options=asked, **options.matching_options(ctx, PromptSettings))
    executor = options.batch_executor(ray, workers)
    questions = load_question_set(data).subsample(limit)
    models = [model_source(model, adapter, threads)]
    if base is not None:
        models.insert(0, model_source(base, None, threads))
    request = AccuracyRequest(
        models=models, questions=questions, settings=settings, records=records, timed=timed
    )
    with labelled_progress_bar() as progress:
        report = run_accuracy(request, executor, progress)
    show_report(as_json, report, lambda report: findings(report.verdict, accuracy_table(report)))
