"""Batch inference on a Ray cluster: Ray Data distributes the batches to workers with an engine each."""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import OptionError, RequestError, ThirteenError
from ..files.gguf.header import read_header
from ..runtime.batch.reproducible_batches import (
    BatchJob,
    BatchResult,
    BatchRunner,
    QuestionBatch,
    package_versions,
)
from ..runtime.llama.load_probe import probe_model_files
from .ray_session import SharedFiles, error_line, ray_session, worker_capacity

_ALWAYS = -1  # a worker that dies is started again, and its batches run again, however often
_IN_FLIGHT = 2  # batches per worker: the one that it answers, and the next


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Workers of a cluster.

    Attributes:
        address: address of the cluster; see ray_session().
        workers: number of workers; None for as many as fit.
        insecure: whether the cluster may have no token authentication.
    """

    address: str
    workers: int | None = None
    insecure: bool = False

    def run(self, job: BatchJob, batches: Iterable[QuestionBatch]) -> Generator[BatchResult, None, None]:
        """Answer the batches of a job. If a worker or a node dies, its unfinished batches run again.

        Yields:
            The result of each question when its batch is finished.

        Raises:
            OptionError: the cluster cannot be reached, has too few processors, or failed.
            ThirteenError: a worker found the model or its adapter invalid.
        """
        rows = [{"numbers": list(batch), "questions": list(batch.values())} for batch in batches]
        if not rows:
            return
        for path in job.files:
            read_header(path)  # an invalid file fails before anything starts
        probe_model_files(job.model, job.files[1:])  # the workers do not repeat it
        with ray_session(self.address, insecure=self.insecure) as ray:
            capacity = worker_capacity(ray, job.threads, self.workers)
            ray.data.DataContext.get_current().enable_progress_bars = False
            answered = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
                RayWorker,
                fn_constructor_args=(job, SharedFiles(ray, *job.files), package_versions()),
                compute=ray.data.ActorPoolStrategy(
                    size=min(self.workers or capacity, len(rows)), max_tasks_in_flight_per_actor=_IN_FLIGHT
                ),
                num_cpus=job.threads,
                max_restarts=_ALWAYS,
                max_task_retries=_ALWAYS,
            )
            try:
                for block in answered.iter_batches(batch_size=None, prefetch_batches=0):
                    for failure, result in zip(block["failure"], block["result"], strict=True):
                        if failure:
                            raise OptionError("ray", failure, self.address)
                        yield result
            except ray.exceptions.RayError as error:
                raise OptionError("ray", error_line(error), self.address) from None


class RayWorker:
    """Ray Data worker that answers batches with its own engine."""

    def __init__(self, job: BatchJob, files: SharedFiles, versions: Mapping[str, str]) -> None:
        """Fetch the files and load the engine. A failure is returned for the first batch."""
        self._failure = ""
        try:
            if (found := package_versions()) != versions:
                raise RequestError(f"a worker has {found}, this machine {versions}")
            model, *adapters = files.fetch()
            job = replace(job, model=model, adapter=adapters[0] if adapters else None)
            self._runner = BatchRunner(job.load_engine(untrusted=False), job.settings)
        except ThirteenError as error:
            self._failure = str(error)

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Answer the batch in a row of the data set."""
        if self._failure:
            return [{"failure": self._failure, "result": None}]
        batch = {int(n): str(question) for n, question in zip(row["numbers"], row["questions"], strict=True)}
        return [{"failure": "", "result": result} for result in self._runner.run(batch)]
