"""Command `thirteen rollouts`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import progress_bar, show_fields, warn
from ..help_sections import ADVANCED

app = typer.Typer()


@app.command(
    epilog=options.example(
        "rollouts my-model.gguf --questions gsm8k-train.jsonl --limit 400 -o rollouts.jsonl"
    )
)
def rollouts(
    questions: Annotated[Path, typer.Option(help="Questions: JSON lines with question, answer.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: JSON lines.")],
    model: options.AnsweringModelArgument = None,
    adapter: options.ModelAdapter = None,
    samples: Annotated[int, typer.Option(min=2, max=64, help="Solutions to each question.")] = 8,
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature; 0 means 0.7.", rich_help_panel=ADVANCED)
    ] = 0.7,
    seed: Annotated[
        int, typer.Option(help="Random seed. Each further sample adds 1.", rich_help_panel=ADVANCED)
    ] = 0,
    system: options.System = None,
    max_tokens: options.MaxTokens = 300,
    calculator: options.Calculator = True,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum questions, the first of a shuffle by --seed.")
    ] = None,
    ray: options.Ray = None,
    ray_insecure: options.RayInsecure = False,
    workers: options.Workers = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Sample solutions to questions, to train or tune on.

    Each is judged by its final answer. An interrupted run resumes.
    """
    from ...files.output import check_target
    from ...learn.sample_rollouts import sample_rollouts
    from ...models.rows import read_rows, shuffle_rows
    from ...runtime.batch.reproducible_batches import BatchJob, GenerationSettings
    from ...runtime.request import Sampling
    from ...runtime.threads import default_threads

    settings = GenerationSettings(
        system=system,
        votes=samples,
        sampling=Sampling(temperature, seed=seed),
        calculator=calculator,
        max_tokens=max_tokens,
    )
    check_target(output, questions)
    executor = options.batch_executor(ray, workers, insecure=ray_insecure)
    rows = shuffle_rows(read_rows(questions, ("answer",)), seed)[:limit]
    named = {"adapter": adapter} if adapter else {}
    path, loras = options.resolve_model(model or "embedded", named, threads=threads)
    job = BatchJob(path, loras.get("adapter"), settings, threads or default_threads())
    with progress_bar("rollouts") as progress:
        summary = sample_rollouts(job, rows, output, executor=executor, progress=progress)
    if not summary.sometimes_right:
        warn(["no question is sometimes right: train and tune cannot learn from these rollouts"])
    asked = summary.questions - summary.errors
    shown = {
        "output": summary.output,
        "sometimes right": f"{summary.sometimes_right} of {asked} questions",
        "always, never right": f"{summary.always_right}, {summary.never_right}",
        "right solutions": f"{summary.right:.1%} of {summary.samples} a question",
        "tokens a solution": f"{summary.tokens:.0f}",
    }
    show_fields(as_json, asdict(summary), shown | ({"errors": str(summary.errors)} if summary.errors else {}))
