"""Throughput of a batch of questions on one local engine and on the workers of a Ray cluster.

python lab/cluster.py MODEL.gguf [--ray ADDRESS] [--ray-insecure] [--workers 1 2] [--questions 200]
    [--max-tokens 64] [--threads 1] [--rounds 3]

The time of a round is that from the start to the last answer, including loading the model, and starting the
cluster if it is started for the run.
"""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
from thirteen.bench.harness.format import report_table
from thirteen.cli.console import out, progress_bar
from thirteen.cluster.ray_batch import RayWorkers
from thirteen.quality.environment import BenchReport, report_head
from thirteen.quality.schedule import ProgressCounter, alternating_order
from thirteen.runtime.batch.reproducible_batches import (
    BatchExecutor,
    BatchJob,
    GenerationSettings,
    split_into_batches,
)
from thirteen.stats.paired_ratio import paired_ratio


def run_batch(
    execute: BatchExecutor, job: BatchJob, questions: int, advance: ProgressCounter
) -> tuple[float, tuple[str, ...]]:
    """Seconds until all questions are answered, and the answers."""
    texts = [f"Tom has {n + 2} boxes of {n % 9 + 3} eggs. How many eggs are that?" for n in range(questions)]
    start, answers = perf_counter(), [""] * questions
    for result in execute(job, split_into_batches(dict(enumerate(texts)), job.settings.batch_size)):
        answers[result.number] = result.answer.text if result.answer else str(result.error)
        advance()
    return perf_counter() - start, tuple(answers)


def main() -> None:
    """Print the throughput of each way to run the batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--ray", default="local")
    parser.add_argument("--ray-insecure", action="store_true")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    for name, number in (("--questions", 200), ("--max-tokens", 64), ("--threads", 1), ("--rounds", 3)):
        parser.add_argument(name, type=int, default=number)
    given = parser.parse_args()
    job = BatchJob(given.model, None, GenerationSettings(max_tokens=given.max_tokens), given.threads)
    ways: dict[str, BatchExecutor] = {"one local engine": BatchJob.run}
    ways |= {f"workers: {n}": RayWorkers(given.ray, n, given.ray_insecure).run for n in given.workers}
    executors, head = [*ways.values()], BenchReport(*report_head())
    seconds, answers = np.empty((len(ways), given.rounds)), set()
    with progress_bar("cluster") as progress:
        advance = ProgressCounter(progress, len(ways) * given.questions * given.rounds)
        for number in range(given.rounds):
            for way in alternating_order(len(ways), number):
                took_s, texts = run_batch(executors[way], job, given.questions, advance)
                seconds[way, number] = took_s
                answers.add(texts)
    title = f"{given.questions} questions, at most {given.max_tokens} tokens each"
    same = "the same" if len(answers) == 1 else "NOT the same"
    caption = f"{given.model.name}, {given.rounds} rounds, the answers are {same}, per engine "
    caption += head.environment(given.threads)
    table = report_table(title, caption, "mode", "seconds", "questions per hour", "/ local engine")
    for name, took in zip(ways, seconds, strict=True):
        median_s = float(np.median(took))
        ratio = paired_ratio(took, seconds[0]).text(3)
        table.add_row(name, f"{median_s:.1f}", f"{3600 * given.questions / median_s:.0f}", ratio)
    out.print(table)


if __name__ == "__main__":
    main()
