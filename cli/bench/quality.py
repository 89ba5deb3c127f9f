"""Commands `thirteen bench …` on answers and predictions: accuracy, fidelity."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import progress_bar, score_bar, show_report
from ..options import (
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


@app.command("fidelity", epilog="Example: thirteen bench fidelity reference-F16.gguf my-model.gguf")
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
    from ...bench.fidelity.fidelity import fidelity_table, run_fidelity
    from ...bench.fidelity.model_roles import model_sources

    with progress_bar("fidelity") as progress:
        models = model_sources(reference, shipped, base=base, shipped_base=shipped_base, adapter=adapter)
        report = run_fidelity(models, data=data, tokens=tokens, threads=threads, progress=progress)
    show_report(as_json, report, fidelity_table)


@app.command("accuracy", epilog="Example: thirteen bench accuracy adapted.gguf --base base.gguf --data gsm8k")
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
    votes: VotesOption = 1,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
    calculator: CalculatorOption = True,
    max_tokens: MaxTokensOption = 512,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The most questions, spread evenly over the set.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="The folder of each question's records; by default in the cache.")
    ] = None,
    ray: RayOption = None,
    workers: WorkersOption = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Count right answers, of a model and its base; a run that was interrupted goes on where it was."""
    from ...bench.accuracy.accuracy import accuracy_table, run_accuracy
    from ...bench.accuracy.datasets import load_question_set
    from ...bench.accuracy.prompt_settings import PromptSettings
    from ...runtime.request import Sampling
    from ...runtime.threads import default_threads

    settings = PromptSettings(
        threads=default_threads().decode if threads is None else threads,
        prompt=prompt,
        votes=votes,
        sampling=Sampling(temperature, seed=seed),
        calculator=calculator,
        max_tokens=max_tokens,
    )
    with score_bar() as progress:
        report = run_accuracy(
            model,
            load_question_set(data).subsample(limit),
            settings,
            base=base,
            adapter=adapter,
            folder=records,
            executor=answer_with(ray, workers),
            progress=progress,
        )
    show_report(as_json, report, accuracy_table)
