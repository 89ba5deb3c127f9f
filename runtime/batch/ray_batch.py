"""Batch inference on a Ray cluster: Ray Data distributes the batches to workers with an engine each."""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import OptionError, RequestError, ThirteenError
from .ray_session import error_line, ray_session, worker_capacity
from .reproducible_batches import BatchJob, BatchResult, QuestionBatch, answer_batch

FindFiles = Callable[[], tuple[Path, Path | None]]


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Workers of a cluster.

    Attributes:
        address: address of the cluster; see ray_session().
        workers: number of workers; None for as many as fit.
        find: finds the model and its adapter on a node that lacks the paths of the job.
    """

    address: str
    workers: int | None = None
    find: FindFiles | None = None

    def run(self, job: BatchJob, batches: Iterable[QuestionBatch]) -> Generator[BatchResult, None, None]:
        """Answer the batches of a job. If a worker or a node dies, its unfinished batches run again.

        Yields:
            The result of each question when its batch is finished.

        Raises:
            OptionError: the cluster cannot be reached, has too few processors, or failed.
            ThirteenError: the model is invalid.
        """
        rows = [{"numbers": list(batch), "questions": list(batch.values())} for batch in batches]
        if not rows:
            return
        adapter = job.adapter and job.adapter.absolute()
        job = replace(job.decided(), model=job.model.absolute(), adapter=adapter)
        with ray_session(self.address) as ray:
            capacity = worker_capacity(ray, job.threads, self.workers or 1)
            ray.data.DataContext.get_current().enable_progress_bars = False
            answered = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                RayWorker,
                fn_constructor_args=(job, job.identity, self.find),
                batch_size=1,
                batch_format="pandas",
                compute=ray.data.ActorPoolStrategy(size=min(self.workers or capacity, len(rows))),
                num_cpus=job.threads,
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

    def __init__(self, job: BatchJob, identity: Mapping[str, Any], find: FindFiles | None) -> None:
        """Load the engine. A failure is returned for the first batch: Ray would restart a worker for ever."""
        self._failure = ""
        try:
            if find and not all(path.exists() for path in (job.model, job.adapter) if path):
                model, adapter = find()
                job = replace(job, model=model, adapter=adapter)
            found = job.identity
            for name, value in identity.items():
                if found[name] != value:  # its answers would differ from those that are recorded
                    raise RequestError(f"a worker has {name} {found[name]}, this machine {value}")
            self._engine, self._settings = job.load_engine(), job.settings
        except (ThirteenError, OSError) as error:
            self._failure = str(error)

    def __call__(self, rows: Any) -> dict[str, list[Any]]:
        """Answer the batch in a row of the data set."""
        if self._failure:
            return {"failure": [self._failure], "result": [None]}
        (numbers,), (questions,) = rows["numbers"], rows["questions"]
        batch = dict(zip(map(int, numbers), questions, strict=True))
        results = [*answer_batch(self._engine, self._settings, batch)]
        return {"failure": [""] * len(results), "result": results}
