"""Waves of questions spread over a Ray cluster by Ray Data: an engine for each worker."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from typing import Any

from ...errors import ModelFileError, ThirteenError
from ...files.gguf_header import read_header
from ..batch.reproducible_batches import BatchJob, BatchResult, BatchRunner, QuestionBatch
from .ray_session import SharedFiles, connected, error_line, worker_capacity

_AHEAD = 2  # waves that a worker has: the one that it answers, and the next


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Workers of a cluster.

    Attributes:
        address: of the cluster; see cluster.connected().
        workers: how many; None is as many as it has room for.
    """

    address: str
    workers: int | None = None

    def ask(self, job: BatchJob, waves: Iterable[QuestionBatch]) -> Generator[BatchResult, None, None]:
        """Ask there: a worker, or a node, that is lost costs the waves that it had.

        Yields:
            What became of each question, once its wave has ended.

        Raises:
            RequestError: the cluster cannot be reached, or has no room.
            ThirteenError: whatever a worker finds wrong with the model or its adapter.
        """
        rows = [{"numbers": list(wave), "texts": list(wave.values())} for wave in waves]
        if not rows:
            return
        for path in job.files:
            read_header(path)  # a bad file is known before anything begins
        with connected(self.address) as ray:
            room = worker_capacity(ray, job.threads, self.workers)
            ray.data.DataContext.get_current().enable_progress_bars = False
            files = SharedFiles(ray, *job.files)
            answered = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
                RayWorker,
                fn_constructor_args=(job, files),
                compute=ray.data.ActorPoolStrategy(
                    size=min(self.workers or room, len(rows)), max_tasks_in_flight_per_actor=_AHEAD
                ),
                num_cpus=job.threads,
            )
            try:
                for block in answered.iter_batches(batch_size=None, prefetch_batches=0):
                    for failure, asked in zip(block["failure"], block["asked"], strict=True):
                        if failure:
                            raise ModelFileError(f"--ray {self.address}: {failure}")
                        yield asked
            except ray.exceptions.RayError as error:
                raise ModelFileError(f"--ray {self.address}: {error_line(error)}") from None


class RayWorker:
    """What a worker does: it answers waves by an engine of its own."""

    def __init__(self, job: BatchJob, files: SharedFiles) -> None:
        """Have the files, and load the engine. What is wrong with it is told of with the first wave."""
        self._failure = ""
        try:
            model, *adapters = files.unpack()
            job = replace(job, model=model, adapter=adapters[0] if adapters else None)
            self._waves = BatchRunner(job.engine(), job.terms)
        except ThirteenError as error:
            self._failure = str(error)

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Answer the wave that is in a row."""
        if self._failure:
            return [{"failure": self._failure, "asked": None}]
        wave = {int(number): str(text) for number, text in zip(row["numbers"], row["texts"], strict=True)}
        return [{"failure": "", "asked": asked} for asked in self._waves.ask(wave)]
