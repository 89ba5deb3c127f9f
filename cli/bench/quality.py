"""Commands `thirteen bench …` on the quality of predictions and answers: fidelity, accuracy."""

from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import labelled_progress_bar, progress_bar, show_report
from ..help_sections import advanced_option

app = typer.Typer()


@app.command("fidelity", epilog=options.example("bench fidelity reference-F16.gguf my-model.gguf"))
def bench_fidelity(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="Adapted model in high precision, such as F16.")
    ],
    shipped: Annotated[str, typer.Argument(metavar="SHIPPED", help="Adapted model, quantized.")],
    base: Annotated[str | None, typer.Option(help="Unadapted model in high precision.")] = None,
    shipped_base: Annotated[str | None, typer.Option(help="Unadapted model, quantized.")] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Adapter to compare at run time, on the unadapted quantized model.")
    ] = None,
    data: options.Texts = None,
    tokens: options.Positions = 4096,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure what quantization changes.

    That is the KL divergence from the reference and, with --base and --shipped-base, how much of the
    adapter's effect remains.
    """
    from ...bench.quality_tables import fidelity_table
    from ...quality.fidelity.fidelity import run_fidelity
    from ...quality.fidelity.model_roles import check_roles, model_sources

    check_roles(base, shipped_base, adapter)
    if data is not None:
        data.stat()  # a missing file is refused before anything is downloaded
    quantized = None
    if shipped_base is not None:
        quantized = options.probed_model(shipped_base, adapter, threads=threads)
    models = model_sources(
        options.probed_model(reference, threads=threads).model,
        options.probed_model(shipped, threads=threads).model,
        base=None if base is None else options.probed_model(base, threads=threads).model,
        shipped_base=quantized.model if quantized else None,
        adapter=quantized.adapter if quantized else None,
    )
    with progress_bar("fidelity") as progress:
        report = run_fidelity(models, data=data, tokens=tokens, threads=threads, progress=progress)
    show_report(as_json, report, fidelity_table)


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
    prompt: Annotated[
        str | None,
        advanced_option(
            help="Prompt format: zero-shot, bare, refined or 8-shot. Default: zero-shot, or bare for votes."
        ),
    ] = None,
    effort: options.AnswerEffort = options.LOW,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = 0,
    calculator: options.Calculator = True,
    max_tokens: options.MaxTokens = 512,
    think: options.Think = None,
    think_budget: options.ThinkBudget = None,
    limit: options.Limit = None,
    timed: options.Timed = 16,
    records: Annotated[
        Path | None, advanced_option(help="Folder for the record of each question. Default: in the cache.")
    ] = None,
    ray: options.Ray = None,
    ray_insecure: options.RayInsecure = False,
    workers: options.Workers = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure accuracy and right answers a minute.

    An interrupted run resumes. Some of the questions are then asked one at a time, for the seconds that a
    user waits.
    """
    from ...bench.accuracy.accuracy import AccuracyRequest, accuracy_table, run_accuracy
    from ...bench.accuracy.datasets import load_question_set
    from ...bench.accuracy.prompts import PromptSettings
    from ...runtime.request import Sampling

    sampling = Sampling(temperature, seed=seed)
    settings = PromptSettings(sampling=sampling, **options.matching_options(ctx, PromptSettings))
    executor = options.batch_executor(ray, workers, insecure=ray_insecure)
    questions = load_question_set(data).subsample(limit)
    files = options.probed_model(model, adapter, threads=threads)
    request = AccuracyRequest(
        model=files.model,
        questions=questions,
        settings=settings,
        base=None if base is None else options.probed_model(base, threads=threads).model,
        adapter=files.adapter,
        records=records,
        timed=timed,
    )
    with labelled_progress_bar() as progress:
        report = run_accuracy(request, executor, progress)
    show_report(as_json, report, accuracy_table)
